//! What goes into a session comes out again, and what is done to it behind its back is found.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::event::{Event, Kind, Origin, Proto};
use crate::row::State;
use crate::table::{Limits, Table};
use crate::view::lines::samples;

/// A session with these events, some in each batch.
fn session(batches: &[Vec<Event>]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    record(&create(&path).unwrap(), batches);
    (folder, path)
}

fn record(db: &Connection, batches: &[Vec<Event>]) {
    let mut writer = Writer::new(db, Box::new(|_, _| About::default())).unwrap();
    let run = Run {
        began: 1,
        version: "0".into(),
        source: "a test".into(),
        ..Run::default()
    };
    writer.begin(&run).unwrap();
    for events in batches {
        for event in events {
            writer.event(event).unwrap();
        }
        writer.commit(None).unwrap();
    }
    let finish = Finish {
        ended: 9,
        reason: "the test is over".into(),
        complete: true,
        accounts: "{}".into(),
    };
    writer.finish(&finish).unwrap();
    writer.commit(None).unwrap();
}

fn read(path: &Path) -> Vec<Event> {
    let mut session = Session::open(path).unwrap();
    let last = session.last_event().unwrap();
    let mut events = Vec::new();
    let mut next = 1;
    while next <= last {
        next = session.events(next, last, 7, 1, &mut events).unwrap();
    }
    events
}

/// Connections of two processes, in batches of ten.
fn traffic() -> Vec<Vec<Event>> {
    let event = |number: u64| {
        let kind = [Kind::Connect, Kind::Close][(number % 2) as usize];
        let mut event = Event::new(kind, Origin::Live, 1_000 + number);
        event.proto = Some(Proto::Tcp);
        event.lport = Some(40_000);
        event.raddr = Some("127.0.0.1".parse().unwrap());
        event.rport = Some(80);
        event.sock = Some(number / 2);
        event.pid = Some(7 + (number % 2) as u32);
        event
    };
    let batch = |batch: u64| (batch * 10..batch * 10 + 10).map(event).collect();
    (0..6).map(batch).collect()
}

/// What is open, in an order of its own.
fn sorted(table: &Table) -> Vec<Kept> {
    let mut kept: Vec<Kept> = table.kept().collect();
    kept.sort_by_cached_key(|x| format!("{x:?}"));
    kept
}

