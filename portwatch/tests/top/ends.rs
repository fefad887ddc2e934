//! Its ends and stops, which leave the terminal as it was.

use std::io::Read as _;
use std::process::{Command, Stdio};

use super::terminal::{Top, pseudo_terminal, spawn_on, top};

pub fn ends() {
    for number in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let top = Top::start(&["--from", "poll"]);
        top.signal(number);
        top.ended();
    }
    for keys in ["q", "\x03"] {
        let mut top = Top::start(&["--from", "poll"]);
        top.press(keys);
        top.ended();
    }
}

/// Runs what follows in a pid namespace with a /proc of its own.
pub fn inside() -> Command {
    let mut command = Command::new("unshare");
    command.args(["-p", "-f", "--mount-proc", "--"]);
    command
}

pub fn unseen() {
    let mut command = inside();
    command.arg(env!("CARGO_BIN_EXE_portwatch"));
    command.args(["top", "--from", "poll"]);
    let mut top = Top::run(command);
    top.press("q");
    let said = top.ended();
    assert!(said.contains("portwatch: polling every 200ms: "), "{said}");
    let outside = "portwatch: processes outside of this pid namespace cannot be seen";
    assert!(said.contains(outside), "{said}");
}

/// By the key and by the signal, under a shell that continues it when a line is typed.
pub fn stops() {
    let script =
        r#""$0" top --from poll; for i in 1 2; do echo "stopped: $i"; read line; fg; done"#;
    let mut shell = Command::new("sh");
    shell.args(["-mc", script, env!("CARGO_BIN_EXE_portwatch")]);
    let mut top = Top::run(shell);
    for stop in ["stopped: 1", "stopped: 2"] {
        match stop {
            "stopped: 1" => top.press("\x1a"),
            _ => top.signal_child(libc::SIGTSTP),
        }
        top.until("the shell", |text| text.contains(stop));
        top.given_back();
        top.press("\n");
        top.until("the table again", |text| text.contains("q quit"));
    }
    top.press("q");
    top.ended();
}

pub fn gone() {
    let (mut ours, theirs) = pseudo_terminal();
    let mut child = spawn_on(&theirs, top(&["--from", "poll"]));
    drop(theirs);
    let mut shown = Vec::new();
    while !shown.windows(4).any(|bytes| bytes == b"quit") {
        let mut bytes = [0; 4096];
        let count = ours.read(&mut bytes).unwrap();
        shown.extend_from_slice(&bytes[..count]);
    }
    drop(ours);
    assert!(child.wait().unwrap().success());
}

pub fn no_terminal() {
    let output = top(&[]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`portwatch trace`"), "{said}");
    assert!(output.stdout.is_empty());
}
