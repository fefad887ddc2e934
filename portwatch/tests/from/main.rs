//! `--from FILE`: sessions made here, shown by every view.

mod damage;
mod large;
mod moments;
#[path = "../program/mod.rs"]
mod program;
mod trace;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portwatch::event::{Cause, Comm, Context, Event, Family, Kind, Origin, Peer, Proto};
use portwatch::row::{Row, State};
use portwatch::session::{self, About, Finish, Kept, Run, Writer};
use portwatch::source::accounts::Accounts;
use portwatch::view::lines::Json;
use serde_json::Value;
use tempfile::TempDir;

use program::portwatch;

/// 2023-11-14 22:13:20 UTC.
const START: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
const HOST_NETNS: u32 = 4026531840;

/// An event so many milliseconds after the start.
fn event(ms: u64, kind: Kind, sock: u64, lport: u16, rport: Option<u16>) -> Event {
    let mut event = Event::new(kind, Origin::Live, START + ms * 1_000_000);
    event.proto = Some(Proto::Tcp);
    event.family = Some(Family::Ipv4);
    event.laddr = Some("127.0.0.1".parse().unwrap());
    event.lport = Some(lport);
    event.raddr = rport.map(|_| "127.0.0.1".parse().unwrap());
    event.rport = rport;
    event.sock = Some(sock);
    event.netns = Some(HOST_NETNS);
    event.pid = Some(100 + sock as u32);
    event.uid = Some(0);
    event.comm = Some(Comm::from("python3"));
    event.context = Some(Arc::new(Context {
        exe: Some("/usr/bin/python3".into()),
        user: Some("alice".into()),
        ..Context::default()
    }));
    // As nobody here would call it: it has to come from the session.
    event.service = Some("recorded");
    event
}

/// A server on port 8080 with one client, from 1 s to 8 s; at 2 s somebody else wants its port.
fn story() -> Vec<Event> {
    let mut listen = event(1_001, Kind::Listen, 1, 8080, None);
    listen.backlog = Some(5);
    let mut taken = event(2_000, Kind::Bind, 2, 8080, None);
    taken.error = Some(libc::EADDRINUSE as u16);
    taken.comm = Some(Comm::from("nc\x1b[2J"));
    taken.holders = Some(vec![Peer {
        pid: 101,
        comm: "python3".into(),
        sock: Some(1),
    }]);
    let mut close = event(5_000, Kind::Close, 4, 8080, Some(40_000));
    close.cause = Some(Cause::Remote);
    let mut end = event(8_000, Kind::Close, 1, 8080, None);
    (end.cause, end.accepted, end.duration_us) = (Some(Cause::Local), Some(1), Some(6_999_000));
    vec![
        event(1_000, Kind::Bind, 1, 8080, None),
        listen,
        taken,
        event(3_000, Kind::Connect, 3, 40_000, Some(8080)),
        event(3_001, Kind::Accept, 4, 8080, Some(40_000)),
        close,
        event(5_001, Kind::Close, 3, 40_000, Some(8080)),
        end,
    ]
}

/// sshd was there before.
fn before() -> Kept {
    let mut listen = event(0, Kind::Listen, 9, 22, None);
    listen.origin = Origin::Seed;
    listen.comm = Some(Comm::from("sshd"));
    listen.inode = Some(77);
    Kept {
        row: Row {
            event: listen,
            state: State::Listen,
            since: None,
            recv_queue: Some(0),
            send_queue: Some(128),
            device: None,
            v6only: None,
        },
        bound: true,
        told: false,
    }
}

fn run(began: u64) -> Run {
    Run {
        began,
        host: Some("web1\x1b[2J".into()),
        netns: Some(HOST_NETNS),
        version: "0".into(),
        source: "tracepoint probes".into(),
        ..Run::default()
    }
}

fn finish(ended: u64, accounts: &Accounts) -> Finish {
    Finish {
        ended,
        reason: "signal".into(),
        complete: accounts.complete(),
        accounts: serde_json::to_string(accounts).unwrap(),
    }
}

fn about() -> session::Describe {
    Box::new(|_, _| About {
        started: Some(START - 60 * SECOND),
        blake3: None,
    })
}

/// Adds a run of ten seconds, a batch for each event.
fn add(writer: &mut Writer<'_>, began: u64, events: &[Event], end: Option<&Accounts>) {
    writer.begin(&run(began)).unwrap();
    writer.checkpoint(began + 100_000_000, [before()]).unwrap();
    for event in events {
        writer.event(event).unwrap();
        writer.commit(None).unwrap();
    }
    if let Some(accounts) = end {
        writer
            .finish(&finish(began + 10 * SECOND, accounts))
            .unwrap();
    }
    writer.commit(None).unwrap();
}

struct Made {
    _folder: TempDir,
    path: PathBuf,
}

/// A session with the story.
fn made(end: Option<&Accounts>) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let db = session::create(&path).unwrap();
    let mut writer = Writer::new(&db, about()).unwrap();
    add(&mut writer, START, &story(), end);
    Made {
        _folder: folder,
        path,
    }
}

fn later(events: Vec<Event>) -> Vec<Event> {
    let shift = |mut event: Event| {
        event.ts += 3600 * SECOND;
        event
    };
    events.into_iter().map(shift).collect()
}

/// The story, and an hour later the beginning of it again.
fn twice() -> Made {
    let made = made(Some(&Accounts::default()));
    let db = session::append(&made.path, None).unwrap();
    let mut writer = Writer::new(&db, about()).unwrap();
    let events = later(story()[..3].to_vec());
    add(
        &mut writer,
        START + 3600 * SECOND,
        &events,
        Some(&Accounts::default()),
    );
    drop(writer);
    drop(db);
    made
}

/// Exit code, stdout and stderr of `portwatch WORDS --from FILE MORE`.
fn outcome(words: &str, path: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut command = portwatch(&words);
    command.arg("--from").arg(path).args(more).env("TZ", "UTC");
    program::outcome(command.output().unwrap())
}

/// What it prints, which has to go well.
fn prints(words: &str, path: &Path, more: &[&str]) -> String {
    let (code, stdout, stderr) = outcome(words, path, more);
    assert_eq!(code, Some(0), "{words} {more:?}: {stderr}");
    stdout
}

/// As `trace -o json` prints events with these numbers.
fn lines(events: &[Event]) -> String {
    let mut json = Json::new(None);
    let mut out = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let seq = at as u64 + 1;
        json.event(
            &mut out,
            &Event {
                seq,
                ..event.clone()
            },
        );
    }
    String::from_utf8(out).unwrap()
}

fn objects(text: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).expect(line);
    text.lines().map(parse).collect()
}
