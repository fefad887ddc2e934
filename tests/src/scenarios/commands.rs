//! `trace -- CMD` shows what the command and its descendants do, and ends as the command does.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, raise};

use super::connecting::loopback;
use super::families::converse;
use super::listeners::expect_listener;
use super::programs::{FAMILY, LISTENER, SUICIDE};
use crate::harness::event::Kind;
use crate::harness::meeting::Mailbox;
use crate::harness::process::spawn;
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;
use crate::harness::truth::{self, Process};

crate::scenarios! {
    a_traced_command_is_shown_with_its_descendants_and_nobody_else,
    a_traced_command_that_dies_of_a_signal_gives_128_more,
    a_command_that_is_not_there_gives_127,
}

/// Below the ephemeral ports, so that nobody gets one of these by chance.
const PORT: u16 = 21_000;
const STATUS: u8 = 7;

/// What the traced program does: sockets of its own, of a forked and of an exec'ed child.
pub fn family(truth_directory: &Path) -> Result<u8> {
    truth::set_directory(truth_directory);
    truth::declare()?;
    println!("a program's own words are no events");
    let listener = Sock::tcp4()?;
    listener.bind(loopback(0))?;
    listener.listen(5)?;
    spawn("descendant", || {
        converse(&listener, &Sock::tcp4()?, listener.address())
    })?
    .join()?;
    listener.also_accepted(1);
    let me = Process::current()?;
    let args = [LISTENER.to_owned(), PORT.to_string()];
    let mut child = Command::new(&me.exe).args(&args).spawn()?;
    expect_listener(&me, child.id(), &args, PORT, truth::netns());
    ensure!(child.wait()?.success(), "the exec'ed child failed");
    drop(listener);
    truth::save()?;
    Ok(STATUS)
}

/// Ends by a signal.
pub fn suicide() -> Result<u8> {
    raise(Signal::SIGKILL)?;
    Ok(0)
}

fn traced(stage: &Stage, program: &str, argument: &str) -> Result<Command> {
    let mut command = stage.command("json", &["--require-complete", "--"]);
    command
        .arg(std::env::current_exe()?)
        .args([program, argument]);
    Ok(command)
}

fn a_traced_command_is_shown_with_its_descendants_and_nobody_else(stage: &mut Stage) -> Result<()> {
    let end = Mailbox::new()?;
    let outsider = stage.spawn("outsider", || {
        while end.try_take()?.is_none() {
            Sock::tcp4()?.bind(loopback(0))?;
            sleep(Duration::from_millis(2));
        }
        Ok(())
    })?;
    let directory = stage.directory().join("truth");
    let command = traced(stage, FAMILY, &directory.to_string_lossy())?;
    let run = stage.start(command)?.wait()?;
    end.put("end")?;
    stage.join()?;
    run.expect_status(STATUS.into())?;
    let events = run.events()?;
    let mut truth = stage.truth()?;
    truth.processes.remove(&outsider);
    truth.expected.retain(|x| x.pid != outsider);
    let foreign = events.iter().find(|event| !truth.concerns(event));
    ensure!(foreign.is_none(), "somebody else's event: {foreign:?}");
    crate::harness::judge::compare(&events, &truth)?;
    let listens = events.iter().filter(|x| x.event == Kind::Listen).count();
    ensure!(listens == 2, "{listens} listens");
    Ok(())
}

fn a_traced_command_that_dies_of_a_signal_gives_128_more(stage: &mut Stage) -> Result<()> {
    let command = traced(stage, SUICIDE, "now")?;
    stage.start(command)?.wait()?.expect_status(128 + 9)
}

fn a_command_that_is_not_there_gives_127(stage: &mut Stage) -> Result<()> {
    let command = stage.command("json", &["--", "/nowhere/no-such-command"]);
    let run = stage.start(command)?.wait()?;
    run.expect_status(127)?;
    run.expect_said(&["/nowhere/no-such-command"])
}
