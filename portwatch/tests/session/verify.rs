//! What was done to a session is found and named.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use portwatch::session::{self, PublicKey, SecretKey};
use rusqlite::Connection;
use rusqlite::types::Value;
use serde_json::Value as Json;
use tempfile::TempDir;

use super::{make, name, portwatch, prints, says, session, told};

fn keys() -> (SecretKey, PublicKey) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys");
    let secret = SecretKey::load(&Path::new(folder).join("ed25519")).unwrap();
    (secret, PublicKey::load(&key("ed25519.pub")).unwrap())
}

fn key(name: &str) -> String {
    format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_whole_session_is_told_a_line_a_fact() {
    let (_folder, path) = session();
    let text = prints(&["verify", name(&path)]);
    let head = head(&path);
    let text = text.replace(name(&path), "s.db").replace(&head, "HEAD");
    expect_test::expect![[r#"
        s.db: whole: 12 batches, 101 events, until 2026-11-23T03:12:00.301000000Z
        s.db: 1 run, finished
        s.db: head HEAD
        s.db: not signed: who can write the file can make all of it anew
    "#]]
    .assert_eq(&text);
    let json: Json = serde_json::from_str(&prints(&["verify", "-o", "json", name(&path)])).unwrap();
    assert_eq!(json["whole"], true);
    assert_eq!((&json["events"], &json["signed"]), (&101.into(), &0.into()));
    assert_eq!(json["until"], "2026-11-23T03:12:00.301000000Z");
    assert_eq!(
        (&json["head"], json.get("as_expected")),
        (&head.into(), None)
    );
    assert_eq!(json.get("fault"), None);
}

#[test]
fn a_file_name_that_is_no_text_is_told_whole() {
    let (_folder, path) = session();
    let odd = path.with_file_name(OsStr::from_bytes(b"\xff\x1b.db"));
    fs::rename(&path, &odd).unwrap();
    for (format, shown) in [
        ("text", "\\xff\\x1b.db: whole"),
        ("json", "\\\\xff\\u001b.db\""),
    ] {
        let output = portwatch(&["verify", "-o", format]).arg(&odd).output();
        let (code, stdout, _) = told(output.unwrap());
        assert_eq!(code, 0);
        assert!(stdout.contains(shown), "{stdout}");
    }
}

fn head(path: &Path) -> String {
    session::verify(path, None)
        .unwrap()
        .head
        .unwrap()
        .to_string()
}

#[test]
fn what_was_cut_off_is_missed_by_those_who_know_the_head() {
    let (_folder, path) = session();
    let first = head(&path);
    let told = |expected: &str, code: i32| {
        let args = ["verify", name(&path), "--expect", expected];
        let (ended, text, stderr) = says(&args);
        assert_eq!((ended, stderr.as_str()), (code, ""), "{text}");
        let (ended, json, _) = says(&[&args[..], &["-o", "json"]].concat());
        let json: Json = serde_json::from_str(&json).unwrap();
        assert_eq!(ended, code);
        assert_eq!(json["as_expected"], code == 0);
        text
    };
    assert!(told(&first, 0).contains(&format!("head {first}, as expected")));
    // upper case is the same number
    told(&first.to_uppercase(), 0);
    make::run(&session::append(&path, None).unwrap(), None, true);
    let both = head(&path);
    told(&both, 0);
    assert!(told(&first, 1).contains("is not the one expected"));
    // The whole second run: nothing but the head tells.
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "foreign_keys", false).unwrap();
    for (table, counts) in [
        ("raw_run", "runs"),
        ("raw_finish", "finishes"),
        ("raw_address", "addresses"),
        ("raw_what", "whats"),
        ("raw_process", "processes"),
        ("raw_owner", "owners"),
        ("raw_exit", "exits"),
        ("raw_event", "events"),
        ("raw_checkpoint", "checkpoints"),
        ("raw_open", "opens"),
    ] {
        let before = format!("(SELECT max({counts}) FROM raw_batch WHERE run = 1)");
        let sql = format!("DELETE FROM {table} WHERE id > {before}");
        db.execute_batch(&sql).unwrap();
    }
    db.execute_batch("DELETE FROM raw_batch WHERE run = 2")
        .unwrap();
    drop(db);
    assert_eq!(head(&path), first);
    assert!(told(&both, 1).contains("FAULT: head "));
    let (code, _, stderr) = says(&["verify", "a", "b", "--expect", &first]);
    assert_eq!(code, 2);
    assert!(stderr.contains("--expect is about one session"), "{stderr}");
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
fn a_signed_session_is_added_to_with_a_key_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let (secret, _) = keys();
    make::session(&path, Some(&secret));
    let told = format!("{:#}", session::append(&path, None).err().unwrap());
    assert!(
        told.contains("is signed, and what is added to it has to be: give --sign KEY"),
        "{told}"
    );
    make::run(
        &session::append(&path, Some(&secret)).unwrap(),
        Some(&secret),
        true,
    );
    prints(&["verify", name(&path), "--key", &key("ed25519.pub")]);
}

#[test]
fn a_run_that_was_not_finished_is_told_and_is_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let db = session::create(&path).unwrap();
    make::run(&db, None, false);
    // also while it is being written
    let text = prints(&["verify", name(&path)]);
    assert!(
        text.contains("1 run, not finished: 1 (goes on, was killed,"),
        "{text}"
    );
    make::run(&db, None, true);
    let text = prints(&["verify", name(&path)]);
    assert!(text.contains("2 runs, not finished: 1 ("), "{text}");
    assert!(text.contains("202 events"), "{text}");
}

#[test]
fn signatures_tell_whose_session_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let (secret, public) = keys();
    make::session(&path, Some(&secret));
    let text = prints(&["verify", name(&path)]);
    assert!(
        text.contains("signed, but not checked by whom: give --key"),
        "{text}"
    );
    let text = prints(&["verify", name(&path), "--key", &key("ed25519.pub")]);
    assert!(
        text.contains(&format!("is signed by {}", public.fingerprint())),
        "{text}"
    );

    let (code, text, _) = says(&["verify", name(&path), "--key", &key("other.pub")]);
    assert_eq!(code, 1);
    assert!(text.contains("FAULT in batch 1 (events 1 to 10, 2026-11-23T03:12:00.000000000Z to "));
    assert!(text.contains("its signature is not by this key"), "{text}");
    assert!(
        text.contains("nothing before that can be trusted"),
        "{text}"
    );

    // an unsigned batch behind signed ones
    make::run(&session::append(&path, Some(&secret)).unwrap(), None, true);
    assert_eq!(says(&["verify", name(&path)]).0, 0);
    let (code, text, _) = says(&["verify", name(&path), "--key", &key("ed25519.pub")]);
    assert_eq!(code, 1);
    assert!(
        text.contains("FAULT in batch 13 (events 102 to 111"),
        "{text}"
    );
    assert!(text.contains("it is not signed"), "{text}");
    assert!(
        text.contains("trustworthy up to there: 12 batches, 101 events"),
        "{text}"
    );

    for (key, expected) in [
        (key("ed25519"), "is a secret key"),
        ("nowhere.pub".into(), "opening the key nowhere.pub"),
    ] {
        let (code, _, stderr) = says(&["verify", name(&path), "--key", &key]);
        assert_eq!(code, 2);
        assert!(stderr.contains(expected), "{stderr}");
    }
}

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

