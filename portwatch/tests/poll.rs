//! `portwatch trace` without eBPF: what it sees of sockets made here, and that it says what it
//! does not see. What it sees depends on no privilege, so these tests need none.

mod program;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use program::{outcome, portwatch};

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    outcome(portwatch(args).output().unwrap())
}

/// Something that polls for JSON. Its first line on stderr comes after its first snapshot.
struct Polling {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    first_line: String,
}

impl Polling {
    fn start(args: &[&str]) -> Self {
        Self::command("trace", args)
    }

    fn command(command: &str, args: &[&str]) -> Self {
        let mut child = portwatch(&[command, "-o", "json", "--from", "poll"])
            .args(args)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut first_line = String::new();
        stderr.read_line(&mut first_line).unwrap();
        Self {
            child,
            stdout,
            stderr,
            first_line,
        }
    }

    /// The next event.
    #[track_caller]
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect(&line)
    }

    /// Ends it; what was not read of stdout and stderr.
    fn end(mut self) -> (String, String) {
        send(&self.child, libc::SIGINT);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.stderr.read_to_string(&mut stderr).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{stderr}");
        (stdout, stderr)
    }
}

/// Sends a signal to a child that is not waited for yet.
fn send(child: &Child, signal: i32) {
    // SAFETY: no memory involved; the number is still the child's.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
}

/// Keeps other tests from opening sockets in this process meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own_pid() -> String {
    std::process::id().to_string()
}

