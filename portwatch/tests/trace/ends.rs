//! How a trace ends.

use std::fs::File;
use std::io::Read as _;
use std::process::Child;
use std::time::{Duration, Instant};

use super::program::{outcome, portwatch};
use super::{NETWORK, interrupt_it, run, start, wait};

pub fn count_and_duration() {
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

pub fn failing_filter() {
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

pub fn unused_interval() {
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

pub fn interrupt() {
    ends_well(interrupt_it);
}

/// As timeout(1) sends them.
pub fn two_interrupts_at_once() {
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

pub fn second_interrupt() {
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

pub fn capabilities() {
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

pub fn closed_pipe() {
    let (mut child, mut stderr) = start(&mut portwatch(&["trace", "-P", "1"]));
    // noticed without anything to write
    drop(child.stdout.take());
    assert_eq!(wait(&mut child).code(), Some(0));
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("portwatch: 0 events in "), "{rest}");
    assert!(rest.contains("portwatch: complete"), "{rest}");
}

pub fn full_disk() {
    let mut command = portwatch(&["trace"]);
    command.stdout(File::options().write(true).open("/dev/full").unwrap());
    let (code, _, stderr) = outcome(command.output().unwrap());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("writing to stdout: No space left on device"),
        "{stderr}"
    );
}
