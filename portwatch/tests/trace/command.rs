//! A command that is traced, and what becomes of it.

use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::program::{outcome, portwatch};
use super::{NETWORK, run, send, start, wait};

pub fn write_leaves_stdout_to_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.json");
    let path = file.to_str().unwrap();
    let output = run(&[
        "trace", "-o", "json", "--write", path, "--", "python3", "-c", NETWORK,
    ]);
    let (code, stdout, stderr) = outcome(output);
    assert_eq!(
        (code, stdout.as_str()),
        (Some(7), "hello from the command\n"),
        "{stderr}"
    );
    assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), 7);
}

pub fn only_descendants() {
    let mut outsider = Command::new("sh")
        .args([
            "-c",
            &format!(
                "while :; do python3 -c '{}'; done",
                NETWORK.replace('\n', ";").trim_matches(';')
            ),
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let script = format!("(python3 -c '{NETWORK}'; :)");
    let (code, stdout, stderr) = outcome(run(&["trace", "-o", "json", "--", "sh", "-c", &script]));
    outsider.kill().unwrap();
    outsider.wait().unwrap();
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout.lines().count(), 7, "{stdout}");
    assert_eq!(stdout.matches(r#""event":"bind""#).count(), 1, "{stdout}");
}

/// As in a container.
pub fn in_pid_namespace() {
    let script = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); \
                  time.sleep(1)";
    let mut command = Command::new("unshare");
    command.args(["-pf", "--mount-proc", env!("CARGO_BIN_EXE_portwatch")]);
    command.args(["trace", "--interval", "50ms", "-o", "json", "--"]);
    command.args(["python3", "-c", script]);
    let (code, stdout, stderr) = outcome(command.output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(r#""event":"listen""#), "{stdout}");
    assert!(stderr.contains("have other numbers here"), "{stderr}");
}

pub fn command_cannot_start() {
    for (program, expected, reason) in [
        ("/nonexistent", 127, "No such file or directory"),
        ("/", 126, "Permission denied"),
    ] {
        let (code, _, stderr) = outcome(run(&["trace", "--", program]));
        assert_eq!(code, Some(expected), "{stderr}");
        assert!(
            stderr.contains(&format!("cannot run '{program}': {reason}")),
            "{stderr}"
        );
    }
}

/// Events of a command that sends more than fits into the buffers of a server, which reads after that long.
fn of_client(server_reads_after: Duration) -> (Vec<serde_json::Value>, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        std::thread::sleep(server_reads_after);
        std::io::copy(&mut connection, &mut std::io::sink()).unwrap();
    });
    let script = format!(
        "import socket; s = socket.create_connection(('127.0.0.1', {})); s.setblocking(False)\n\
         try:\n while True: s.send(bytes(65536))\n\
         except BlockingIOError: pass",
        address.port()
    );
    let args = ["trace", "-o", "json", "--", "python3", "-c", &script];
    let (code, stdout, stderr) = outcome(run(&args));
    server.join().unwrap();
    assert_eq!(code, Some(0), "{stderr}");
    let events = stdout.lines().map(|x| serde_json::from_str(x).unwrap());
    (events.collect(), stderr)
}

pub fn late_close() {
    let (events, stderr) = of_client(Duration::from_millis(500));
    let [connected, closed] = &events[..] else {
        panic!("not a connection: {events:?}")
    };
    assert_eq!(connected["event"], "connect");
    assert_eq!(closed["event"], "close");
    assert_eq!(closed["sock"], connected["sock"]);
    assert!(!stderr.contains("no close"), "{stderr}");
}

pub fn never_closed() {
    let (events, stderr) = of_client(Duration::from_secs(4));
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(
        stderr
            .contains("no close was told of 1 socket of the command within a second of its end\n"),
        "{stderr}"
    );
}

/// What becomes of a command when these signals, and no others, are ignored where portwatch is started.
fn ignoring(signals: &'static [i32], command: &[&str]) -> (Option<i32>, String, String) {
    use std::os::unix::process::CommandExt as _;
    let mut command = portwatch(&[&["trace", "-o", "json", "--"], command].concat());
    // SAFETY: signal(2) may be called between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for signal in 1..=libc::SIGSYS {
                let ignored = signals.contains(&signal);
                libc::signal(
                    signal,
                    if ignored {
                        libc::SIG_IGN
                    } else {
                        libc::SIG_DFL
                    },
                );
            }
            Ok(())
        });
    }
    outcome(command.output().unwrap())
}

