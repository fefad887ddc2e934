//! However a trace ends, it ends clean.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::connecting::loopback;
use crate::harness::bpf::{Object, exists};
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;
use crate::harness::tracer::Tracer;
use crate::runner::Scenario;

crate::scenarios! {
    a_killed_consumer_is_a_normal_end,
    a_full_disk_is_told_and_fails,
    ctrl_c_and_sigterm_end_with_a_summary,
    a_trace_ends_after_count_events,
    a_trace_ends_after_its_duration,
}

/// What depends on the kernel.
pub const ATTACHED: &[Scenario] = &[
    Scenario {
        name: "nothing_stays_attached_after_kill_9",
        play: nothing_stays_attached_after_kill_9,
    },
    Scenario {
        name: "probes_that_note_their_own_work_miss_nothing",
        play: probes_that_note_their_own_work_miss_nothing,
    },
];

/// Some events, so that there is something to print.
fn binds(stage: &mut Stage, count: usize) -> Result<()> {
    let netns = stage.netns()?;
    stage.spawn_in(&netns, "binder", || {
        for _ in 0..count {
            Sock::tcp4()?.bind(loopback(0))?;
        }
        Ok(())
    })?;
    stage.join()
}

fn start_to(stage: &Stage, stdout: impl Into<std::process::Stdio>) -> Result<Tracer> {
    let mut command = stage.command("json", &[]);
    command.stdout(stdout);
    let nowhere = stage.directory().join("nowhere");
    let mut tracer = Tracer::start_to(command, nowhere, stage.directory(), "run")?;
    tracer.wait_ready()?;
    Ok(tracer)
}

fn a_killed_consumer_is_a_normal_end(stage: &mut Stage) -> Result<()> {
    let (reader, writer) = io::pipe()?;
    let tracer = start_to(stage, OwnedFd::from(writer))?;
    drop(reader);
    binds(stage, 100)?;
    let run = tracer.wait()?;
    run.expect_status(0)?;
    let said = run.stderr.to_lowercase();
    for noise in ["error", "panicked", "broken pipe"] {
        ensure!(
            !said.contains(noise),
            "noise on stderr: {}",
            run.stderr.trim()
        );
    }
    Ok(())
}

fn a_full_disk_is_told_and_fails(stage: &mut Stage) -> Result<()> {
    let full = OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .context("/dev/full")?;
    let tracer = start_to(stage, full)?;
    binds(stage, 100)?;
    let run = tracer.wait()?;
    run.expect_status(1)?;
    run.expect_said(&["no space left"])
}

/// Programs, links and maps that a process has open.
fn objects(pid: u32) -> Result<BTreeSet<Object>> {
    let mut objects = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // an fd may be gone again
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        objects.extend(text.lines().filter_map(Object::from_fdinfo));
    }
    Ok(objects)
}

fn nothing_stays_attached_after_kill_9(stage: &mut Stage) -> Result<()> {
    let tracer = stage.trace(&[])?;
    binds(stage, 10)?;
    let objects = objects(tracer.pid())?;
    ensure!(
        objects.len() > 5,
        "only {} eBPF objects found",
        objects.len()
    );
    for object in &objects {
        ensure!(
            exists(*object)?,
            "{object:?} is not there while it is in use"
        );
    }
    tracer.signal(Signal::SIGKILL)?;
    tracer.wait()?;
    // The kernel gives them back when all of its CPUs have been idle or elsewhere for a moment.
    let within = stage.scaled(Duration::from_secs(10), Duration::from_secs(40));
    let deadline = Instant::now() + within;
    loop {
        let mut left = Vec::new();
        for object in &objects {
            if exists(*object)? {
                left.push(*object);
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "still there: {left:?}");
        sleep(Duration::from_millis(20));
    }
}

/// Programs with the code for notes are larger, and have to be taken by the kernel all the same.
fn probes_that_note_their_own_work_miss_nothing(stage: &mut Stage) -> Result<()> {
    let tracer = stage.trace(&["--kernel-notes", "--require-complete"])?;
    binds(stage, 10)?;
    let run = tracer.stop()?;
    stage.judge(&run)?;
    Ok(())
}

fn ctrl_c_and_sigterm_end_with_a_summary(stage: &mut Stage) -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let tracer = stage.trace(&[])?;
        binds(stage, 10)?;
        tracer.signal(signal)?;
        let run = tracer.wait()?;
        run.expect_status(0)?;
        // the summary: what was shown, and that it was all
        run.expect_said(&["events", "complete"])?;
        ensure!(
            run.events()?.len() >= 20,
            "the last events were not drained"
        );
    }
    Ok(())
}

fn a_trace_ends_after_count_events(stage: &mut Stage) -> Result<()> {
    let tracer = stage.trace(&["--count", "7"])?;
    binds(stage, 100)?;
    let run = tracer.wait()?;
    run.expect_status(0)?;
    let events = run.events()?.len();
    ensure!(events == 7, "{events} events, not 7");
    Ok(())
}

fn a_trace_ends_after_its_duration(stage: &mut Stage) -> Result<()> {
    let start = Instant::now();
    let tracer = stage.trace(&["--duration", "1"])?;
    let ready = Instant::now();
    tracer.wait()?.expect_status(0)?;
    ensure!(start.elapsed() >= Duration::from_secs(1), "it ended early");
    let late = stage.scaled(Duration::from_secs(5), Duration::from_secs(30));
    ensure!(ready.elapsed() < late, "it ended late");
    Ok(())
}
