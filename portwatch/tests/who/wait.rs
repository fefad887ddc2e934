//! What happens to the port after the answer.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::program::outcome;
use super::{open, who};

pub fn wait() {
    let (listener, port, text) = open();
    let mut child = who(&[&text, "-t", "--wait", "-o", "json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(
        next()["protocols"][0]["servers"][0]["pid"],
        std::process::id()
    );
    // comes and goes without a word: it neither takes nor frees the port
    drop((
        TcpStream::connect(("127.0.0.1", port)).unwrap(),
        listener.accept().unwrap(),
    ));
    TcpListener::bind(("127.0.0.1", port)).unwrap_err();
    let failed = next();
    assert_eq!(
        (&failed["event"], &failed["error"]),
        (&"bind".into(), &"EADDRINUSE".into())
    );
    assert_eq!(
        (&failed["lport"], &failed["pid"]),
        (&port.into(), &std::process::id().into())
    );
    assert_eq!(failed["holders"][0]["pid"], std::process::id());
    drop(listener);
    let freed = next();
    assert_eq!(
        (&freed["event"], &freed["lport"]),
        (&"close".into(), &port.into())
    );
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    assert_eq!(next()["event"], "bind");
    assert_eq!(next()["event"], "listen");
    // SAFETY: no memory involved; the child is not waited for yet.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    let (code, _, stderr) = outcome(child.wait_with_output().unwrap());
    assert_eq!(code, Some(0));
    // Whether it is, as trace does.
    assert!(stderr.contains("complete: "), "{stderr}");
}

pub fn wait_for_connections() {
    let (server, at, _) = open();
    let (free, port, text) = open();
    drop(free);
    let connect = || {
        let socket = from_port(port).unwrap();
        let server = SocketAddr::from(([127, 0, 0, 1], at));
        socket.connect(&server.into()).unwrap();
        socket
    };
    let before = connect();
    let mut child = who(&[&text, "-t", "--wait", "-o", "json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["protocols"][0]["states"][0]["state"], "ESTAB");
    drop(before);
    let freed = next();
    assert_eq!(
        (&freed["event"], &freed["lport"]),
        (&"close".into(), &port.into())
    );
    let after = connect();
    let taken = next();
    assert_eq!(
        (&taken["event"], &taken["lport"], &taken["pid"]),
        (&"connect".into(), &port.into(), &std::process::id().into())
    );
    drop(after);
    assert_eq!(next()["event"], "close");
    // SAFETY: no memory involved; the child is not waited for yet.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(server);
}

/// A socket that connects from this port without a bind, and leaves nothing behind.
pub fn from_port(port: u16) -> std::io::Result<Socket> {
    const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    let range = u32::from(port) << 16 | u32::from(port);
    // SAFETY: the descriptor is open, and the value is of the size told.
    let refused = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            IP_LOCAL_PORT_RANGE,
            (&raw const range).cast(),
            size_of_val(&range) as libc::socklen_t,
        )
    };
    match refused {
        0 => Ok(socket),
        _ => Err(std::io::Error::last_os_error()),
    }
}

pub fn another_proc() {
    let (listener, port, text) = open();
    for (addr, verdict) in [
        (
            "[fe80::2]:29999",
            "fails with EINVAL: the address means nothing without an interface",
        ),
        ("[ff05::1]:29999", "fails with EINVAL: tcp has no multicast"),
        ("203.0.113.7:29999", "is free: a bind succeeds"),
    ] {
        let answer = who(&[addr, "-t", "--proc-root", "/proc"]).output().unwrap();
        let (_, answer, said) = outcome(answer);
        assert!(answer.contains(verdict), "{answer}");
        let told = "the kernel's default settings, if the machine has that address";
        assert!(said.contains(told), "{said}");
    }
    let (code, ..) = outcome(who(&[&text, "--interval", "1s"]).output().unwrap());
    assert_eq!(code, Some(2));
    let polling = ["--proc-root", "/proc", "--wait", "--interval", "20ms"];
    let args = [&[text.as_str(), "-t", "-o", "json"], &polling[..]].concat();
    let mut child = who(&args).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let answer = next();
    let server = &answer["protocols"][0]["servers"][0];
    assert_eq!(server["pid"], std::process::id());
    // Here it may be another than there.
    assert_eq!(server.get("user"), None);
    let here = who(&[&text, "-t", "-o", "json"]).output().unwrap();
    let here: Value = serde_json::from_slice(&here.stdout).unwrap();
    let started = |server: &Value| -> jiff::Timestamp {
        server["started"].as_str().unwrap().parse().unwrap()
    };
    let apart = started(server) - started(&here["protocols"][0]["servers"][0]);
    assert!(apart.get_seconds().abs() <= 2, "{server}");
    let limits = answer["limits"].to_string();
    let told = "what becomes of a bind is told for a process with privileges";
    assert!(limits.contains(told), "{limits}");
    drop(listener);
    let freed = next();
    assert_eq!(
        (&freed["event"], &freed["lport"], &freed["origin"]),
        (&"close".into(), &port.into(), &"poll".into())
    );
    // SAFETY: no memory involved; the child is not waited for yet.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
