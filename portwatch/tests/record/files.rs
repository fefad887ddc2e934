//! The files of a recording: added to, following each other, not overwritten.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use portwatch::session;
use rusqlite::Connection;

use crate::truth::as_json;
use crate::{
    NETWORK, Recording, ask, connection, is_alone, number, outcome, place, portwatch, record,
    unfinished, until,
};

pub fn append() {
    let (_folder, file) = place();
    for (run, expected) in [(0, "first"), (1, "second")] {
        let more: &[&str] = if run == 0 { &[] } else { &["--append"] };
        let args = [
            more,
            &["-o", "json", "--", "python3", "-c", NETWORK, expected],
        ]
        .concat();
        let (code, stdout, stderr) = outcome(record(&file, &args).output().unwrap());
        assert_eq!(code, Some(7), "{stderr}");
        assert_eq!(stdout, as_json(&file, run));
        assert!(stdout.starts_with(r#"{"ts""#) && stdout.contains(r#""seq":1,"#));
        assert!(stdout.contains(expected));
    }
    assert!(unfinished(&file).is_empty());
    assert!(is_alone(&file));
    let runs: Vec<i64> = ask(&file, "SELECT count(*) FROM events GROUP BY run");
    assert_eq!(runs, [7, 7]);
}

pub fn rotation() {
    let (folder, file) = place();
    let recording = Recording::start(&mut record(&file, &["--max-age", "300ms"]));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut clients: Vec<i64> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(300);
    let third = folder.path().join("s.2.db");
    while !third.exists() && Instant::now() < deadline {
        clients.push(connection(&listener).into());
        std::thread::sleep(Duration::from_millis(2));
    }
    let said = recording.stop();
    let mut files = vec![file];
    let name = |number| folder.path().join(format!("s.{number}.db"));
    files.extend((1..).map(name).take_while(|path| path.exists()));
    assert!(files.len() >= 2, "{said}");
    let there = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(there, files.len(), "nothing else is left");
    let mut connects = Vec::new();
    for file in &files {
        assert!(unfinished(file).is_empty());
        // Each has what was open when it began.
        let sql = format!(
            "SELECT count(*) FROM raw_open o JOIN raw_owner w ON w.id = o.owner WHERE checkpoint = 1 AND lport = {port} AND remote IS NULL AND pid = {}",
            std::process::id()
        );
        // The first may have begun before there was a listener.
        if file != &files[0] {
            assert_eq!(number(file, &sql), 1, "{}", file.display());
        }
        assert!(number(file, "SELECT count(*) FROM raw_checkpoint") > 0);
        let sql = format!(
            "SELECT lport FROM events WHERE event = 'connect' AND rport = {port} ORDER BY seq"
        );
        connects.extend(ask::<i64>(file, &sql));
    }
    assert_eq!(connects, clients);
    let reasons: Vec<String> = ask(&files[0], "SELECT reason FROM runs");
    assert_eq!(reasons, ["the file is old enough"]);
}

/// Records until there is this file, and ends it as Ctrl-C does; what it said.
fn record_until(there: &Path, command: &mut Command) -> String {
    let child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(300);
    while !there.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    // SAFETY: no memory involved; the child is not waited for yet.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    let (code, _, said) = outcome(child.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{said}");
    said
}

pub fn oldest_deleted() {
    let (folder, file) = place();
    // Not ours to delete: of the same name, but no session, and one of an earlier recording.
    let foreign = folder.path().join("s.1.db");
    std::fs::write(&foreign, "mine").unwrap();
    let earlier = folder.path().join("s.2.db");
    drop(session::create(&earlier).unwrap());
    let args = ["--max-age", "100ms", "--max-files", "2"];
    let third = folder.path().join("s.4.db");
    let said = record_until(&third, &mut record(&file, &args));
    assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "mine");
    std::fs::remove_file(&foreign).unwrap();
    std::fs::remove_file(&earlier).unwrap();
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let mut left: Vec<_> = entries.map(|x| x.unwrap().path()).collect();
    assert_eq!(left.len(), 2, "{left:?} {said}");
    let place = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let digits = name
            .strip_prefix("s.")
            .unwrap()
            .strip_suffix(".db")
            .unwrap();
        digits.parse::<u64>().unwrap()
    };
    left.sort_by_key(place);
    assert!(place(&left[0]) >= 3, "numbers go on behind the highest");
    let (first, last) = (left[0].display(), left[1].display());
    let names = format!("recorded into {first} to {last} (2 files): ");
    assert!(said.contains(&names), "{said}");
    assert!(!file.exists(), "it was the oldest");
    left.iter()
        .for_each(|file| assert!(unfinished(file).is_empty()));
    // goes on behind the last
    let (code, _, said) = outcome(
        record(&file, &["--append", "-d", "100ms"])
            .output()
            .unwrap(),
    );
    assert_eq!(code, Some(0), "{said}");
    let runs = left
        .iter()
        .map(|file| number(file, "SELECT count(*) FROM runs"));
    assert_eq!(runs.sum::<i64>(), 3);
}