fn altered(sql: &str) -> Verdict {
    let (_folder, path) = session(&traffic());
    assert_eq!(verify(&path, None).unwrap().fault, None);
    let db = Connection::open(&path).unwrap();
    db.execute_batch(sql).unwrap();
    drop(db);
    verify(&path, None).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_event_comes_back_as_it_was(first in samples::events(0..20), second in samples::events(0..20)) {
        let (_folder, path) = session(&[first.clone(), second.clone()]);
        let mut expected = [first, second].concat();
        for (at, event) in expected.iter_mut().enumerate() {
            event.seq = at as u64 + 1;
        }
        prop_assert_eq!(read(&path), expected);
        let verdict = verify(&path, None).unwrap();
        prop_assert_eq!(verdict.fault, None);
        prop_assert!(verdict.unfinished.is_empty());
    }

    #[test]
    fn a_table_comes_back_as_it_was(events in samples::events(0..40)) {
        let mut table = Table::new(Limits::default());
        events.iter().for_each(|event| table.apply(event));
        let mut kept: Vec<Kept> = table.kept().collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let db = create(&path).unwrap();
        let mut writer = Writer::new(&db, Box::new(|_, _| About::default())).unwrap();
        writer.begin(&Run { began: 1, ..Run::default() }).unwrap();
        writer.checkpoint(1, []).unwrap();
        writer.checkpoint(2, kept.clone()).unwrap();
        writer.checkpoint(3, []).unwrap();
        writer.commit(None).unwrap();
        let mut session = Session::open(&path).unwrap();
        let back = session.checkpoint(1, 0, 2).unwrap().unwrap();
        let again = Table::of_kept(Limits::default(), back.sockets.clone());
        prop_assert_eq!(&back.sockets, &kept);
        let mut again: Vec<Kept> = again.kept().collect();
        // by another key where there is no cookie
        let order = |x: &Kept| format!("{x:?}");
        again.sort_by_key(order);
        kept.sort_by_key(order);
        prop_assert_eq!(again, kept);
        prop_assert!(session.checkpoint(1, 0, 0).unwrap().is_none());
        prop_assert!(session.checkpoint(1, 0, 9).unwrap().unwrap().sockets.is_empty());
    }

    #[test]
    fn a_table_can_be_taken_up_at_any_event(mut events in samples::events(1..40), checks in proptest::collection::vec(any::<prop::sample::Index>(), 0..4)) {
        // Of sockets without cookies the maker of keys chooses, and with few of them much happens to each.
        for (at, event) in events.iter_mut().enumerate() {
            event.ts = 1_000 + at as u64;
            // Only snapshots give those.
            if event.origin == Origin::Seed {
                event.origin = Origin::Live;
            }
            event.sock = Some(at as u64 % 3 + 1);
            event.lport = event.lport.map(|port| port % 3 + 1);
            if event.proto == Some(Proto::Mptcp) {
                event.proto = Some(Proto::Tcp);
            }
        }
        let checks: Vec<usize> = checks.iter().map(|x| x.index(events.len())).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let db = create(&path).unwrap();
        let mut writer = Writer::new(&db, Box::new(|_, _| About::default())).unwrap();
        writer.begin(&Run { began: 1_000, ..Run::default() }).unwrap();
        let mut table = Table::new(Limits::default());
        let mut expected = Vec::new();
        for (at, event) in events.iter().enumerate() {
            writer.event(event).unwrap();
            table.apply(event);
            if checks.contains(&at) {
                writer.checkpoint(event.ts, table.kept()).unwrap();
            }
            if at % 5 == 4 {
                writer.commit(None).unwrap();
            }
            expected.push((sorted(&table), table.lost()));
        }
        writer.commit(None).unwrap();
        let mut session = Session::open(&path).unwrap();
        let run = session.runs().unwrap().remove(0);
        for (at, expected) in expected.iter().enumerate() {
            let number = at as i64 + 1;
            let ts = events[at].ts;
            prop_assert_eq!(session.reached(&run, ts).unwrap(), number);
            let after = session.table_after(&run, number, ts, Limits::default()).unwrap();
            prop_assert_eq!((sorted(&after), after.lost()), expected.clone());
            let then = session.table_at(&run, ts, Limits::default()).unwrap();
            prop_assert_eq!((sorted(&then), then.lost()), expected.clone());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..8)) {
        let (_folder, path) = session(&traffic());
        let mut bytes = fs::read(&path).unwrap();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        fs::write(&path, bytes).unwrap();
        let _ = verify(&path, None);
        if let Ok(mut session) = Session::open(&path) {
            let _ = session.runs();
            let _ = session.events(1, 60, 100, 1, &mut Vec::new());
            let _ = session.checkpoint(1, 60, 9);
        }
    }
}