/// As on a medium that evidence is kept on.
#[test]
fn a_session_is_read_where_nothing_can_be_written() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::process::CommandExt as _;
    // SAFETY: takes nothing and touches no memory.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("NOT RUN: a read-only mount needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("evidence?#%");
    fs::create_dir(&place).unwrap();
    let path = place.join("s 1.db");
    make::session(&path, None);
    let place = std::ffi::CString::new(place.as_os_str().as_bytes()).unwrap();
    let read_only = move || {
        let (here, none) = (place.as_ptr(), std::ptr::null());
        let bind = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
        // SAFETY: the names are strings that live until after the calls.
        let done = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(
                    none,
                    c"/".as_ptr(),
                    none,
                    libc::MS_REC | libc::MS_PRIVATE,
                    none.cast(),
                ) == 0
                && libc::mount(here, here, none, libc::MS_BIND, none.cast()) == 0
                && libc::mount(none, here, none, bind, none.cast()) == 0
        };
        done.then_some(()).ok_or_else(std::io::Error::last_os_error)
    };
    for args in [&["verify"][..], &["export"], &["query"]] {
        let mut command = portwatch(args);
        command.arg(&path);
        if args[0] == "query" {
            command.arg("SELECT count(*) FROM events");
        }
        // SAFETY: only system calls.
        unsafe { command.pre_exec(read_only.clone()) };
        let (code, stdout, stderr) = told(command.output().unwrap());
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
        assert!(stdout.contains("101"), "{stdout}");
    }
}

