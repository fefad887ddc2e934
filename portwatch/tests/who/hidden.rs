//! What cannot be seen, and is said to be hidden.

use std::os::unix::process::CommandExt as _;

use serde_json::Value;

use super::elsewhere::listener_elsewhere;
use super::namespaces::unshare;
use super::program::outcome;
use super::{open, prints, who};

/// A pid namespace with a /proc of its own.
pub const PID: [&str; 3] = ["-p", "-f", "--mount-proc"];

pub fn pid_namespace() {
    let (_listener, _, port) = open();
    let program = env!("CARGO_BIN_EXE_portwatch");
    let (_, json, stderr) = unshare(&PID, program, &["who", &port, "-t", "-o", "json"]).unwrap();
    let hidden = "processes outside of this pid namespace cannot be seen: owners of their sockets \
                  are not shown, and sockets of network namespaces that only they are in are missing";
    let (limits, owner) = limits_and_owner(&json);
    assert!(limits.contains(hidden), "{json}");
    assert!(stderr.contains(hidden), "{stderr}");
    assert_eq!(owner, None);
    // Also where two look there, it is said once.
    let wait = "\"$0\" who \"$1\" -t --wait --from poll | head -n 1";
    let (_, _, stderr) = unshare(&PID, "sh", &["-c", wait, program, &port]).unwrap();
    assert_eq!(stderr.matches(hidden).count(), 1, "{stderr}");
    // Polling has the same eyes.
    let polling = ["trace", "--from", "poll", "-d", "10ms"];
    let (_, _, stderr) = unshare(&PID, program, &polling).unwrap();
    assert!(stderr.contains(hidden), "{stderr}");
    // Nor does it see those that have sockets where there are none here.
    let alone = [&PID[..], &["-n"]].concat();
    for args in [&["list"][..], &["list", "-d", "10ms"]] {
        let (_, _, stderr) = unshare(&alone, program, args).unwrap();
        assert!(stderr.contains(hidden), "{args:?}: {stderr}");
    }
}

pub fn not_entered() {
    const CAP_SYS_ADMIN: libc::c_ulong = 21;
    let (listener, at, port) = open();
    drop(listener);
    let elsewhere = listener_elsewhere(at);
    let (limits, owner) = limits_and_owner(&answer_without(CAP_SYS_ADMIN, &[&port]));
    assert_eq!(owner, Some(elsewhere.0.id().into()));
    let told = "cannot be entered, which needs CAP_SYS_ADMIN, and ";
    assert!(limits.contains(told), "{limits}");
    let (limits, _) = limits_and_owner(&prints(&[&port, "-t", "-o", "json"]));
    assert!(!limits.contains(told), "{limits}");
}

pub fn told_by_the_kernel() {
    const CAP_SYS_PTRACE: libc::c_ulong = 19;
    let (_listener, _, port) = open();
    let (limits, owner) = limits_and_owner(&answer_without(CAP_SYS_PTRACE, &[&port]));
    // Older kernels do not tell.
    let shown = owner == Some(std::process::id().into());
    assert_eq!(
        limits.contains("owners of their sockets are not shown"),
        !shown,
        "{limits}"
    );
    // Polling does not ask it.
    let polling = [port.as_str(), "--from", "poll"];
    let (limits, owner) = limits_and_owner(&answer_without(CAP_SYS_PTRACE, &polling));
    assert_eq!(owner, None);
    let told = "owners of their sockets are not shown";
    assert!(limits.contains(told), "{limits}");
}

/// The answer for a tcp port to root without this capability.
fn answer_without(capability: libc::c_ulong, args: &[&str]) -> String {
    let mut command = who(&[args, &["-t", "-o", "json"]].concat());
    // SAFETY: one system call, which takes numbers only.
    let drop = move || match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: only a system call between fork and exec.
    unsafe { command.pre_exec(drop) };
    let (code, stdout, stderr) = outcome(command.output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    stdout
}

/// What could not be seen, and the pid of the first server of tcp.
fn limits_and_owner(json: &str) -> (String, Option<u64>) {
    let answer: Value = serde_json::from_str(json).unwrap();
    let owner = answer["protocols"][0]["servers"][0]["pid"].as_u64();
    (answer["limits"].to_string(), owner)
}
