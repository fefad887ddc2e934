//! `portwatch trace` as a program: its exit codes, its streams, its ends. Traces the running
//! kernel, so without root these are listed as ignored. What is traced truly is tested by the
//! scenarios in `tests`.

mod program;
mod promises;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use program::{outcome, portwatch};
use promises::root;

/// Opens, connects, accepts and closes one connection, says so on stdout, and exits with 7.
const NETWORK: &str = r#"
import socket, sys
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
c = socket.create_connection(s.getsockname()); a, _ = s.accept()
print("hello from the command"); sys.exit(7)
"#;

/// Five processes with 3,400 bound sockets each, all open at the same time: more than the kernel side
/// keeps room for.
const CROWD: &str = r#"
import os, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (3500, 3500))
all_open, go = os.pipe(), os.pipe()
for process in range(5):
    if os.fork() == 0:
        sockets = []
        for n in range(3400):
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.bind((f"127.0.{process + 1}.{n % 10 + 1}", 20000 + n))
            sockets.append(s)
        os.write(all_open[1], b"x"); os.close(go[1]); os.read(go[0], 1)
        for s in sockets[::2]: s.close()
        os._exit(0)
for process in range(5): os.read(all_open[0], 1)
os.close(go[1])
for process in range(5): os.wait()
"#;

fn main() {
    let root = root();
    promises::run(
        &[
            (
                "stdout_holds_only_events_when_it_is_a_pipe",
                root,
                stdout_holds_only_events,
            ),
            (
                "write_leaves_stdout_to_the_command",
                root,
                write_leaves_stdout_to_the_command,
            ),
            (
                "only_the_command_and_its_descendants_are_shown",
                root,
                only_descendants,
            ),
            (
                "a_command_in_a_pid_namespace_is_followed_by_polling",
                root,
                in_pid_namespace,
            ),
            (
                "a_command_that_cannot_start_is_told_as_the_shell_does",
                root,
                command_cannot_start,
            ),
            (
                "the_end_of_a_command_is_known_where_ends_of_children_are_ignored",
                root,
                children_ignored,
            ),
            (
                "a_close_that_takes_longer_than_the_command_is_told",
                root,
                late_close,
            ),
            (
                "what_a_command_leaves_open_is_waited_for_and_told",
                root,
                never_closed,
            ),
            (
                "the_command_runs_as_the_user_who_called_sudo",
                root,
                command_runs_as_caller,
            ),
            (
                "more_sockets_are_followed_than_there_is_room_for_at_first",
                root,
                crowd,
            ),
            (
                "holders_are_told_whatever_kinds_are_asked_for",
                root,
                holders_of_binds_only,
            ),
            (
                "closes_are_told_alike_whatever_kinds_are_asked_for",
                root,
                closes_only,
            ),
            ("a_program_in_no_directory_has_a_name", root, in_memory),
            (
                "a_trace_that_was_denied_probes_is_not_complete",
                root,
                denied_probes,
            ),
            ("csv_and_text_begin_with_names", root, header_first),
            (
                "it_traces_where_cgroups_are_mounted_for_its_parent_only",
                root,
                without_cgroups,
            ),
            ("count_and_duration_end_a_trace", root, count_and_duration),
            (
                "a_filter_that_fails_on_an_event_is_a_failure",
                root,
                failing_filter,
            ),
            (
                "an_interval_that_is_not_used_is_told",
                root,
                unused_interval,
            ),
            ("an_interrupt_ends_a_trace_with_a_summary", root, interrupt),
            (
                "two_interrupts_at_once_are_one",
                root,
                two_interrupts_at_once,
            ),
            (
                "a_second_interrupt_ends_it_though_nobody_reads",
                root,
                second_interrupt,
            ),
            (
                "signals_reach_the_command_and_the_second_ends_it_though_nobody_reads",
                root,
                signals_though_nobody_reads,
            ),
            ("a_command_may_get_many_signals", root, many_signals),
            (
                "capabilities_are_given_up_once_the_probes_are_attached",
                root,
                capabilities,
            ),
            ("a_closed_pipe_is_a_normal_end", root, closed_pipe),
            ("a_full_disk_is_told", root, full_disk),
            (
                "a_full_disk_does_not_end_the_command",
                root,
                full_disk_with_command,
            ),
        ],
        false,
    )
}

