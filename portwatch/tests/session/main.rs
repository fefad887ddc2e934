//! `portwatch verify`, `query` and `export` as programs, on sessions made here.

mod altered;
mod export;
mod flipped;
mod make;
#[path = "../program/mod.rs"]
mod program;
mod query;
mod signed;
mod verify;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;

use program::{outcome, portwatch};

/// Exit code, stdout, stderr.
type Said = (i32, String, String);

fn says(args: &[&str]) -> Said {
    told(portwatch(args).output().unwrap())
}

fn says_of(args: &[&str], stdin: &str) -> Said {
    let mut command = portwatch(args);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(stdin.as_bytes()).unwrap();
    drop(input);
    told(child.wait_with_output().unwrap())
}

fn told(output: std::process::Output) -> Said {
    let (code, stdout, stderr) = outcome(output);
    (code.expect("ended by a signal"), stdout, stderr)
}

/// What a command prints that goes well.
fn prints(args: &[&str]) -> String {
    let (code, stdout, stderr) = says(args);
    assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
    stdout
}

/// The same on a terminal.
fn shows(args: &[&str]) -> String {
    let (mut ours, mut theirs) = (0, 0);
    let (nothing, none) = (std::ptr::null_mut(), std::ptr::null());
    // SAFETY: the descriptors are stored in integers that live until after the call; the rest is optional.
    let opened = unsafe { libc::openpty(&mut ours, &mut theirs, nothing, none, none.cast()) };
    assert_eq!(opened, 0, "no terminal");
    // SAFETY: both were just opened, and are nobody else's.
    let (ours, theirs) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    let mut command = portwatch(args);
    let mut child = command.stdout(theirs).spawn().unwrap();
    // Has the other end of the terminal, too.
    drop(command);
    let mut shown = Vec::new();
    // When nobody has the terminal any more, reading fails.
    let _ = (&ours).read_to_end(&mut shown);
    assert!(child.wait().unwrap().success(), "{args:?}");
    String::from_utf8(shown).unwrap().replace("\r\n", "\n")
}

/// A folder with a session in it.
fn session() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    make::session(&path, None);
    (folder, path)
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}
