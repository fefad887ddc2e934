//! Sockets that serve together, which are one row.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use super::elsewhere::Elsewhere;
use super::{prints, rows};

pub fn group() {
    let first = member(Protocol::TCP, 0, 1).unwrap();
    let port = port_of(&first);
    let _others = [port, port].map(|port| member(Protocol::TCP, port, 1).unwrap());
    let rows = rows(&["-P", &port.to_string(), "-o", "json"]);
    let [row] = &rows[..] else {
        panic!("not one row: {rows:?}")
    };
    let socks: std::collections::BTreeSet<u64> = (row["holders"].as_array().unwrap().iter())
        .map(|holder| {
            assert_eq!(holder["pid"], std::process::id());
            holder["sock"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(socks.len(), 3, "{row}");
    assert_eq!((row.get("sock"), row.get("inode")), (None, None));
}

pub fn workers() {
    workers_of(Protocol::TCP);
}

pub fn mptcp_workers() {
    match member(Protocol::MPTCP, 0, 1) {
        Ok(_) => workers_of(Protocol::MPTCP),
        Err(error) => eprintln!("NOT RUN: no mptcp on this kernel: {error}"),
    }
}

fn workers_of(proto: Protocol) {
    const WAITING: usize = 4;
    let first = member(proto, 0, 1).unwrap();
    let port = port_of(&first);
    let workers = [4, 5, 6].map(|backlog| worker(proto, port, backlog));
    drop(first);
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let _clients: Vec<TcpStream> = (0..WAITING)
        .map(|_| TcpStream::connect(addr).unwrap())
        .collect();
    let mut pids = workers.each_ref().map(|x| x.0.id());
    pids.sort_unstable();
    let port = port.to_string();
    for source in [
        &[][..],
        &["--proc-root", "/proc"],
        &["--from", "poll", "-d", "100ms"],
    ] {
        let rows = rows(&[&["list", "-P", &port, "-o", "json"], source].concat());
        let [row] = &rows[..] else {
            panic!("{source:?}: not one row: {rows:?}")
        };
        let holders: Vec<&Value> = (row["holders"].as_array().unwrap().iter())
            .map(|holder| &holder["pid"])
            .collect();
        assert_eq!(holders, pids, "{source:?}");
        assert_eq!(row["pid"], pids[0], "{source:?}");
        assert_eq!(row["ppid"], std::process::id(), "{source:?}");
        assert_eq!(row["recv_queue"], WAITING, "{source:?}");
        // /proc does not tell it
        if !source.contains(&"--proc-root") {
            let room = (&row["backlog"], &row["send_queue"]);
            assert_eq!(room, (&15.into(), &15.into()), "{source:?}");
        }
    }
    let answer = prints(&["who", &port, "-t"]);
    let owner = format!("{port}/tcp: sleep (pid {}, ", pids[0]);
    assert!(answer.starts_with(&owner), "{answer}");
    assert!(
        answer.contains(" 4 of 15 wait to be accepted\n"),
        "{answer}"
    );
}

/// A process with a socket of a group, which it never accepts from.
fn worker(proto: Protocol, port: u16, backlog: i32) -> Elsewhere {
    let mut command = Command::new("sleep");
    command.arg("600").stdout(Stdio::null());
    command.stderr(Stdio::null());
    let listen = move || {
        let socket = member(proto, port, backlog)?;
        socket.set_cloexec(false)?;
        // open until the process ends
        std::mem::forget(socket);
        Ok(())
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { command.pre_exec(listen) };
    Elsewhere(command.spawn().unwrap())
}

/// A socket of a group.
fn member(proto: Protocol, port: u16, backlog: i32) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(proto))?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

fn port_of(socket: &Socket) -> u16 {
    socket.local_addr().unwrap().as_socket().unwrap().port()
}
