//! `portwatch trace` without eBPF: what it sees of sockets made here, and that it says what it
//! does not see. What it sees depends on no privilege, so these tests need none.

mod machine;
#[path = "../program/mod.rs"]
mod program;
mod tables;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
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
        Self::spawn(portwatch(&[command, "-o", "json", "--from", "poll"]).args(args))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut polling = Self {
            child,
            stdout,
            stderr,
            first_line: String::new(),
        };
        polling.first_line = polling.said();
        polling
    }

    /// The next line on stderr.
    fn said(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line
    }

    /// The next event.
    #[track_caller]
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect(&line)
    }

    /// Ends it by a signal; what was not read of stdout and stderr.
    fn end(mut self, signal: i32) -> (String, String) {
        send(&self.child, signal);
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

#[test]
fn a_command_that_is_not_in_the_tree_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, file) = (folder.path().join("proc"), folder.path().join("s.db"));
    std::fs::create_dir(&tree).unwrap();
    let run = |program: &[&str], tree: &str| {
        run(&[
            program,
            &["--proc-root", tree, "--", "sh", "-c", "echo ran; exit 3"],
        ]
        .concat())
    };
    for program in [&["trace"][..], &["record", file.to_str().unwrap()]] {
        let (code, stdout, said) = run(program, tree.to_str().unwrap());
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("a command could not be followed"), "{said}");
        assert!(!format!("{stdout}{said}").contains("ran"), "{said}");
        let (code, _, said) = run(program, "/proc/");
        assert_eq!(code, Some(3), "{said}");
    }
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
    // Other words where /proc hides the processes of others.
    assert!(said.contains("which needs root"), "{said}");
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

/// As with a limit of processes, which is one of threads, too.
#[test]
fn where_no_thread_can_be_had_it_does_without_or_says_so() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let run = |words: &str| {
        let (folder, mut command) = for_nobody();
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.path(), all).unwrap();
        let limit = libc::rlimit {
            rlim_cur: 1,
            rlim_max: 1,
        };
        command.args(words.split(' ')).current_dir(folder.path());
        // SAFETY: the call may be made between fork and exec, and reads the structure.
        unsafe {
            command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NPROC, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let (code, _, said) = outcome(command.output().unwrap());
        let left = std::fs::read_dir(folder.path()).unwrap().count() - 1;
        (code, left, said)
    };
    for words in ["list", "who 1", "trace -d 100ms"] {
        let (code, _, said) = run(words);
        assert_eq!(code, Some(0), "{words}: {said}");
    }
    for words in ["record s.db -d 100ms", "trace -- true"] {
        let (code, left, said) = run(words);
        assert_eq!((code, left), (Some(1), 0), "{words}: {said}");
        let why = "starting a thread: Resource temporarily unavailable";
        assert!(said.contains(why), "{words}: {said}");
    }
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
