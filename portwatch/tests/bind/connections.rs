//! Connections, also after their listener, and what they leave.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use portwatch::row::{Row, State};
use socket2::{Protocol, Socket};

use super::attempts::{check, netns, open, port_of, server, snapshot};

/// Listener, the connection as the server has it, and as the client has it.
fn connection() -> (Socket, Socket, TcpStream, u16) {
    let (listener, port) = server(Protocol::TCP, "127.0.0.1", false);
    listener.listen(1).unwrap();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    (listener, accepted, client, port)
}

pub fn orphan() {
    let (listener, _accepted, _client, port) = connection();
    drop(listener);
    check(Protocol::TCP, port, "a connection without its listener");
}

pub fn time_wait() {
    let (listener, accepted, client, port) = connection();
    drop(listener);
    // who closes first has the TIME-WAIT
    drop(accepted);
    drop(client);
    until_time_wait(port);
    check(Protocol::TCP, port, "TIME-WAIT");
}

fn until_time_wait(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let of_port = |row: &&Row| (row.event.netns, row.event.lport) == (netns(), Some(port));
    while !(snapshot().iter().filter(of_port)).all(|row| row.state == State::TimeWait) {
        assert!(Instant::now() < deadline, "it does not become TIME-WAIT");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn no_reuse() {
    let (listener, at) = server(Protocol::TCP, "127.0.0.1", false);
    listener.listen(2).unwrap();
    let local = "127.0.0.1".parse().unwrap();
    let bound = open(Protocol::TCP, local, 0, false, false).unwrap();
    let own = port_of(&bound);
    bound.connect(&SocketAddr::new(local, at).into()).unwrap();
    check(Protocol::TCP, own, "a client that was bound first");
    let client = TcpStream::connect((local, at)).unwrap();
    let own = client.local_addr().unwrap().port();
    check(
        Protocol::TCP,
        own,
        "a client on a port of the kernel's choice",
    );
}

pub fn ipv6_connections() {
    let wildcard = "0.0.0.0".parse().unwrap();
    // Whether it is for IPv4 as well is the listener's choice, unless it has one address.
    for (addr, v6only, stops) in [
        ("::", false, true),
        ("::", true, false),
        ("::1", false, false),
    ] {
        let (listener, port) = server(Protocol::TCP, addr, v6only);
        listener.listen(1).unwrap();
        let client = TcpStream::connect(("::1", port)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        drop(listener);
        let situation = format!("a connection of a listener at {addr}, v6only {v6only}");
        let is_stopped = || open(Protocol::TCP, wildcard, port, false, false).is_err();
        assert_eq!(is_stopped(), stops, "{situation}");
        check(Protocol::TCP, port, &situation);
        let outgoing = client.local_addr().unwrap().port();
        check(Protocol::TCP, outgoing, "an outgoing connection of IPv6");
        drop(accepted);
        drop(client);
        until_time_wait(port);
        assert_eq!(is_stopped(), stops, "TIME-WAIT of {situation}");
        check(Protocol::TCP, port, &format!("TIME-WAIT of {situation}"));
    }
    let udp = UdpSocket::bind("[::]:0").unwrap();
    udp.connect("[::1]:9").unwrap();
    let port = udp.local_addr().unwrap().port();
    check(Protocol::UDP, port, "udp of IPv6 with a peer");
}