pub fn accounts() {
    let (folder, file) = place();
    let args = ["--from", "poll", "--max-age", "100ms"];
    let second = folder.path().join("s.1.db");
    let said = record_until(&second, &mut record(&file, &args));
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let files: Vec<_> = entries.map(|x| x.unwrap().path()).collect();
    assert!(files.len() >= 2, "{said}");
    for file in files {
        // Polling misses things, which is true of all of them.
        let complete = number(
            &file,
            "SELECT sum(complete OR accounts ->> 'polled' IS NULL) FROM runs",
        );
        assert_eq!(complete, 0, "{}", file.display());
        // What verify wants to be told is said of each.
        let head = session::verify(&file, None).unwrap().head.unwrap();
        let line = format!("portwatch: {}: head {head}\n", file.display());
        assert!(said.contains(&line), "{line}{said}");
    }
}

pub fn stdout() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = portwatch(&["record", "-", "-d", "100ms"]);
    let (code, stdout, stderr) = outcome(command.current_dir(&folder).output().unwrap());
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    assert!(
        stderr.contains("a session cannot be written to stdout: name a file"),
        "{stderr}"
    );
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

pub fn overwrites_nothing() {
    let (_folder, file) = place();
    let wrong = |args: &[&str], expected: &str| {
        let (code, _, stderr) = outcome(record(&file, args).output().unwrap());
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    };
    wrong(&["--append"], "No such file or directory");
    std::fs::write(&file, "mine").unwrap();
    wrong(
        &[],
        "is there already: name another file, or add a run to it with --append",
    );
    wrong(&["--append"], "is not a session");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    std::fs::remove_file(&file).unwrap();
    // what cannot be recorded leaves nothing
    wrong(
        &["--probes", "kprobe", "--sign", "/nonexistent"],
        "opening the key",
    );
    assert!(!file.exists());
    let (code, _, stderr) = outcome(record(&file, &["--", "/nonexistent"]).output().unwrap());
    assert_eq!(code, Some(127), "{stderr}");
    assert!(!file.exists() && is_alone(&file));
    // one at a time
    let recording = Recording::start(&mut record(&file, &[]));
    wrong(&["--append"], "is being recorded into");
    recording.stop();
    assert!(unfinished(&file).is_empty());
    // nor is a session
    let session = std::fs::read(&file).unwrap();
    wrong(&[], "is there already");
    assert!(std::fs::read(&file).unwrap() == session, "it was touched");
    let path = file.to_str().unwrap();
    let mut trace = portwatch(&["trace", "--from", path, "--write", path]);
    let (code, _, stderr) = outcome(trace.output().unwrap());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("is there already: name another file"),
        "{stderr}"
    );
    assert!(std::fs::read(&file).unwrap() == session, "it was touched");
    // what someone put into it does nothing
    let planted = "CREATE TRIGGER t AFTER INSERT ON raw_run BEGIN DELETE FROM raw_batch; END";
    let db = Connection::open(&file).unwrap();
    db.execute_batch(planted).unwrap();
    drop(db);
    let session = std::fs::read(&file).unwrap();
    wrong(&["--append"], "is not added to");
    assert!(std::fs::read(&file).unwrap() == session, "it was touched");
}

pub fn mode() {
    let (_folder, file) = place();
    let mut command = record(&file, &[]);
    // SAFETY: umask may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::umask(0);
            Ok(())
        })
    };
    let recording = Recording::start(&mut command);
    until(&file, "SELECT count(*) FROM raw_batch");
    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", file.display());
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{suffix}");
    }
    recording.stop();
}