#[test]
fn a_truncated_file_is_never_taken_for_a_whole_one() {
    let (folder, path) = session();
    let whole = fs::read(&path).unwrap();
    let cut = folder.path().join("cut.db");
    for length in (0..whole.len()).step_by(509) {
        fs::write(&cut, &whole[..length]).unwrap();
        let found = session::verify(&cut, None);
        assert!(found.is_err() || found.unwrap().fault.is_some(), "{length}");
    }
}

/// All rows of all tables, the schema among them, and what its readers look at besides.
fn dump(path: &Path) -> rusqlite::Result<Vec<Vec<Value>>> {
    let db = Connection::open(path)?;
    let mut dump = Vec::new();
    let mut tables = vec!["sqlite_schema".to_owned()];
    let mut statement = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    tables.extend(
        statement
            .query_map([], |row| row.get(0))?
            .collect::<Result<Vec<_>, _>>()?,
    );
    for table in tables {
        let columns = match table.as_str() {
            // where a table begins is not what it holds
            "sqlite_schema" => "type, name, tbl_name, sql",
            _ => "*",
        };
        let mut statement = db.prepare(&format!("SELECT {columns} FROM {table} ORDER BY rowid"))?;
        let count = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            dump.push((0..count).map(|at| row.get(at)).collect::<Result<_, _>>()?);
        }
    }
    Ok(dump)
}

/// A signed session, and all that flips of its bits are compared with.
struct Victim {
    folder: TempDir,
    whole: Vec<u8>,
    dump: Vec<Vec<Value>>,
    signed: Vec<([u8; 32], Vec<u8>)>,
}

impl Victim {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        make::session(&path, Some(&keys().0));
        let db = Connection::open(&path).unwrap();
        let mut signed = db.prepare("SELECT hash, signature FROM raw_batch").unwrap();
        let signed = signed.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        let signed = signed.unwrap().collect::<Result<_, _>>().unwrap();
        Self {
            whole: fs::read(&path).unwrap(),
            dump: dump(&path).unwrap(),
            folder,
            signed,
        }
    }

    /// Flips one bit, and says whether that is found by those who have the key. If not, it must not
    /// have changed anything.
    fn flip(&self, position: usize, bit: u32) -> bool {
        let path = self.folder.path().join("flipped.db");
        let mut bytes = self.whole.clone();
        bytes[position] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        // As good as the key for signatures of this session, and faster.
        let check = |hash: &[u8; 32], signature: &[u8]| {
            (self.signed.iter()).any(|(of, by)| of == hash && by == signature)
        };
        let verdict = session::verify(&path, Some(&check));
        let found = !verdict.is_ok_and(|verdict| verdict.fault.is_none());
        if !found {
            let now = dump(&path);
            assert_eq!(now.as_ref(), Ok(&self.dump), "bit {bit} of byte {position}");
        }
        found
    }
}

#[test]
fn a_flipped_bit_is_found_or_changes_nothing() {
    let victim = Victim::new();
    // The same positions each time, all over the file.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let (tries, mut missed) = (2000, 0);
    for _ in 0..tries {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let position = (random >> 8) as usize % victim.whole.len();
        missed += u32::from(!victim.flip(position, random as u32 % 8));
    }
    println!("{missed} of {tries} flipped bits were in unused space");
    // The header, every byte.
    for position in 0..100 {
        victim.flip(position, position as u32 % 8);
    }
}

#[test]
#[ignore = "long: a bit of each byte of a session"]
fn every_flipped_byte_is_found_or_changes_nothing() {
    let victim = Victim::new();
    let size = victim.whole.len();
    let missed = (0..size).filter(|&x| !victim.flip(x, x as u32 % 8)).count();
    println!("{missed} of {size} flipped bits were in unused space");
}
