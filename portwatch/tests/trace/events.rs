//! What is told of events.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::Command;

use super::program::{outcome, portwatch};
use super::{NETWORK, interrupt_it, run, start, wait};

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

pub fn stdout_holds_only_events() {
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

pub fn crowd() {
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

pub fn holders_of_binds_only() {
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

pub fn closes_only() {
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
pub fn in_memory() {
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
pub fn without_cgroups() {
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

pub fn denied_probes() {
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

pub fn header_first() {
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