#[test]
fn runs_follow_one_another() {
    let (_folder, path) = session(&traffic()[..2]);
    record(&append(&path, None).unwrap(), &traffic()[..1]);
    let mut session = Session::open(&path).unwrap();
    let runs = session.runs().unwrap();
    let events: Vec<_> = runs.iter().map(|run| run.events.clone()).collect();
    assert_eq!(events, [1..21, 21..31]);
    let mut second = Vec::new();
    session.events(21, 30, 100, 21, &mut second).unwrap();
    assert_eq!((second[0].seq, second[9].seq), (1, 10));
    assert_eq!(verify(&path, None).unwrap().events, 30);
    let seqs: i64 = (session.connection())
        .query_row("SELECT max(seq) FROM events WHERE run = 2", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(seqs, 10);
}

#[test]
fn times_lead_to_events() {
    let (_folder, path) = session(&traffic());
    let session = Session::open(&path).unwrap();
    assert_eq!(session.first_from(0).unwrap(), 1);
    assert_eq!(session.first_from(1_015).unwrap(), 11);
    assert_eq!(session.first_from(1_060).unwrap(), 61);
    assert_eq!(session.last_until(999).unwrap(), 0);
    assert_eq!(session.last_until(1_015).unwrap(), 20);
    assert_eq!(session.last_until(u64::MAX).unwrap(), 60);
}

#[test]
fn views_show_each_connection_once() {
    let (_folder, path) = session(&traffic());
    let session = Session::open(&path).unwrap();
    let count =
        |sql: &str| -> i64 { (session.connection().query_row(sql, [], |row| row.get(0))).unwrap() };
    assert_eq!(count("SELECT count(*) FROM events"), 60);
    assert_eq!(count("SELECT count(*) FROM connections"), 30);
    assert_eq!(
        count("SELECT count(*) FROM connections WHERE closed IS NULL"),
        0
    );
    assert_eq!(count("SELECT count(*) FROM listeners"), 0);
    assert_eq!(count("SELECT count(*) FROM short_lived"), 0);
    assert_eq!(count("SELECT count(*) FROM failures"), 0);
    assert_eq!(count("SELECT count(*) FROM processes"), 0);
    assert_eq!(count("SELECT count(*) FROM runs"), 1);
}

#[test]
fn a_listen_of_what_listens_already_begins_no_other_life() {
    let event = |kind, ts, backlog, accepted| {
        let mut event = Event::new(kind, Origin::Live, ts);
        event.proto = Some(Proto::Tcp);
        (event.lport, event.sock) = (Some(80), Some(7));
        (event.backlog, event.accepted) = (backlog, accepted);
        event
    };
    let (_folder, path) = session(&[vec![
        event(Kind::Listen, 1_000, Some(1), None),
        event(Kind::Listen, 2_000, Some(2), None),
        event(Kind::Close, 3_000, None, Some(5)),
        event(Kind::Listen, 4_000, Some(3), None),
    ]]);
    let session = Session::open(&path).unwrap();
    let mut lives = (session.connection())
        .prepare("SELECT backlog, accepted, lifetime_us FROM listeners")
        .unwrap();
    let lives = lives.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let lives: Vec<(i64, Option<i64>, Option<i64>)> =
        lives.unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(lives, [(2, Some(5), Some(2)), (3, None, None)]);
}

#[test]
fn what_was_done_to_a_session_is_named() {
    for (sql, batch, what) in [
        (
            "UPDATE raw_event SET rport = 81 WHERE id = 25",
            Some(3),
            "its rows were altered",
        ),
        (
            "DELETE FROM raw_event WHERE id = 31",
            Some(4),
            "row 31 of raw_event is missing",
        ),
        (
            "DELETE FROM raw_batch WHERE id = 2",
            Some(2),
            "it is missing",
        ),
        (
            "UPDATE raw_owner SET pid = 1 WHERE id = 1",
            Some(1),
            "its rows were altered",
        ),
        (
            "UPDATE raw_batch SET id = -4 WHERE id = 4; UPDATE raw_batch SET id = 4 WHERE id = 5;
             UPDATE raw_batch SET id = 5 WHERE id = -4",
            Some(4),
            "batch 5 belongs in its place: they were reordered",
        ),
        (
            "INSERT INTO raw_exit VALUES (1, 1, 1, 1, 0)",
            None,
            "belong to no batch",
        ),
        ("DROP VIEW failures", None, "its tables or views"),
    ] {
        let verdict = altered(sql);
        let fault = verdict.fault.expect(sql);
        assert_eq!(fault.batch, batch, "{sql}: {fault:?}");
        assert!(fault.what.contains(what), "{sql}: {fault:?}");
        if let Some(batch) = batch {
            assert_eq!(verdict.batches, batch - 1);
        }
    }
}

#[test]
fn a_run_that_was_cut_off_is_told() {
    let verdict = altered("DELETE FROM raw_batch WHERE id = 7; DELETE FROM raw_finish");
    assert_eq!((verdict.fault, verdict.unfinished), (None, vec![1]));
}

#[test]
fn other_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let (_folder, whole) = session(&traffic());
    let whole = fs::read(whole).unwrap();
    for (path, expected) in [
        (folder.path().join("nothing"), "No such file"),
        (folder.path().to_owned(), "is a directory"),
        (file("empty", b""), "is empty"),
        (
            file("jpeg", b"\xff\xd8\xff\xe0 and so on and on and on"),
            "is not a session",
        ),
        (file("short", b"SQLite format 3\0"), "is damaged"),
        (file("cut", &whole[..5000]), "damaged"),
    ] {
        let told = match verify(&path, None) {
            Ok(verdict) => verdict.fault.unwrap().what,
            Err(error) => format!("{error:#}"),
        };
        assert!(told.contains(expected), "{}: {told}", path.display());
    }
    let newer = folder.path().join("newer");
    let db = create(&newer).unwrap();
    db.pragma_update(None, "user_version", VERSION + 1).unwrap();
    let told = format!("{:#}", Session::open(&newer).err().unwrap());
    assert!(told.contains("use a newer one"), "{told}");
    db.pragma_update(None, "user_version", 0).unwrap();
    let told = format!("{:#}", Session::open(&newer).err().unwrap());
    assert!(told.contains("is not a session, or is damaged"), "{told}");
    assert!(format!("{:#}", create(&newer).err().unwrap()).contains("is there already"));
    let foreign = folder.path().join("foreign");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE t(x)")
        .unwrap();
    let told = format!("{:#}", Session::open(&foreign).err().unwrap());
    assert!(told.contains("a database, but not a session"), "{told}");
}

#[test]
fn states_have_the_spelling_they_are_read_by() {
    for state in State::ALL {
        assert_eq!(State::parse(state.as_str()), Some(*state));
    }
}