fn run(args: &[&str]) -> Output {
    portwatch(args).output().unwrap()
}

/// Starts a trace and waits until it says that it traces.
fn start(command: &mut Command) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("portwatch: tracing with "), "{line}");
    (child, stderr)
}

fn interrupt_it(child: &Child) {
    send(child, libc::SIGINT);
}

fn send(child: &Child, signal: i32) {
    // SAFETY: no memory involved; the child is not waited for yet.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn stdout_holds_only_events() {
    let output = run(&["trace", "-o", "json", "--", "python3", "-c", NETWORK]);
    let (code, stdout, stderr) = outcome(output);
    assert_eq!(code, Some(7), "{stderr}");
    assert!(stderr.contains("hello from the command\n"), "{stderr}");
    assert!(
        stderr.contains("portwatch: complete: nothing lost"),
        "{stderr}"
    );
    let events: Vec<serde_json::Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], i + 1);
    }
    let count = |kind: &str| events.iter().filter(|x| x["event"] == kind).count();
    let counts = ["bind", "listen", "connect", "accept", "close"].map(count);
    assert_eq!(counts, [1, 1, 1, 1, 3], "{stdout}");
}

fn write_leaves_stdout_to_the_command() {
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

fn only_descendants() {
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
fn in_pid_namespace() {
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

fn command_cannot_start() {
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

fn late_close() {
    let (events, stderr) = of_client(Duration::from_millis(500));
    let [connected, closed] = &events[..] else {
        panic!("not a connection: {events:?}")
    };
    assert_eq!(connected["event"], "connect");
    assert_eq!(closed["event"], "close");
    assert_eq!(closed["sock"], connected["sock"]);
    assert!(!stderr.contains("no close"), "{stderr}");
}

fn never_closed() {
    let (events, stderr) = of_client(Duration::from_secs(4));
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(
        stderr
            .contains("no close was told of 1 socket of the command within a second of its end\n"),
        "{stderr}"
    );
}

fn children_ignored() {
    use std::os::unix::process::CommandExt as _;
    let mut command = portwatch(&["trace", "--", "sh", "-c", "exit 3"]);
    // SAFETY: signal(2) may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        });
    }
    let (code, _, stderr) = outcome(command.output().unwrap());
    assert_eq!(code, Some(3), "{stderr}");
}

fn command_runs_as_caller() {
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

fn crowd() {
    let args = ["trace", "-o", "json", "--kernel-notes", "-e", "bind,close"];
    let command = ["--", "python3", "-c", CROWD];
    let (code, out, err) = outcome(run(&[&args[..], &command].concat()));
    assert_eq!(code, Some(0), "{err}");
    assert!(
        err.contains("portwatch: kernel: there are more sockets than "),
        "{err}"
    );
    assert!(err.contains("complete: nothing lost"), "{err}");
    let mut bound = HashMap::new();
    for line in out.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let (sock, owner) = (event["sock"].as_u64().unwrap(), event["pid"].clone());
        if event["event"] == "bind" {
            assert_eq!(bound.insert(sock, owner), None, "bound twice: {line}");
        } else {
            assert_eq!(bound.remove(&sock), Some(owner), "{line}");
            assert!(event["duration_us"].is_u64(), "{line}");
        }
    }
    assert_eq!(out.lines().count(), 2 * 5 * 3400);
    assert!(bound.is_empty(), "{} not closed", bound.len());
}

fn holders_of_binds_only() {
    // Gone before anybody can look who has the port.
    let script = "import os, socket, sys; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n\
                  try: socket.socket().bind(s.getsockname())\n\
                  except OSError: os._exit(0)";
    let args = [
        "trace", "-o", "json", "-e", "bind", "--", "python3", "-c", script,
    ];
    let (code, stdout, stderr) = outcome(run(&args));
    assert_eq!(code, Some(0), "{stderr}");
    let events: Vec<serde_json::Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [bound, failed] = &events[..] else {
        panic!("not two binds: {stdout}")
    };
    assert_eq!(failed["error"], "EADDRINUSE");
    assert_eq!(failed["holders"][0]["pid"], bound["pid"]);
    assert_eq!(failed["holders"][0]["sock"], bound["sock"]);
}

fn closes_only() {
    // The program that made the connection is another one when it ends.
    let script = "import os, socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n\
                  c = socket.create_connection(s.getsockname()); c.set_inheritable(True)\n\
                  os.execlp('sleep', 'sleep', '0.1')";
    let args = [
        "trace", "-o", "json", "-e", "close", "--", "python3", "-c", script,
    ];
    let (code, stdout, stderr) = outcome(run(&args));
    assert_eq!(code, Some(0), "{stderr}");
    let closed = (stdout.lines())
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .inspect(|event| assert_eq!(event["event"], "close"));
    let ours: Vec<_> = closed.filter(|event| !event["rport"].is_null()).collect();
    assert_eq!(ours.len(), 1, "{stdout}");
    assert_eq!(ours[0]["args"][2], script);
    // What was made for it only is no business of the summary's.
    assert!(stderr.contains("portwatch: 2 events in "), "{stderr}");
}

/// Of memfd_create(2).
fn in_memory() {
    let script = "import os, sys; fd = os.memfd_create('made'); \
                  os.write(fd, open(os.path.realpath(sys.executable), 'rb').read()); \
                  os.execv(f'/proc/self/fd/{fd}', ['made', '-c', sys.argv[1]])";
    let bind = "import socket; socket.socket().bind(('127.0.0.1', 0))";
    let args = ["trace", "-o", "json", "-e", "bind", "--", "python3", "-c"];
    let (code, stdout, stderr) = outcome(run(&[&args[..], &[script, bind]].concat()));
    assert_eq!(code, Some(0), "{stderr}");
    let event: serde_json::Value = serde_json::from_str(&stdout).expect(&stdout);
    assert_eq!(event["exe"], "/memfd:made");
}

/// As inside `ip netns exec`, which mounts /sys anew.
fn without_cgroups() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mounted = (mounts.lines()).find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| path.to_owned())
    });
    let Some(mounted) = mounted else {
        return eprintln!("NOT RUN: no cgroup v2 hierarchy is mounted");
    };
    let script = r#"umount -l "$1" && exec "$0" trace -d 100ms"#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]);
    command.args([env!("CARGO_BIN_EXE_portwatch"), &mounted]);
    let (code, _, stderr) = outcome(command.output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.starts_with("portwatch: tracing with "), "{stderr}");
}

