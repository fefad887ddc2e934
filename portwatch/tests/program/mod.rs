//! The program under test, and what comes of it.

use std::process::{Command, Output, Stdio};

/// portwatch with these arguments: with nothing on stdin, what it prints to be read, and not by sudo.
pub fn portwatch(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portwatch"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID");
    command
}

/// Exit code (none where a signal ended it), stdout and stderr.
pub fn outcome(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}
