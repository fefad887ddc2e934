//! How it ends: wrong usage, failures, and a reader that has gone.

use super::listener;
use super::program::{outcome, portwatch};

pub fn wrong_usage() {
    for (args, expected) in [
        (&["--filter", "dport == 1"][..], "no name 'dport'"),
        (&["list", "--uid", "no-such-user"], "no user 'no-such-user'"),
        (&["-u", "-1"], "no user '-1'"),
        (&["--netns", "/proc/self/ns/uts"], "is no network namespace"),
        (&["--filter", "uid == \"root\""], "int compared with string"),
        (&["--filter", "comm.matches(\"[\")"], "not a valid regex"),
        (&["--frobnicate"], "--frobnicate"),
        (&["--probes", "tracepoint"], "--duration <TIME>"),
        (&["list", "--interval", "50ms"], "--duration <TIME>"),
    ] {
        let (code, stdout, stderr) = outcome(portwatch(args).output().unwrap());
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

pub fn failing_filter() {
    let (_listener, port) = listener();
    let filter = format!("lport == {port} && args[1000] == \"x\"");
    let (code, stdout, stderr) = outcome(
        portwatch(&["-o", "json", "--filter", &filter])
            .output()
            .unwrap(),
    );
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    let complaint = "could not be evaluated once, and nothing was shown then: Index out of bounds";
    assert!(stderr.contains(complaint), "{stderr}");
}

pub fn closed_pipe() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = portwatch(&["-a", "-o", "json"]);
    let (code, _, stderr) = outcome(command.stdout(writer).output().unwrap());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

pub fn full_disk() {
    let to_full = |args: &[&str]| {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let (code, _, stderr) = outcome(portwatch(args).stdout(full.unwrap()).output().unwrap());
        assert_eq!(code, Some(1), "{args:?}");
        let expected = "portwatch: writing to stdout: No space left on device";
        assert!(stderr.starts_with(expected), "{stderr}");
    };
    to_full(&["doctor"]);
    for args in [&["--help"][..], &["--version"], &["list", "-h"]] {
        to_full(args);
        let mut command = portwatch(args);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, _, stderr) = outcome(command.stdout(writer).output().unwrap());
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}