#[test]
fn a_server_and_a_client_are_told_from_listen_to_close() {
    let _alone = alone();
    let mut polling = Polling::start(&["--interval", "50ms", "-t", "-p", &own_pid()]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let event = polling.next();
    assert_eq!(
        (&event["event"], &event["lport"]),
        (&"listen".into(), &port.into())
    );
    assert_eq!(event["origin"], "poll");
    assert_eq!(event["pid"], std::process::id());
    let exe = std::env::current_exe().unwrap();
    assert_eq!(event["exe"], exe.to_str().unwrap());

    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let asking = client.local_addr().unwrap().port();
    let mut server = listener.accept().unwrap().0;
    client.write_all(&[7; 300]).unwrap();
    server.read_exact(&mut [0; 300]).unwrap();
    let mut both = [polling.next(), polling.next()];
    both.sort_by_key(|event| event["event"].to_string());
    let [accept, connect] = &both;
    for (event, kind, lport, rport) in [
        (accept, "accept", port, asking),
        (connect, "connect", asking, port),
    ] {
        assert_eq!(event["event"], kind);
        assert_eq!(
            (&event["lport"], &event["rport"]),
            (&lport.into(), &rport.into())
        );
    }
    // one more snapshot, which sees the bytes
    let again = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(polling.next()["event"], "listen");
    drop((client, server));
    let mut both = [polling.next(), polling.next()];
    both.sort_by_key(|event| event["lport"] == port);
    let [client, server] = &both;
    for (event, bytes, lport) in [(client, "tx_bytes", asking), (server, "rx_bytes", port)] {
        assert_eq!(
            (&event["event"], &event["lport"]),
            (&"close".into(), &lport.into())
        );
        assert_eq!(event[bytes], 300);
        assert!(
            event["duration_us"].as_u64().is_some_and(|us| us > 0),
            "{event}"
        );
    }
    drop(listener);
    let event = polling.next();
    assert_eq!(
        (&event["event"], &event["lport"]),
        (&"close".into(), &port.into())
    );
    drop(again);
    assert_eq!(polling.next()["event"], "close");
    let (rest, said) = polling.end();
    assert_eq!(rest, "", "told twice");
    assert!(said.contains("portwatch: incomplete: polling "), "{said}");
}

#[test]
fn a_udp_socket_is_told_from_bind_to_close_and_what_was_there_is_no_event() {
    let _alone = alone();
    let old = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut polling = Polling::start(&["--interval", "50ms", "-U", "-p", &own_pid()]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let event = polling.next();
    assert_eq!(
        (&event["event"], &event["lport"]),
        (&"bind".into(), &port.into())
    );
    socket.connect("127.0.0.1:9").unwrap();
    let event = polling.next();
    assert_eq!(
        (&event["event"], &event["rport"]),
        (&"connect".into(), &9.into())
    );
    drop(socket);
    let event = polling.next();
    assert_eq!(
        (&event["event"], &event["lport"]),
        (&"close".into(), &port.into())
    );
    let there_before = old.local_addr().unwrap().port();
    drop(old);
    let event = polling.next();
    assert_eq!(
        (&event["event"], &event["lport"]),
        (&"close".into(), &there_before.into())
    );
    assert_eq!(event.get("duration_us"), None);
    assert_eq!(polling.end().0, "");
}

#[test]
fn a_listener_between_two_snapshots_is_missed_and_that_is_said() {
    let _alone = alone();
    // Far longer than the listener lives, however slow the machine: two snapshots are all.
    let polling = Polling::start(&["--interval", "1h", "-p", &own_pid()]);
    assert_eq!(
        polling.first_line,
        "portwatch: polling every 1h: what lives shorter than 1h is missed\n"
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    std::thread::sleep(Duration::from_millis(1));
    drop(listener);
    let kept = TcpListener::bind("127.0.0.1:0").unwrap();
    let (stdout, said) = polling.end();
    // the last snapshot is taken at the end
    let events: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.len(), 1, "{stdout}");
    assert_eq!(
        events[0]["lport"],
        Value::from(kept.local_addr().unwrap().port())
    );
    assert!(
        said.contains(
            "incomplete: polling misses what fails, resets, and what lives shorter than "
        ),
        "{said}"
    );
}

#[test]
fn a_table_after_a_while_does_not_wait_for_the_next_poll() {
    let _alone = alone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = Value::from(listener.local_addr().unwrap().port());
    for duration in ["200ms", "1h"] {
        let pid = own_pid();
        let args = ["--interval", "1h", "-d", duration, "-t", "-p", &pid];
        let mut polling = Polling::command("list", &args);
        if duration == "1h" {
            // Ended by a signal it has as much to show.
            send(&polling.child, libc::SIGINT);
        }
        assert_eq!(polling.next()["lport"], port);
        assert_eq!(polling.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn polling_is_never_complete() {
    let args = [
        "trace",
        "--from",
        "poll",
        "-d",
        "100ms",
        "--require-complete",
    ];
    let (code, _, said) = run(&args);
    assert_eq!(code, Some(4), "{said}");
}

#[test]
fn only_the_command_and_its_descendants_are_shown() {
    let _alone = alone();
    let outsider = || TcpListener::bind("127.0.0.1:0").unwrap();
    let script = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); \
                  print(s.getsockname()[1], flush=True); import sys; sys.stdin.read()";
    let shell = format!("(python3 -c \"{script}\"; :)");
    let mut command = portwatch(&["trace", "--from", "poll", "--interval", "50ms"]);
    command.args(["-o", "json", "--", "sh", "-c", &shell]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // what the command prints is on stderr, behind what portwatch says
    let port: u16 = loop {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
        if let Ok(port) = line.trim().parse() {
            break port;
        }
    };
    let others = (outsider(), outsider());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).expect(&line);
    assert_eq!(event["lport"], port);
    let comm = event["comm"].as_str().unwrap();
    assert!(comm.starts_with("python3"), "{comm}");
    drop(child.stdin.take());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(others);
    let rest: Vec<Value> = rest
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        rest.iter()
            .all(|event| event["event"] == "close" && event["lport"] == port),
        "{rest:?}"
    );
}

const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const LISTENER: &str = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000000000000000 100 0 0 10 0\n";
const OTHER: &str = "   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4243 1 0000000000000000 100 0 0 10 0\n";

/// The tables of a proc file system, made by hand, and a trace that polls them for JSON.
struct Tables {
    folder: tempfile::TempDir,
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Tables {
    fn start() -> Self {
        Self::with(&["trace"])
    }

    fn with(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let net = folder.path().join("net");
        std::fs::create_dir(&net).unwrap();
        for name in ["tcp", "tcp6", "udp", "udp6"] {
            std::fs::write(net.join(name), HEADING).unwrap();
        }
        let root = folder.path().to_str().unwrap();
        let mut child = portwatch(args)
            .args(["-o", "json", "--proc-root", root, "--interval", "50ms"])
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut tables = Self {
            folder,
            child,
            stdout,
            stderr,
        };
        let said = tables.said();
        assert!(said.starts_with("portwatch: polling every 50"), "{said}");
        assert!(tables.said().contains("only one is shown"));
        tables
    }

    fn tcp(&self) -> PathBuf {
        self.folder.path().join("net/tcp")
    }

    /// Never seen half written.
    fn write(&self, text: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.tcp()).unwrap();
    }

    /// The next line on stderr.
    fn said(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line
    }

    /// The next event, and its port.
    fn next(&mut self) -> (String, u64) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let event: Value = serde_json::from_str(&line).expect(&line);
        let kind = event["event"].as_str().unwrap().to_owned();
        (kind, event["lport"].as_u64().unwrap())
    }

    /// Ends it; what was not read of stdout and stderr.
    fn end(mut self) -> (String, String) {
        send(&self.child, libc::SIGTERM);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.stderr.read_to_string(&mut stderr).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{stderr}");
        (stdout, stderr)
    }

    /// Ends a trace that has told all of what it says of damage, and has nothing more to tell but the sum.
    fn end_damaged(self) {
        let (stdout, stderr) = self.end();
        assert_eq!(stdout, "");
        assert!(!stderr.contains("taken to be open"), "said twice: {stderr}");
        assert!(
            stderr.contains(" with tables missing or damaged"),
            "{stderr}"
        );
    }
}

#[test]
fn a_tree_that_changes_is_polled_like_any_proc() {
    let mut tables = Tables::start();
    tables.write(&format!("{HEADING}{LISTENER}"));
    assert_eq!(tables.next(), ("listen".to_owned(), 8080));
    tables.write(HEADING);
    assert_eq!(tables.next(), ("close".to_owned(), 8080));
    assert_eq!(tables.end().0, "");
}

#[test]
fn a_table_that_is_damaged_meanwhile_proves_no_end() {
    let mut tables = Tables::start();
    let whole = format!("{HEADING}{LISTENER}");
    tables.write(&whole);
    assert_eq!(tables.next(), ("listen".to_owned(), 8080));
    for (damaged, note) in [
        (&whole[..whole.len() - 90], "tcp has lines that"),
        ("", "tcp cannot be read (it is empty)"),
    ] {
        tables.write(damaged);
        let said = tables.said();
        assert!(said.contains(note), "{said}");
        // whatever was told before that has been read
        tables.write(&format!("\u{1}garbage\n{OTHER}"));
        assert_eq!(tables.next(), ("listen".to_owned(), 8081));
        tables.write(&whole);
        assert_eq!(tables.next(), ("close".to_owned(), 8081));
    }
    std::fs::remove_file(tables.tcp()).unwrap();
    let note = tables.said();
    assert!(note.contains("tcp cannot be read (No such file"), "{note}");
    std::fs::create_dir(tables.tcp()).unwrap();
    let note = tables.said();
    assert!(
        note.contains("tcp cannot be read (not a regular file"),
        "{note}"
    );
    std::fs::remove_dir(tables.tcp()).unwrap();
    // what ended meanwhile is told when the table tells it
    tables.write(HEADING);
    assert_eq!(tables.next(), ("close".to_owned(), 8080));
    tables.end_damaged();
}

#[test]
fn tables_that_vanish_for_a_moment_end_neither_sockets_nor_the_trace() {
    let mut tables = Tables::start();
    tables.write(&format!("{HEADING}{LISTENER}"));
    assert_eq!(tables.next(), ("listen".to_owned(), 8080));
    let (net, away) = (
        tables.folder.path().join("net"),
        tables.folder.path().join("away"),
    );
    std::fs::rename(&net, &away).unwrap();
    let said = tables.said();
    assert!(
        said.contains("the proc file system cannot be read (No such file"),
        "{said}"
    );
    std::fs::rename(&away, &net).unwrap();
    tables.write(&format!("{HEADING}{LISTENER}{OTHER}"));
    assert_eq!(tables.next(), ("listen".to_owned(), 8081));
    tables.end_damaged();
}

#[test]
fn a_table_after_a_while_says_which_tables_broke_meanwhile() {
    for vanish in [false, true] {
        let mut tables = Tables::with(&["list", "-d", "1h"]);
        if vanish {
            // after the first snapshot
            tables.write(&format!("{HEADING}{LISTENER}"));
            std::thread::sleep(Duration::from_secs(1));
            std::fs::remove_dir_all(tables.folder.path().join("net")).unwrap();
        } else {
            std::fs::remove_file(tables.tcp()).unwrap();
        }
        let note = tables.said();
        assert!(note.contains("cannot be read (No such file"), "{note}");
        let (stdout, stderr) = tables.end();
        assert_eq!(stdout.lines().count(), usize::from(vanish), "{stdout}");
        assert!(
            stderr.contains(" with tables missing or damaged"),
            "{stderr}"
        );
        let compared = !stderr.contains("not compared with open sockets at the end");
        assert_eq!(compared, !vanish, "{stderr}");
    }
}

#[test]
fn a_limit_of_the_size_of_files_fails_a_trace_and_ends_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let limited = |words: &str| {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -f 0; exec \"$0\" {words}");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_portwatch")]);
        outcome(shell.arg(folder.path().join("file")).output().unwrap())
    };
    let (code, _, said) = limited("trace --from poll -d 100ms --write \"$1\"");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("File too large"), "{said}");
    let (code, _, said) = limited("trace --from poll -- sh -c 'echo x > \"$0\"' \"$1\"");
    assert_eq!(code, Some(128 + libc::SIGXFSZ), "{said}");
    let (code, _, said) = limited("record --from poll -d 100ms \"$1.db\"");
    assert_eq!(code, Some(1), "{said}");
    assert!(!folder.path().join("file.db").exists(), "{said}");
}

