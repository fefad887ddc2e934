//! What is said of a session as a whole: that nothing was altered, its head, its runs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use portwatch::session;
use rusqlite::Connection;
use serde_json::Value as Json;

use super::{make, name, portwatch, prints, says, session, told};

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
