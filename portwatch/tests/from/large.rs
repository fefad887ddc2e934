//! How long questions to a large session take.

use std::path::{Path, PathBuf};
use std::time::Instant;

use portwatch::event::Kind;
use portwatch::session::{self, Writer};
use portwatch::source::accounts::Accounts;
use portwatch::table::{Limits, Table};

use crate::{START, about, before, event, finish, prints, run};

/// Not a test but a measurement: `cargo test --release -p portwatch --test from -- --ignored --nocapture`.
/// The session stays where the variable SESSION says, if it does.
#[test]
#[ignore = "takes minutes"]
fn five_million_events() {
    const EVENTS: u64 = 5_000_000;
    const OPEN: u64 = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let path = match std::env::var_os("SESSION") {
        Some(path) => PathBuf::from(path),
        None => folder.path().join("big.db"),
    };
    if !path.exists() {
        let started = Instant::now();
        big(&path, EVENTS, OPEN);
        eprintln!("made in {:?}", started.elapsed());
    }
    let size = std::fs::metadata(&path).unwrap().len();
    eprintln!("{} bytes an event", size / EVENTS);
    let at = format!("@{}.999", 1_700_000_000 + EVENTS / 10_000 / 2 - 5);
    for (words, more) in [
        ("list", vec![]),
        ("list", vec!["--at", &at]),
        ("list -a -o json", vec!["--at", "-17.3"]),
        ("who 8080", vec!["--at", &at]),
        ("who 8080", vec![]),
        ("trace -o json -c 10", vec!["--since", &at]),
        ("trace -o json --failed", vec!["--since", "-5s"]),
        ("trace -o json -c 1000000", vec![]),
    ] {
        let started = Instant::now();
        let stdout = prints(words, &path, &more);
        let took = started.elapsed();
        eprintln!(
            "{words} {more:?}: {took:?}, {} lines",
            stdout.lines().count()
        );
    }
}

/// A session as `record` makes them: 10,000 events a second of connections, 10,000 of which are open at
/// a time, and now and then a server that comes and goes.
fn big(path: &Path, count: u64, open: u64) {
    let db = session::create(path).unwrap();
    let mut writer = Writer::new(&db, about()).unwrap();
    writer.begin(&run(START)).unwrap();
    let mut table = Table::of_kept(Limits::default(), [before()]);
    writer.checkpoint(START, table.kept()).unwrap();
    let context = event(0, Kind::Bind, 1, 1, None).context;
    for number in 0..count {
        let mut event = match number % 1000 {
            0 => event(0, Kind::Bind, number + 10, 8080, None),
            1 => event(0, Kind::Listen, number + 9, 8080, None),
            2 => event(0, Kind::Close, number + 8, 8080, None),
            _ => {
                // Each connection opens, and closes when as many others have.
                let (turn, which) = (number / open, number % open);
                let kind = if turn % 2 == 0 {
                    Kind::Connect
                } else {
                    Kind::Close
                };
                let sock = (turn / 2 + 1) * 1_000_000_000 + which;
                event(0, kind, sock, 10_000 + (which % 50_000) as u16, Some(443))
            }
        };
        event.ts = START + number * 100_000;
        event.pid = Some(1_000 + (number % 200) as u32);
        event.context.clone_from(&context);
        event.duration_us = (event.kind == Kind::Close).then_some(number);
        table.apply(&event);
        writer.event(&event).unwrap();
        if number % 2_000 == 1_999 {
            writer.commit(None).unwrap();
        }
        if number % 50_000 == 49_999 {
            writer.checkpoint(event.ts, table.kept()).unwrap();
        }
    }
    let ended = START + count * 100_000;
    writer.finish(&finish(ended, &Accounts::default())).unwrap();
    writer.commit(None).unwrap();
}