#[test]
fn a_directory_that_is_no_proc_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, said) = run(&["trace", "--proc-root", folder.path().to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--proc-root takes the root"), "{said}");
}

/// A copy of the program that anyone may run, and its folder.
fn for_nobody() -> (tempfile::TempDir, Command) {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let folder = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let copy = folder.path().join("portwatch");
    // Not by this process: a child of another test would have the copy open for writing for a while.
    let mut copied = Command::new("cp");
    copied.args([env!("CARGO_BIN_EXE_portwatch").as_ref(), copy.as_os_str()]);
    assert!(copied.status().unwrap().success());
    let mut command = Command::new(&copy);
    // SAFETY: takes nothing and touches no memory.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(65534).gid(65534);
    }
    (folder, command)
}

#[test]
fn without_permission_it_polls_and_says_why() {
    let (_folder, mut command) = for_nobody();
    let output = command
        .args(["trace", "-d", "300ms", "--ring-size", "1M"])
        .output()
        .unwrap();
    let (code, _, said) = outcome(output);
    assert_eq!(code, Some(0), "{said}");
    let first = said.lines().next().unwrap();
    for expected in [
        "polling every 200ms: what lives shorter than 200ms is missed",
        "no permission to load eBPF programs",
        "CAP_BPF",
        "as root",
    ] {
        assert!(first.contains(expected), "{said}");
    }
    assert!(said.contains("cannot be read, which needs root"), "{said}");
    assert!(said.contains("--ring-size is not used"), "{said}");
}

