//! `portwatch record` as a program: what traffic made here left in the session, what ends a recording,
//! and what stays of one that was ended. Traces the running kernel, so without root most are listed as
//! ignored.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libtest_mimic::{Arguments, Trial};
use portwatch::session::{self, PublicKey, Session};
use portwatch::view::lines::Json;
use rusqlite::Connection;
use rusqlite::types::FromSql;
use tempfile::TempDir;

/// Opens, connects, accepts and closes one connection, says so on stdout, and exits with 7.
const NETWORK: &str = r#"
import socket, sys
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
c = socket.create_connection(s.getsockname()); a, _ = s.accept()
print("hello from the command"); sys.exit(7)
"#;

fn main() {
    let tests: &[(&str, fn())] = &[
        ("a_session_holds_what_was_done", truth),
        ("processes_are_told_with_start_end_and_hash", processes),
        ("what_is_printed_is_what_is_recorded", printed),
        (
            "sockets_that_were_open_before_are_the_first_checkpoint",
            seed,
        ),
        ("append_adds_a_run", append),
        ("files_follow_each_other_and_lose_nothing", rotation),
        ("the_oldest_files_are_deleted", oldest_deleted),
        ("a_killed_recording_has_all_but_the_last_second", killed),
        ("a_full_disk_ends_it_and_not_the_command", full_disk),
        ("a_disk_that_turns_read_only_ends_it", read_only),
        ("nothing_is_overwritten", overwrites_nothing),
        ("only_the_owner_may_read_it", mode),
        ("the_exit_code_is_that_of_the_command", exit_code),
        ("batches_are_signed", signed),
        ("a_reader_that_leaves_ends_it", reader_leaves),
        ("capabilities_are_given_up", capabilities),
        (
            "what_was_open_before_is_in_the_shortest_recording",
            shortest,
        ),
        ("a_file_that_is_taken_away_ends_it", taken_away),
    ];
    let anyone: &[(&str, fn())] = &[
        ("an_ordinary_user_records_by_polling", polling),
        ("each_file_has_the_accounts_until_then", accounts),
        ("stdout_is_no_place_for_a_session", stdout),
        ("a_signed_session_is_added_to_with_a_key", signed_appended),
    ];
    // SAFETY: takes nothing and touches no memory.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("NOT RUN: tracing the kernel needs root");
    }
    let trial = |&(name, test): &(&str, fn())| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let trials = tests.iter().map(|x| trial(x).with_ignored_flag(!root));
    let trials = trials.chain(anyone.iter().map(trial));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn portwatch(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portwatch"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.env_remove("SUDO_UID").env_remove("SUDO_GID");
    command
}

/// A name for a session, and its folder.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    (folder, file)
}

fn record(file: &Path, args: &[&str]) -> Command {
    portwatch(&[&["record", file.to_str().unwrap()], args].concat())
}

