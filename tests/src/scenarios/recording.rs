//! `portwatch record`: what is in a session is what happened, and every view of it shows the same as it
//! would have shown then.

use std::collections::{BTreeSet, VecDeque};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use humantime::format_rfc3339_nanos;
use socket2::SockRef;

use super::connecting::loopback;
use super::families::converse;
use super::listing::{Row, rows_of};
use crate::harness::meeting::{Mailbox, mailboxes};
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;
use crate::harness::tracer::Run;
use crate::runner::Scenario;

crate::scenarios! {
    a_session_lists_what_was_open_at_any_moment,
}

/// What depends on the kernel.
pub const REPLAYED: &[Scenario] = &[Scenario {
    name: "a_session_replays_what_was_printed",
    play: a_session_replays_what_was_printed,
}];

fn path(directory: &Path) -> Result<String> {
    let path = directory.join("session.db");
    Ok(path.to_str().context("a path that is no text")?.to_owned())
}

/// Runs a command of portwatch to its end, which has to be a good one.
fn done(stage: &mut Stage, words: &[&str]) -> Result<Run> {
    let mut command = Command::new(stage.portwatch());
    command.args(words);
    let run = stage.start(command)?.wait()?;
    run.expect_status(0)?;
    Ok(run)
}

fn a_session_replays_what_was_printed(stage: &mut Stage) -> Result<()> {
    let file = path(stage.directory())?;
    let netns = stage.netns()?;
    let record = stage.view(&["record", &file, "-o", "json", "--require-complete"]);
    let mut recorder = stage.start(record)?;
    recorder.wait_ready()?;
    let count = stage.scaled(200, 20);
    stage.spawn_in(&netns, "talker", || {
        let listener = Sock::tcp4()?;
        listener.bind(loopback(0))?;
        listener.listen(5)?;
        for _ in 0..count {
            converse(&listener, &Sock::tcp4()?, listener.address())?;
        }
        Ok(())
    })?;
    stage.join()?;
    let run = recorder.stop()?;
    stage.judge(&run)?;
    let replayed = done(stage, &["trace", "--from", &file, "-o", "json"])?;
    ensure!(
        replayed.stdout == run.stdout,
        "{} bytes were printed, {} replayed",
        run.stdout.len(),
        replayed.stdout.len()
    );
    done(stage, &["verify", &file])?;
    Ok(())
}

/// Opens and closes sockets of all kinds, and stands still at every moment.
fn churn(moments: usize, ready: &Mailbox, go: &Mailbox) -> Result<()> {
    let target = TcpListener::bind(loopback(0))?;
    let (mut listeners, mut connections) = (VecDeque::new(), VecDeque::new());
    let mut udp = VecDeque::new();
    for moment in 0..moments {
        for number in 0..7 {
            listeners.push_back(TcpListener::bind(loopback(0))?);
            let client = TcpStream::connect(target.local_addr()?)?;
            // A reset leaves nothing behind.
            SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
            connections.push_back((client, target.accept()?.0));
            udp.push_back(UdpSocket::bind(loopback(0))?);
            if (number + moment) % 3 > 0 {
                listeners.pop_front();
                connections.pop_front();
                udp.pop_front();
            }
        }
        ready.put("ready")?;
        go.take()?;
        // For so long that the recorder looks after the kernel's sockets meanwhile.
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// As far as events tell it.
fn open(rows: Vec<Row>) -> BTreeSet<String> {
    rows.iter().map(Row::told).collect()
}

fn a_session_lists_what_was_open_at_any_moment(stage: &mut Stage) -> Result<()> {
    const MOMENTS: usize = 50;
    let file = path(stage.directory())?;
    let netns = stage.netns()?;
    let inode = netns.inode().to_string();
    let mut recorder = stage.start(stage.view(&["record", &file]))?;
    recorder.wait_ready()?;
    let [ready, go] = mailboxes()?;
    stage.spawn_in(&netns, "churner", || churn(MOMENTS, &ready, &go))?;
    let list = ["list", "-a", "-o", "json", "--netns", &inode];
    let mut moments = Vec::new();
    for _ in 0..MOMENTS {
        ready.take()?;
        let at = format_rfc3339_nanos(SystemTime::now()).to_string();
        let rows = open(rows_of(&done(stage, &list)?)?);
        go.put("go")?;
        ensure!(rows.len() > 10, "only {} sockets", rows.len());
        moments.push((at, rows));
    }
    stage.join()?;
    recorder.stop()?.expect_status(0)?;
    for (at, rows) in moments {
        let words = [&list[..], &["--from", &file, "--at", &at]].concat();
        let recorded = open(rows_of(&done(stage, &words)?)?);
        let missing: Vec<_> = rows.difference(&recorded).take(3).collect();
        let extra: Vec<_> = recorded.difference(&rows).take(3).collect();
        ensure!(
            missing.is_empty() && extra.is_empty(),
            "at {at} of {} then and {} recorded: missing {missing:?}, too many {extra:?}",
            rows.len(),
            recorded.len()
        );
    }
    Ok(())
}