fn denied_probes() {
    use std::os::unix::process::CommandExt as _;
    let with_files = |most: u64| {
        let args = [
            "trace",
            "-d",
            "1ms",
            "--require-complete",
            "--probes",
            "tracepoint",
        ];
        let mut command = portwatch(&args);
        let limit = libc::rlimit {
            rlim_cur: most,
            rlim_max: most,
        };
        // SAFETY: a system call that reads the limit, which outlives it.
        unsafe {
            command.pre_exec(move || {
                libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
                Ok(())
            });
        }
        outcome(command.output().unwrap())
    };
    // The fewest open files with which it can serve at all.
    let (mut few, mut enough) = (10_u64, 500);
    while enough - few > 1 {
        let most = few.midpoint(enough);
        match with_files(most).0 {
            Some(1) => few = most,
            _ => enough = most,
        }
    }
    let (code, _, stderr) = with_files(enough);
    assert!(stderr.contains(" (degraded: no "), "{stderr}");
    assert!(stderr.contains("probes denied to this process"), "{stderr}");
    assert_eq!(code, Some(4), "{stderr}");
}

fn header_first() {
    for (format, expected) in [("text", "EVENT"), ("csv", "ts,seq,event,")] {
        let (mut child, _stderr) = start(&mut portwatch(&["trace", "-P", "1", "-o", format]));
        // it comes without any event
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains(expected), "{line}");
        interrupt_it(&child);
        wait(&mut child);
    }
}

