//! Files that are no session, and sessions that are not whole.

use portwatch::session;
use portwatch::source::accounts::Accounts;

use crate::{made, outcome, twice};

#[test]
fn other_files_are_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "no session").unwrap();
    let empty = folder.path().join("empty.db");
    drop(session::create(&empty).unwrap());
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for (path, told) in [
        (folder.path().join("nothing.db"), "No such file"),
        (text, "is not a session"),
        (empty, "holds no recording yet"),
        (folder.path().to_owned(), "is a directory"),
        // nor does it wait for a writer
        (pipe, "is no file, and so not a session"),
    ] {
        for words in ["trace", "list", "who 80"] {
            let (code, stdout, stderr) = outcome(words, &path, &[]);
            assert_eq!((code, stdout.as_str()), (Some(1), ""), "{words}: {stderr}");
            assert!(stderr.contains(told), "{words}: {stderr}");
        }
    }
}

#[test]
fn damaged_files_never_end_in_a_panic() {
    let made = twice();
    let whole = std::fs::read(&made.path).unwrap();
    // always the same places, all over the file
    let mut place = 12_345_u64;
    for round in 0..60 {
        let mut bytes = whole.clone();
        for _ in 0..=round % 8 {
            place = place
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (place >> 20) as usize % bytes.len();
            bytes[at] ^= 1 << (place >> 60 & 7);
        }
        std::fs::write(&made.path, bytes).unwrap();
        for words in ["trace -o json", "list -a", "who 8080"] {
            let (code, _, stderr) = outcome(words, &made.path, &[]);
            assert!(matches!(code, Some(0..=2)), "{words}: {code:?} {stderr}");
            assert!(!stderr.contains("panicked"), "{words}: {stderr}");
        }
    }
}

#[test]
fn numbers_that_cannot_be_never_end_in_a_panic() {
    for sql in [
        "UPDATE raw_run SET before = 9223372036854775807",
        "UPDATE raw_run SET before = -5",
        "UPDATE raw_run SET began = -1",
        "UPDATE raw_run SET began = 9223372036854775807, netns = -7",
        "UPDATE raw_finish SET ended = -1",
        "UPDATE raw_finish SET ended = 0",
        "UPDATE raw_finish SET accounts = '[1]'",
        "UPDATE raw_batch SET first_ts = 9223372036854775807, last_ts = -9223372036854775807",
        "UPDATE raw_batch SET events = 9223372036854775807",
        "UPDATE raw_batch SET events = 4000000000000000000 WHERE id = 3",
        "UPDATE raw_checkpoint SET ts = -1, event = -9223372036854775807",
        "UPDATE raw_checkpoint SET event = 9223372036854775807",
        "UPDATE raw_event SET ts = -1",
        "UPDATE raw_event SET kind = 200",
        "UPDATE raw_event SET duration_us = -1, lport = 99999",
        "UPDATE raw_process SET args = '{', parents = '[]', started = -1",
        "UPDATE raw_owner SET process = 77",
        "DELETE FROM raw_event WHERE id > 4",
        "DELETE FROM raw_event",
        "DELETE FROM raw_batch",
        "DELETE FROM raw_run",
        "DROP TABLE raw_open",
    ] {
        let made = made(Some(&Accounts::default()));
        let db = rusqlite::Connection::open(&made.path).unwrap();
        db.execute_batch("PRAGMA foreign_keys = off").unwrap();
        db.execute_batch(sql).expect(sql);
        drop(db);
        for (words, more) in [
            ("trace -o json", vec![]),
            ("trace -o json", vec!["--since", "-5s", "--until", "-1s"]),
            ("list -a", vec![]),
            ("list -a", vec!["--at", "22:13:24"]),
            ("who 8080", vec![]),
        ] {
            let (code, _, stderr) = outcome(words, &made.path, &more);
            assert!(
                matches!(code, Some(0..=2)),
                "{sql}: {words}: {code:?} {stderr}"
            );
            assert!(!stderr.contains("panicked"), "{sql}: {words}: {stderr}");
        }
    }
}
