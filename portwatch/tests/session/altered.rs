//! What was done to a session is found and named.

use std::fs;
use std::path::PathBuf;

use portwatch::session;
use rusqlite::Connection;
use serde_json::Value as Json;

use super::{name, says, session};

/// What is said after this was done to a session.
fn after(sql: &str) -> (i32, String) {
    let (_folder, path) = session();
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let (code, stdout, stderr) = says(&["verify", name(&path)]);
    assert_eq!(stderr, "");
    (code, stdout.replace(name(&path), "s.db"))
}

#[test]
fn altered_missing_and_swapped_batches_are_named() {
    let swapped_rows = "UPDATE raw_batch SET id = -4 WHERE id = 4;
         UPDATE raw_batch SET id = 4 WHERE id = 5; UPDATE raw_batch SET id = 5 WHERE id = -4";
    let swapped_contents = "UPDATE raw_event SET id = -id WHERE id BETWEEN 31 AND 40;
         UPDATE raw_event SET id = id - 10 WHERE id BETWEEN 41 AND 50;
         UPDATE raw_event SET id = 10 - id WHERE id < 0";
    // everything but the place in the chain
    let swapped_all = format!(
        "{swapped_contents};
         UPDATE raw_batch SET hash = (SELECT hash FROM raw_batch b WHERE b.id = 9 - raw_batch.id)
         WHERE id IN (4, 5)"
    );
    for (sql, expected) in [
        (
            "UPDATE raw_event SET rport = 81 WHERE id = 45",
            "FAULT in batch 5 (events 41 to 50, 2026-11-23T03:12:00.101000000Z to 2026-11-23T03:12:00.124000000Z): its rows were altered",
        ),
        (
            "DELETE FROM raw_event WHERE id = 45",
            "FAULT in batch 5 (events 41 to 50, 2026-11-23T03:12:00.101000000Z to 2026-11-23T03:12:00.124000000Z): row 45 of raw_event is missing",
        ),
        (
            "DELETE FROM raw_batch WHERE id = 4",
            "FAULT in batch 4: it is missing",
        ),
        (
            swapped_rows,
            "): batch 5 belongs in its place: they were reordered",
        ),
        (swapped_contents, "FAULT in batch 4 (events 31 to 40"),
        (&swapped_all, "FAULT in batch 4 (events 31 to 40"),
        (
            "UPDATE raw_batch SET events = 9223372036854775807 WHERE id = 4",
            "FAULT in batch 4 (events 31 to ",
        ),
        (
            "UPDATE raw_batch SET hash = x'00' WHERE id = 4",
            "FAULT in batch 4: the file is damaged",
        ),
        (
            "UPDATE raw_batch SET signature = x'00' WHERE id = 4",
            "FAULT in batch 5",
        ),
        (
            "DELETE FROM raw_batch",
            "rows of raw_run belong to no batch",
        ),
        (
            "CREATE TABLE more(x)",
            "its tables or views are not those of a session",
        ),
        (
            "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = replace(sql, 'lport', 'rport') WHERE name = 'failures' OR name = 'short_lived'; UPDATE sqlite_schema SET sql = replace(sql, '< 1000000', '< 1') WHERE name = 'short_lived'",
            "its tables or views are not",
        ),
    ] {
        let (code, told) = after(sql);
        assert_eq!(code, 1, "{sql}: {told}");
        assert!(told.contains(expected), "{sql}: {told}");
        if expected.contains("batch 5 (") {
            let trusted =
                "s.db: trustworthy up to there: 4 batches, 40 events, until 2026-11-23T03:12:00.1";
            assert!(told.contains(trusted), "{told}");
        }
    }
}

#[test]
fn nothing_is_added_to_what_was_altered_at_its_end() {
    for (sql, expected) in [
        (
            "UPDATE raw_finish SET complete = 1",
            "the rows of its last batch, 12, were altered",
        ),
        ("DELETE FROM raw_finish", "row 1 of raw_finish is missing"),
        ("DELETE FROM raw_batch WHERE id = 11", "batch 11 is missing"),
        ("DELETE FROM raw_batch WHERE id = 12", "belong to no batch"),
        (
            "DELETE FROM raw_batch",
            "rows of raw_run belong to no batch",
        ),
        (
            "UPDATE raw_batch SET hash = x'00' WHERE id = 12",
            "the file is damaged",
        ),
        (
            "CREATE TRIGGER t AFTER INSERT ON raw_run BEGIN DELETE FROM raw_batch; END",
            "its tables or views",
        ),
    ] {
        let (_folder, path) = session();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let before = fs::read(&path).unwrap();
        let told = format!("{:#}", session::append(&path, None).err().expect(sql));
        let remedy = "is not added to (portwatch verify tells more): record into a new file";
        assert!(
            told.contains(expected) && told.contains(remedy),
            "{sql}: {told}"
        );
        assert!(fs::read(&path).unwrap() == before, "{sql}: it was touched");
    }
    // What comes earlier is for verify to find.
    let (_folder, path) = session();
    let db = Connection::open(&path).unwrap();
    db.execute_batch("UPDATE raw_event SET rport = 81 WHERE id = 45")
        .unwrap();
    drop(db);
    session::append(&path, None).unwrap();
}

#[test]
fn other_files_are_told_from_sessions() {
    let (folder, path) = session();
    let whole = fs::read(&path).unwrap();
    let file = |name: &str, content: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let page = 4096;
    let mut jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0".to_vec();
    jpeg.extend((0..20_000_u32).map(|x| (x * 31 % 251) as u8));
    for (path, expected) in [
        (file("empty.db", b""), "is empty"),
        (file("photo.jpg", &jpeg), "is not a session"),
        (file("text", b"hello\n"), "is not a session"),
        (file("head", &whole[..60]), "damaged"),
        (file("page", &whole[..page]), "damaged"),
        (file("middle", &whole[..whole.len() / 2]), "damaged"),
        (file("odd", &whole[..whole.len() - 1000]), "FAULT"),
        (file("last", &whole[..whole.len() - page]), "damaged"),
        (folder.path().to_owned(), "is a directory"),
        (folder.path().join("nothing"), "No such file"),
    ] {
        let (code, stdout, stderr) = says(&["verify", name(&path)]);
        let told = stdout + &stderr;
        assert_eq!(code, 1, "{}: {told}", path.display());
        assert!(
            told.contains(expected) && told.contains(name(&path)),
            "{told}"
        );
        let (code, json, _) = says(&["verify", "-o", "json", name(&path)]);
        let json: Json = serde_json::from_str(&json).unwrap();
        assert_eq!((code, &json["whole"]), (1, &false.into()));
        assert!(json["fault"]["what"].is_string(), "{json}");
    }
    // one of several
    let (code, stdout, stderr) =
        says(&["verify", name(&path), name(&folder.path().join("empty.db"))]);
    assert_eq!(code, 1);
    assert!(
        stdout.contains("s.db: whole") && stderr.contains("empty.db is empty"),
        "{stdout}{stderr}"
    );
}