/// The exit code, stdout and stderr.
fn outcome(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A recording that has begun.
struct Recording {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Recording {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("portwatch: tracing with "), "{line}");
        Self { child, stderr }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: no memory involved; the child is not waited for yet.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Ends it as Ctrl-C does; what it said.
    fn stop(mut self) -> String {
        self.signal(libc::SIGINT);
        let (status, said) = self.wait();
        assert_eq!(status.code(), Some(0), "{said}");
        said
    }

    fn wait(&mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("it does not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (status, said)
    }
}

impl Drop for Recording {
    /// A test that fails leaves nothing running.
    fn drop(&mut self) {
        // An error only says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All rows of a question with one column.
fn ask<T: FromSql>(file: &Path, sql: &str) -> Vec<T> {
    let session = Session::open(file).unwrap();
    let mut statement = session.connection().prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// One number.
fn number(file: &Path, sql: &str) -> i64 {
    ask(file, sql)[0]
}

/// Nothing is wrong with it; which runs were not finished.
fn unfinished(file: &Path) -> Vec<i64> {
    let verdict = session::verify(file, None).unwrap();
    assert_eq!(verdict.fault, None, "{}", file.display());
    verdict.unfinished
}

fn is_alone(file: &Path) -> bool {
    let beside = |suffix| Path::new(&format!("{}{suffix}", file.display())).exists();
    !beside("-wal") && !beside("-shm") && !beside("-journal")
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

/// One connection over loopback, ended by a reset; the client's port.
fn connection(listener: &TcpListener) -> u16 {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let port = client.local_addr().unwrap().port();
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the descriptor is open, and the value is of the size told.
    let set = unsafe {
        libc::setsockopt(
            client.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as libc::socklen_t,
        )
    };
    assert_eq!(set, 0);
    drop(client);
    drop(server);
    port
}

fn truth() {
    let (_folder, file) = place();
    let recording = Recording::start(&mut record(&file, &[]));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let clients: Vec<i64> = (0..50).map(|_| connection(&listener).into()).collect();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap_err();
    assert_eq!(taken.raw_os_error(), Some(libc::EADDRINUSE));
    // At another address, while the port is still ours, so that nobody else can be there.
    let refused = TcpStream::connect(("127.0.0.9", port)).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED));
    drop(listener);
    let said = recording.stop();
    assert!(said.contains("portwatch: complete: nothing lost"), "{said}");
    assert!(unfinished(&file).is_empty());
    assert!(is_alone(&file));

    let own = format!("FROM events WHERE pid = {} AND", std::process::id());
    let all = |what: &str, which: &str| {
        ask::<i64>(&file, &format!("SELECT {what} {own} {which} ORDER BY seq"))
    };
    assert_eq!(
        all(
            "rport = 0 OR rport IS NULL",
            &format!("event = 'bind' AND lport = {port} AND error IS NULL")
        ),
        [1]
    );
    assert_eq!(
        all(
            "backlog > 0",
            &format!("event = 'listen' AND lport = {port}")
        ),
        [1]
    );
    assert_eq!(
        all(
            "lport",
            &format!("event = 'connect' AND rport = {port} AND error IS NULL")
        ),
        clients
    );
    assert_eq!(
        all("rport", &format!("event = 'accept' AND lport = {port}")),
        clients
    );
    let ends = all("lport", &format!("event = 'close' AND rport = {port}"));
    assert_eq!(ends, clients);
    let ends = all(
        "accepted",
        &format!("event = 'close' AND lport = {port} AND rport IS NULL"),
    );
    assert_eq!(ends, [50]);
    let failed = all(
        "json_extract(holders, '$[0].pid')",
        &format!("event = 'bind' AND lport = {port} AND error = 'EADDRINUSE'"),
    );
    assert_eq!(failed, [i64::from(std::process::id())]);
    assert_eq!(
        all("rport", "event = 'connect' AND error = 'ECONNREFUSED'"),
        [i64::from(port)]
    );
    // no gaps
    assert_eq!(
        number(&file, "SELECT max(seq) FROM events"),
        number(&file, "SELECT count(*) FROM events")
    );
    let sql = format!("SELECT accepted FROM listeners WHERE lport = {port}");
    assert_eq!(ask::<i64>(&file, &sql), [50]);
    for (column, expected) in [
        ("reason", "interrupted"),
        (
            "kernel",
            std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap()
                .trim(),
        ),
        ("json_extract(plan, '$[0].observe')", "bind"),
    ] {
        let found: Vec<String> = ask(&file, &format!("SELECT {column} FROM runs"));
        assert_eq!(found, [expected]);
    }
}

fn processes() {
    let (_folder, file) = place();
    let recording = Recording::start(&mut record(&file, &["--hash-exe"]));
    let bind = "import socket, os; s = socket.socket(); s.bind(('127.0.0.1', 0)); ";
    let mut ended = Vec::new();
    for (end, code, signal) in [
        ("os._exit(7)", Some(7), None),
        ("pass", Some(0), None),
        ("os.kill(os.getpid(), 9)", None, Some(9)),
    ] {
        let before = now();
        let mut child = Command::new("python3")
            .args(["-c", &format!("{bind}{end}")])
            .spawn()
            .unwrap();
        let pid = child.id();
        child.wait().unwrap();
        ended.push((pid, code, signal, before, now()));
    }
    recording.stop();
    // python3 may be a script that execs the real one
    let exe: String = ask(
        &file,
        &format!("SELECT exe FROM processes WHERE pid = {}", ended[0].0),
    )
    .remove(0);
    let hash = blake3::hash(&std::fs::read(exe).unwrap())
        .to_hex()
        .to_string();
    for (pid, code, signal, before, after) in ended {
        let one = |what: &str| {
            ask::<Option<i64>>(
                &file,
                &format!("SELECT {what} FROM processes WHERE pid = {pid}"),
            )
        };
        assert_eq!(one("exit_code"), [code]);
        assert_eq!(one("signal"), [signal]);
        let times: Vec<i64> = ask(
            &file,
            &format!(
                "SELECT started FROM raw_process WHERE pid = {pid} UNION ALL SELECT ts FROM raw_exit WHERE pid = {pid}"
            ),
        );
        let times: Vec<u64> = times.into_iter().map(i64::cast_unsigned).collect();
        assert!(
            matches!(times[..], [started, ended] if before <= started && started < ended && ended <= after),
            "{before} {times:?} {after}"
        );
        let hashes: Vec<String> = ask(
            &file,
            &format!("SELECT blake3 FROM processes WHERE pid = {pid}"),
        );
        assert_eq!(hashes, [hash.as_str()]);
    }
}

fn printed() {
    let (_folder, file) = place();
    let output = record(&file, &["-o", "json", "--", "python3", "-c", NETWORK]).output();
    let (code, stdout, stderr) = outcome(output.unwrap());
    assert_eq!(code, Some(7), "{stderr}");
    assert!(stderr.contains("hello from the command\n"), "{stderr}");
    assert_eq!(stdout.lines().count(), 7, "{stdout}");
    assert_eq!(stdout, as_json(&file, 0));
    let command: Vec<String> = ask(&file, "SELECT command FROM runs");
    let command: Vec<String> = serde_json::from_str(&command[0]).unwrap();
    assert_eq!(command, ["python3", "-c", NETWORK]);
}

/// Events of a run as `trace -o json` prints them.
fn as_json(file: &Path, run: usize) -> String {
    let mut session = Session::open(file).unwrap();
    let range = session.runs().unwrap()[run].events.clone();
    let mut events = Vec::new();
    session
        .events(
            range.start,
            range.end - 1,
            usize::MAX,
            range.start,
            &mut events,
        )
        .unwrap();
    let mut json = Json::new(None);
    let mut text = Vec::new();
    events.iter().for_each(|event| json.event(&mut text, event));
    String::from_utf8(text).unwrap()
}

/// Waits until a question has an answer, while the session is written.
fn until(file: &Path, sql: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while number(file, sql) == 0 {
        assert!(Instant::now() < deadline, "{sql}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn seed() {
    let (_folder, file) = place();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let recording = Recording::start(&mut record(&file, &[]));
    until(&file, "SELECT count(*) FROM raw_checkpoint");
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (server, _) = listener.accept().unwrap();
    recording.stop();
    let sql = "SELECT o.pid FROM raw_open s LEFT JOIN raw_owner o ON o.id = s.owner WHERE s.checkpoint = 1";
    let sql = format!("{sql} AND state = 'LISTEN' AND lport = {port}");
    assert_eq!(ask::<u32>(&file, &sql), [std::process::id()]);
    let open = ask::<u32>(&file, "SELECT count(*) FROM raw_open WHERE checkpoint = 1")[0];
    if open > 1900 {
        // Of so many there is no second checkpoint after a few events.
        eprintln!("NOT CHECKED: what is open at the end, on a machine with {open} sockets");
        return;
    }
    let mut session = Session::open(&file).unwrap();
    let states = |sockets: Vec<session::Kept>| {
        let own = sockets.into_iter().map(|kept| kept.row);
        let own = own.filter(|row| row.event.lport == Some(port) || row.event.rport == Some(port));
        let own = own.map(|row| (row.event.pid, row.state.to_string()));
        let mut own: Vec<_> = own.collect();
        own.sort();
        own
    };
    let pid = Some(std::process::id());
    let last = session.checkpoint(1, i64::MAX, u64::MAX).unwrap().unwrap();
    let connected = (pid, "ESTAB".to_owned());
    assert_eq!(
        states(last.sockets),
        [connected.clone(), connected, (pid, "LISTEN".to_owned())]
    );
    drop((client, server));
}

fn append() {
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

fn rotation() {
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

fn oldest_deleted() {
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

fn accounts() {
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

fn stdout() {
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

fn signed_appended() {
    let (_folder, file) = place();
    let key = |name: &str| format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    let says = |args: &[&str]| {
        let always = ["--from", "poll", "-d", "100ms"];
        let (code, _, stderr) = outcome(record(&file, &[&always, args].concat()).output().unwrap());
        (code, stderr)
    };
    let secret = key("ed25519");
    let (code, stderr) = says(&["--sign", &secret]);
    assert_eq!(code, Some(0), "{stderr}");
    let before = std::fs::read(&file).unwrap();
    let (code, stderr) = says(&["--append"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("give --sign KEY, or record into a new file"),
        "{stderr}"
    );
    assert!(std::fs::read(&file).unwrap() == before, "it was touched");
    let (code, stderr) = says(&["--append", "--sign", &secret]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(
        number(
            &file,
            "SELECT count(*) FROM raw_batch WHERE signature IS NULL"
        ),
        0
    );
}

fn killed() {
    for _ in 0..5 {
        let (_folder, file) = place();
        let mut recording = Recording::start(&mut record(&file, &[]));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let done = AtomicBool::new(false);
        let (made, killed) = std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                // when it was over, and the client's port
                let mut made: Vec<(u64, i64)> = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let client = connection(&listener);
                    made.push((now(), client.into()));
                    // SQLite is built to be debugged, not to be fast.
                    if cfg!(debug_assertions) {
                        std::thread::sleep(Duration::from_micros(500));
                    }
                }
                made
            });
            std::thread::sleep(Duration::from_secs(3));
            let killed = now();
            recording.signal(libc::SIGKILL);
            recording.wait();
            done.store(true, Ordering::Relaxed);
            (maker.join().unwrap(), killed)
        });
        let old = made.partition_point(|x| x.0 + 1_000_000_000 < killed);
        assert!(old > 100, "{old}");
        assert_eq!(unfinished(&file), [1]);
        let there = |event: &str, own: &str, other: &str| -> Vec<i64> {
            let sql = format!(
                "SELECT {own} FROM events WHERE event = '{event}' AND {other} = {port} AND raddr IS NOT NULL ORDER BY seq"
            );
            ask(&file, &sql)
        };
        let clients: Vec<i64> = made.iter().map(|x| x.1).collect();
        for (event, own, other) in [("connect", "lport", "rport"), ("accept", "rport", "lport")] {
            let there = there(event, own, other);
            assert!(there.len() >= old, "{event}: {} of {old}", there.len());
            assert!(clients.starts_with(&there), "{event}");
        }
        // A reset is taken in by the kernel later on, maybe after the next connection is made.
        let mut closed = there("close", "rport", "lport");
        for client in &clients[..made.partition_point(|x| x.0 + 2_000_000_000 < killed)] {
            let at = closed.iter().position(|x| x == client);
            closed.remove(at.expect("a connection that did not end"));
        }
        // it can be gone on with
        let (code, _, said) = outcome(record(&file, &["--append", "--", "true"]).output().unwrap());
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(unfinished(&file), [1]);
    }
}

/// Runs a script where mounts are its own, with the program as `$0` and a folder as `$1`.
fn with_mounts(folder: &Path, script: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_portwatch")])
        .arg(folder)
        .stdin(Stdio::null())
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID");
    outcome(command.output().unwrap())
}

fn full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let churn = "
import socket, struct
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
for i in range(20000):
    c = socket.create_connection(s.getsockname()); a, _ = s.accept()
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); c.close(); a.close()
print('to the end')
";
    std::fs::write(folder.path().join("churn.py"), churn).unwrap();
    // What is left is looked at while the disk is still full.
    let script = "
mkdir $1/small && mount -t tmpfs -o size=2M none $1/small && cd $1/small || exit 99
$0 record s.db -- python3 ../churn.py; code=$?
head -c 100000 /dev/zero > rest 2>/dev/null
cp -a . $1/copy; umount -l $1/small; exit $code";
    let (code, stdout, stderr) = with_mounts(folder.path(), script);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stdout.ends_with("to the end\n"), "{stdout}");
    assert!(
        stderr.contains("ended early, what was stored until then is whole: the disk is full; the command runs on"),
        "{stderr}"
    );
    let file = folder.path().join("copy/s.db");
    assert_eq!(unfinished(&file), [1]);
    let events = number(&file, "SELECT count(*) FROM events");
    assert!(events > 1000, "{events}");
    assert_eq!(events, number(&file, "SELECT max(seq) FROM events"));
}

fn read_only() {
    let folder = tempfile::tempdir().unwrap();
    // The kernel itself makes a damaged file system read-only, with files open for writing.
    let script = "
head -c 16M /dev/zero > $1/image && mkfs.ext4 -q -F $1/image && mkdir $1/disk || exit 99
mount -o loop,errors=remount-ro $1/image $1/disk || exit 99
trigger=/sys/fs/ext4/$(basename $(findmnt -n -o SOURCE $1/disk))/trigger_fs_error
$0 record $1/disk/s.db 2> $1/said & pid=$!
until grep -q tracing $1/said; do kill -0 $pid || break; sleep 0.1; done
python3 $1/churn.py 500; sleep 1.5
echo 1 > $trigger || exit 99
python3 $1/churn.py 500
wait $pid; code=$?
cat $1/said >&2; cp -a $1/disk/s.db* $1/; umount $1/disk; exit $code";
    let churn = "
import socket, sys
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
for i in range(int(sys.argv[1])):
    c = socket.create_connection(s.getsockname()); a, _ = s.accept(); a.close(); c.close()
";
    std::fs::write(folder.path().join("churn.py"), churn).unwrap();
    let (code, _, stderr) = with_mounts(folder.path(), script);
    if code == Some(99) {
        eprintln!("NOT RUN: no file system that can turn read-only: {stderr}");
        return;
    }
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains(
            "ended early, what was stored until then is whole: it cannot be written any more"
        ),
        "{stderr}"
    );
    let file = folder.path().join("s.db");
    assert_eq!(unfinished(&file), [1]);
    let accepts = number(
        &file,
        "SELECT count(*) FROM events WHERE event = 'accept' AND comm = 'python3'",
    );
    assert!(accepts >= 500, "{accepts}");
}

fn overwrites_nothing() {
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

fn shortest() {
    let (_folder, file) = place();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (code, _, stderr) = outcome(record(&file, &["-d", "1ms"]).output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    let open = format!("SELECT count(*) FROM raw_open WHERE state = 'LISTEN' AND lport = {port}");
    assert!(number(&file, &open) > 0);
}

fn taken_away() {
    let (_folder, file) = place();
    let mut recording = Recording::start(&mut record(&file, &[]));
    std::fs::remove_file(&file).unwrap();
    let (status, stderr) = recording.wait();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("the file was removed or renamed"),
        "{stderr}"
    );
}

fn mode() {
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

fn exit_code() {
    for (words, expected) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["true"], 0),
        (&["/"], 126),
    ] {
        let (_folder, file) = place();
        let args = [&["--"], words].concat();
        let (code, _, stderr) = outcome(record(&file, &args).output().unwrap());
        assert_eq!(code, Some(expected), "{stderr}");
    }
}

fn signed() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys");
    let (folder, file) = place();
    let secret = folder.path().join("key");
    std::fs::copy(keys.join("ed25519"), &secret).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let args = [
        "--sign",
        secret.to_str().unwrap(),
        "--",
        "python3",
        "-c",
        NETWORK,
    ];
    let (code, _, stderr) = outcome(record(&file, &args).output().unwrap());
    assert_eq!(code, Some(7), "{stderr}");
    for (key, good) in [("ed25519.pub", true), ("other.pub", false)] {
        let key = PublicKey::load(keys.join(key).to_str().unwrap()).unwrap();
        let check = |hash: &[u8; 32], signature: &[u8]| key.check(hash, signature);
        let verdict = session::verify(&file, Some(&check)).unwrap();
        assert_eq!(verdict.fault.is_none(), good, "{verdict:?}");
        assert_eq!(
            verdict.signed == verdict.batches && verdict.signed > 0,
            good
        );
    }
}

fn reader_leaves() {
    let (_folder, file) = place();
    let mut recording = Recording::start(&mut record(&file, &["-o", "json"]));
    drop(recording.child.stdout.take());
    let (status, said) = recording.wait();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(unfinished(&file).is_empty());
    // a disk that is full is trouble, but not of the session
    let (_folder, file) = place();
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let args = ["-o", "json", "--", "python3", "-c", NETWORK];
    let (code, _, stderr) = outcome(record(&file, &args).stdout(full).output().unwrap());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("writing to stdout: No space left on device"),
        "{stderr}"
    );
    assert!(unfinished(&file).is_empty());
    assert_eq!(
        number(
            &file,
            "SELECT count(*) FROM runs WHERE reason LIKE 'writing to stdout%'"
        ),
        1
    );
}

fn capabilities() {
    let (_folder, file) = place();
    let recording = Recording::start(&mut record(&file, &[]));
    until(&file, "SELECT count(*) FROM raw_batch");
    // CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF
    let kept = 1 << 2 | 1 << 12 | 1 << 19 | 1 << 21 | 1 << 38 | 1 << 39;
    let threads = format!("/proc/{}/task", recording.child.id());
    // Threads that helped at the start may still be on their way out.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let threads = std::fs::read_dir(&threads).unwrap();
        let all: Vec<String> = threads
            .filter_map(|x| std::fs::read_to_string(x.unwrap().path().join("status")).ok())
            .collect();
        let value = |status: &str, name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
        };
        let given_up = all.iter().all(|status| {
            value(status, "CapEff:") & !kept == 0
                && value(status, "CapBnd:") & !kept == 0
                && value(status, "NoNewPrivs:") == 1
        });
        if given_up && all.iter().any(|x| x.starts_with("Name:\trecorder\n")) {
            break;
        }
        assert!(Instant::now() < deadline, "{all:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    recording.stop();
}

fn polling() {
    // where an ordinary user may execute it
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("portwatch");
    // Not by this process: a child of another test would have the copy open for writing for a while.
    let mut copied = Command::new("cp");
    copied.args([
        env!("CARGO_BIN_EXE_portwatch").as_ref(),
        program.as_os_str(),
    ]);
    assert!(copied.status().unwrap().success());
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let file = folder.path().join("s.db");
    let mut command = Command::new(&program);
    command
        .arg("record")
        .arg(&file)
        .args(["--interval", "50ms", "--require-complete"]);
    command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    // SAFETY: takes nothing and touches no memory.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(65534).gid(65534);
    }
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("portwatch: polling every 50ms"), "{line}");
    let mut recording = Recording { child, stderr };
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    until(
        &file,
        &format!("SELECT count(*) FROM events WHERE event = 'listen' AND lport = {port}"),
    );
    recording.signal(libc::SIGINT);
    let (status, said) = recording.wait();
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(unfinished(&file).is_empty() && is_alone(&file));
    assert_eq!(
        ask::<String>(&file, "SELECT source FROM runs WHERE NOT complete"),
        ["polling"]
    );
}
