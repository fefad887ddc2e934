//! Other namespaces, and what cannot be seen.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::elsewhere::listener_elsewhere;
use super::program::outcome;
use super::{listener, prints, rows};

pub fn namespaces() {
    let (own, port) = listener();
    let child = listener_elsewhere(port);
    let netns = std::fs::metadata(format!("/proc/{}/ns/net", child.0.id()))
        .unwrap()
        .ino();
    let port = port.to_string();
    let both = rows(&["-P", &port, "-o", "json"]);
    let pids: Vec<&Value> = both.iter().map(|row| &row["pid"]).collect();
    assert!(pids.contains(&&child.0.id().into()), "{both:?}");
    assert!(pids.contains(&&std::process::id().into()), "{both:?}");
    let netns_filter = netns.to_string();
    let rows = rows(&["-P", &port, "--netns", &netns_filter, "-o", "json"]);
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (&rows[0]["netns"], &rows[0]["comm"]),
        (&netns.into(), &"sleep".into())
    );
    let table = prints(&["-P", &port, "--netns", &netns_filter]);
    assert!(table.contains("WHERE"), "{table}");
    assert!(table.contains(&format!("net:{netns}")), "{table}");
    drop(own);
}

pub fn named_namespace() {
    let (own, port) = listener();
    let child = listener_elsewhere(port);
    let name = format!("pw{}", std::process::id());
    let place = Path::new("/run/netns").join(&name);
    std::fs::create_dir_all("/run/netns").unwrap();
    let namespace = format!("/proc/{}/ns/net", child.0.id());
    std::os::unix::fs::symlink(namespace, &place).unwrap();
    let port = port.to_string();
    let here = prints(&["-P", &port]);
    let elsewhere = prints(&["-P", &port, "--proc-root", "/proc"]);
    std::fs::remove_file(&place).unwrap();
    assert!(here.contains(&name), "{here}");
    assert!(elsewhere.contains("net:"), "{elsewhere}");
    assert!(!elsewhere.contains(&name), "{elsewhere}");
    drop(own);
}

const NOBODY: u32 = 65534;

pub fn ordinary_user() {
    let (_listener, port) = listener();
    let (_folder, program) = public_program();
    let mut command = Command::new(&program);
    command.args(["-P", &port.to_string(), "-o", "json"]);
    command
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .current_dir("/");
    let (code, stdout, stderr) = outcome(command.output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    let row: Value = serde_json::from_str(stdout.trim()).expect(&stdout);
    assert_eq!(
        (&row["lport"], &row["state"]),
        (&port.into(), &"LISTEN".into())
    );
    assert_eq!(
        (row.get("pid"), row.get("comm"), row.get("exe")),
        (None, None, None)
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("root"), "{stderr}");
}

pub fn hidden_processes() {
    let (_folder, program) = public_program();
    let script = "mount -t proc -o hidepid=2 proc /proc && \
                  exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" -o json";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(&program);
    let (code, _, stderr) = outcome(
        command
            .stdin(Stdio::null())
            .current_dir("/")
            .output()
            .unwrap(),
    );
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let hint = "/proc hides the processes of other users (hidepid)";
    assert!(
        stderr.contains(hint) && stderr.contains("needs root"),
        "{stderr}"
    );
}

/// Copies the program to where everybody may run it.
fn public_program() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("portwatch");
    // By another process: one that is forked here meanwhile would have it open for writing.
    let mut copy = Command::new("cp");
    let copied = copy
        .arg(env!("CARGO_BIN_EXE_portwatch"))
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    for path in [folder.path(), &program] {
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, all).unwrap();
    }
    (folder, program)
}