fn count_and_duration() {
    let output = run(&[
        "trace", "-o", "json", "-c", "2", "--", "python3", "-c", NETWORK,
    ]);
    let (code, stdout, stderr) = outcome(output);
    assert_eq!((code, stdout.lines().count()), (Some(7), 2), "{stderr}");
    // The command outlives the time, and its code counts.
    let script = "sleep 0.5; echo to the end; exit 3";
    let command = ["--", "sh", "-c", script];
    let trace = ["trace", "-d", "50ms", "--write", "/dev/null"];
    let (code, stdout, stderr) = outcome(run(&[&trace[..], &command].concat()));
    assert_eq!(
        (code, stdout.as_str()),
        (Some(3), "to the end\n"),
        "{stderr}"
    );
    let started = Instant::now();
    let (code, _, stderr) = outcome(run(&["trace", "-P", "1", "-d", "200ms"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(started.elapsed() >= Duration::from_millis(200));
}

fn failing_filter() {
    let filter = ["trace", "--filter", "args[1000] == \"x\"", "--"];
    // the command's own code comes first
    for (code, expected) in [("sys.exit(7)", 7), ("sys.exit(0)", 1)] {
        let script = NETWORK.replace("sys.exit(7)", code);
        let output = run(&[&filter[..], &["python3", "-c", &script]].concat());
        let (code, _, stderr) = outcome(output);
        assert_eq!(code, Some(expected), "{stderr}");
        assert!(
            stderr.contains("could not be evaluated 7 times"),
            "{stderr}"
        );
    }
}

fn unused_interval() {
    let told = |args: &[&str]| {
        let (code, _, stderr) = outcome(run(args));
        assert_eq!(code, Some(0), "{stderr}");
        stderr.matches("--interval is not used").count()
    };
    let interval = ["--interval", "50ms"];
    let trace = ["trace", "-P", "1", "-d", "100ms"];
    let list = ["list", "-P", "1", "-d", "100ms"];
    for command in [&trace[..], &list] {
        assert_eq!(told(&[command, &interval].concat()), 1);
        assert_eq!(told(command), 0);
        let poll = [command, &interval, &["--from", "poll"]].concat();
        assert_eq!(told(&poll), 0);
    }
}

fn interrupt() {
    ends_well(interrupt_it);
}

/// As timeout(1) sends them.
fn two_interrupts_at_once() {
    ends_well(|child| {
        interrupt_it(child);
        std::thread::sleep(Duration::from_millis(5));
        interrupt_it(child);
    });
}

fn ends_well(by: impl Fn(&Child)) {
    let (mut child, mut stderr) = start(&mut portwatch(&["trace", "-P", "1"]));
    by(&child);
    assert_eq!(wait(&mut child).code(), Some(0));
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(rest.contains(" in ") && rest.contains("complete"), "{rest}");
}

fn second_interrupt() {
    use std::os::unix::process::ExitStatusExt as _;
    // The pipe is never read: more than it holds blocks the trace for good.
    let (mut child, _stderr) = start(&mut portwatch(&["trace", "-o", "json"]));
    for _ in 0..2000 {
        drop(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    }
    std::thread::sleep(Duration::from_millis(500));
    interrupt_it(&child);
    std::thread::sleep(Duration::from_millis(800));
    assert!(child.try_wait().unwrap().is_none(), "it should be blocked");
    interrupt_it(&child);
    assert_eq!(wait(&mut child).signal(), Some(libc::SIGINT));
}

fn signals_though_nobody_reads() {
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

fn many_signals() {
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

fn capabilities() {
    let (mut child, _stderr) = start(&mut portwatch(&["trace", "-P", "1"]));
    let path = format!("/proc/{}/status", child.id());
    // CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF
    let kept = 1 << 2 | 1 << 19 | 1 << 38 | 1 << 39;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = std::fs::read_to_string(&path).unwrap();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
        };
        if value("CapEff:") & !kept == 0
            && value("CapBnd:") & !kept == 0
            && value("NoNewPrivs:") == 1
        {
            break;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(10));
    }
    interrupt_it(&child);
    assert_eq!(wait(&mut child).code(), Some(0));
}

fn closed_pipe() {
    let (mut child, mut stderr) = start(&mut portwatch(&["trace", "-P", "1"]));
    // noticed without anything to write
    drop(child.stdout.take());
    assert_eq!(wait(&mut child).code(), Some(0));
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("portwatch: 0 events in "), "{rest}");
    assert!(rest.contains("portwatch: complete"), "{rest}");
}

fn full_disk() {
    let mut command = portwatch(&["trace"]);
    command.stdout(File::options().write(true).open("/dev/full").unwrap());
    let (code, _, stderr) = outcome(command.output().unwrap());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("writing to stdout: No space left on device"),
        "{stderr}"
    );
}

fn full_disk_with_command() {
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