#[test]
fn without_permission_a_tier_that_is_asked_for_is_an_error() {
    let (_folder, mut command) = for_nobody();
    let output = command
        .args(["trace", "--probes", "tracepoint"])
        .output()
        .unwrap();
    let (code, stdout, said) = outcome(output);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("CAP_BPF"), "{said}");
}

#[test]
fn without_permission_own_sockets_have_owners_and_others_do_not() {
    let _alone = alone();
    let (_folder, mut command) = for_nobody();
    command.args([
        "trace",
        "-o",
        "json",
        "--from",
        "poll",
        "--interval",
        "50ms",
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut String::new()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = Value::from(listener.local_addr().unwrap().port());
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    // others may be at work on this machine
    let event = loop {
        let mut line = String::new();
        assert!(stdout.read_line(&mut line).unwrap() > 0 && Instant::now() < deadline);
        let event: Value = serde_json::from_str(&line).expect(&line);
        if event["lport"] == port {
            break event;
        }
    };
    assert_eq!(event["event"], "listen");
    // SAFETY: takes nothing and touches no memory.
    let (uid, root) = unsafe { (libc::getuid(), libc::geteuid() == 0) };
    assert_eq!(event["uid"], uid);
    assert_eq!(event.get("pid").is_none(), root, "{event}");
    send(&child, libc::SIGTERM);
    child.wait().unwrap();
}
