//! Binds in other namespaces, against what the kernel does there.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::prints;
use super::program::outcome;

/// What a program prints in new namespaces, and its exit code; `None` without unshare(1).
pub fn unshare(
    flags: &[&str],
    program: &str,
    args: &[&str],
) -> Option<(Option<i32>, String, String)> {
    let mut command = Command::new("unshare");
    let command = command.args(flags).arg("--").arg(program).args(args);
    command.stdin(Stdio::null()).output().ok().map(outcome)
}

/// Runs this program as one that binds to a port that needs a privilege.
pub const BIND: &str = "bind-privileged";

/// Says whether that is denied.
pub fn bind() -> ! {
    let error = TcpListener::bind("0.0.0.0:1").err();
    let denied = error.and_then(|x| x.raw_os_error()) == Some(libc::EACCES);
    println!("{denied}");
    std::process::exit(0);
}

pub fn privilege() {
    let own = std::env::current_exe().unwrap();
    for flags in ["-Ur", "-Urn"] {
        let (_, truth, _) = unshare(&[flags], own.to_str().unwrap(), &[BIND]).unwrap();
        let program = env!("CARGO_BIN_EXE_portwatch");
        let (_, text, stderr) = unshare(&[flags], program, &["who", "1", "-t"]).unwrap();
        let denied = text.contains("verdict: a bind to 1/tcp fails with EACCES");
        assert_eq!(denied.to_string(), truth.trim_end(), "{text}{stderr}");
    }
}

/// Runs this program as one that compares what `who` says of wildcards with binds.
pub const V6ONLY: &str = "bind-wildcards";

/// With each value of the setting of its network namespace.
pub fn wildcards() -> ! {
    const SETTING: &str = "/proc/sys/net/ipv6/bindv6only";
    let socket = |domain| Socket::new(domain, Type::STREAM, None).unwrap();
    for (value, succeeds) in [("0", false), ("1", true)] {
        if !std::path::Path::new(SETTING).exists() {
            eprintln!("NOT RUN: no IPv6 on this kernel");
            break;
        }
        std::fs::write(SETTING, value).unwrap();
        let listener = socket(Domain::IPV4);
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(1).unwrap();
        let port = listener.local_addr().unwrap().as_socket().unwrap().port();
        let text = prints(&[&port.to_string(), "-t", "-o", "json"]);
        let answer: Value = serde_json::from_str(&text).unwrap();
        let told = &answer["protocols"][0]["binds"][1];
        let all = SocketAddr::from(([0; 16], port));
        let truth = socket(Domain::IPV6).bind(&all.into()).is_ok();
        assert_eq!(truth, succeeds);
        assert_eq!(told.get("error").is_none(), truth, "{text}");
    }
    std::process::exit(0);
}

pub fn v6only() {
    let own = std::env::current_exe().unwrap();
    let (code, _, stderr) = unshare(&["-Urn"], own.to_str().unwrap(), &[V6ONLY]).unwrap();
    eprint!("{stderr}");
    assert_eq!(code, Some(0));
}