pub fn children_ignored() {
    let (code, _, stderr) = ignoring(&[libc::SIGCHLD], &["sh", "-c", "exit 3"]);
    assert_eq!(code, Some(3), "{stderr}");
}

pub fn ignored_signals_are_inherited() {
    const ALL: &[i32] = &[libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGXFSZ];
    for (ignored, expected) in [(ALL, ALL), (&[], &[])] {
        let (_, _, stderr) = ignoring(ignored, &["grep", "SigIgn", "/proc/self/status"]);
        let mask = (stderr.lines()).find_map(|line| line.strip_prefix("SigIgn:\t"));
        let mask = u64::from_str_radix(mask.expect(&stderr), 16).unwrap();
        let told = ALL.iter().filter(|&&signal| mask >> (signal - 1) & 1 == 1);
        assert!(told.eq(expected), "{stderr}");
    }
}

pub fn command_runs_as_caller() {
    let script = "id -u; id -g; echo $HOME";
    let output = portwatch(&["trace", "-o", "json", "--", "sh", "-c", script])
        .env("SUDO_UID", "65534")
        .env("SUDO_GID", "65534")
        .env("HOME", "/root")
        .output()
        .unwrap();
    let (code, _, stderr) = outcome(output);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("65534\n65534\n/"), "{stderr}");
    assert!(!stderr.contains("/root"), "{stderr}");
}

pub fn signals_though_nobody_reads() {
    use std::os::unix::process::ExitStatusExt as _;
    let script = "import socket, time\n\
                  for _ in range(3000): socket.socket(type=socket.SOCK_DGRAM).bind(('127.0.0.1', 0))\n\
                  print('done', flush=True); time.sleep(60)";
    let args = ["trace", "-o", "json", "--", "python3", "-c", script];
    // The pipe is never read. What the command prints goes to stderr.
    let (mut child, mut stderr) = start(&mut portwatch(&args));
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, "done\n");
    std::thread::sleep(Duration::from_millis(300));
    send(&child, libc::SIGTERM);
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !std::fs::read_to_string(&children).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the command goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(800));
    assert!(child.try_wait().unwrap().is_none(), "it should be blocked");
    send(&child, libc::SIGTERM);
    assert_eq!(wait(&mut child).signal(), Some(libc::SIGTERM));
}

pub fn many_signals() {
    let script = "import signal, sys\n\
                  signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n\
                  print('ready', flush=True)\n\
                  for _ in range(3): signal.sigwait([signal.SIGTERM]); print('one', flush=True)\n\
                  sys.exit(9)";
    let args = ["trace", "-o", "json", "--", "python3", "-c", script];
    let (mut child, mut stderr) = start(&mut portwatch(&args));
    for expected in ["ready\n", "one\n", "one\n"] {
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
        std::thread::sleep(Duration::from_millis(600));
        send(&child, libc::SIGTERM);
    }
    assert_eq!(wait(&mut child).code(), Some(9));
}

pub fn full_disk_with_command() {
    let script = format!("python3 -c '{NETWORK}'; sleep 0.2; echo to the end");
    let output = run(&[
        "trace",
        "-o",
        "json",
        "--write",
        "/dev/full",
        "--",
        "sh",
        "-c",
        &script,
    ]);
    let (code, stdout, stderr) = outcome(output);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("/dev/full: No space left on device"),
        "{stderr}"
    );
    assert!(stdout.ends_with("to the end\n"), "{stdout}");
}
