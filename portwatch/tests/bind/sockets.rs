//! Sockets that are bound, and ports that nobody has.

use std::net::SocketAddr;

use socket2::Protocol;

use super::attempts::{check, netns, open, port_of, server, snapshot};
use super::elsewhere::listener_elsewhere;

const ADDRS: [(&str, bool); 6] = [
    ("127.0.0.1", false),
    ("0.0.0.0", false),
    ("::1", false),
    ("::ffff:127.0.0.1", false),
    ("::", false),
    ("::", true),
];

pub fn listeners() {
    for (addr, v6only) in ADDRS {
        let (socket, port) = server(Protocol::TCP, addr, v6only);
        socket.listen(1).unwrap();
        check(
            Protocol::TCP,
            port,
            &format!("a listener at {addr}, v6only {v6only}"),
        );
    }
}

pub fn mptcp() {
    for (addr, v6only) in ADDRS {
        let socket = match open(Protocol::MPTCP, addr.parse().unwrap(), 0, v6only, true) {
            Ok(socket) => socket,
            Err(error) => {
                eprintln!("NOT RUN: no mptcp on this kernel: {error}");
                return;
            }
        };
        socket.listen(1).unwrap();
        let situation = format!("an mptcp listener at {addr}, v6only {v6only}");
        check(Protocol::TCP, port_of(&socket), &situation);
    }
}

pub fn udp() {
    for (addr, v6only) in ADDRS {
        let (socket, port) = server(Protocol::UDP, addr, v6only);
        check(
            Protocol::UDP,
            port,
            &format!("udp at {addr}, v6only {v6only}"),
        );
        if addr == "127.0.0.1" {
            socket
                .connect(&SocketAddr::new(addr.parse().unwrap(), 9).into())
                .unwrap();
            check(Protocol::UDP, port, "udp with a peer");
        }
    }
}

pub fn bound() {
    // sock_diag tells of them since Linux 6.8
    let (_socket, port) = server(Protocol::TCP, "127.0.0.1", false);
    if !snapshot().iter().any(|row| row.event.lport == Some(port)) {
        eprintln!("NOT RUN: this kernel does not tell of sockets that are only bound");
        return;
    }
    check(Protocol::TCP, port, "bound, not listening");
}

pub fn free() {
    for proto in [Protocol::TCP, Protocol::UDP] {
        let (socket, port) = server(proto, "127.0.0.1", false);
        drop(socket);
        check(proto, port, "free");
    }
}

pub fn other_namespace() {
    let (socket, port) = server(Protocol::TCP, "0.0.0.0", false);
    drop(socket);
    let child = listener_elsewhere(port);
    let rows = snapshot();
    let row = rows.iter().find(|row| row.event.pid == Some(child.0.id()));
    let row = row.expect("it is not in the snapshot");
    assert_eq!(row.event.lport, Some(port));
    assert_ne!(row.event.netns, netns());
    check(Protocol::TCP, port, "free");
}
