//! What `who` says about binds, against what the kernel does: real sockets are opened, then every kind of
//! bind is really tried. In a network namespace of its own as root, so that nothing else has ports.

mod alone;
mod elsewhere;
mod promises;

use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use portwatch::bind::{Attempt, invalid, obstacles};
use portwatch::device::Device;
use portwatch::event::Proto;
use portwatch::machine::refusal;
use portwatch::port::Bind;
use portwatch::row::{Row, State};
use portwatch::snapshot::{Options, take};
use socket2::{Domain, Protocol, Socket, Type};

use alone::own_network;
use elsewhere::listener_elsewhere;
use promises::{root, run};

/// What is tried on every port: an address, and whether for IPv6 only.
const ATTEMPTS: [(&str, bool); 8] = [
    ("127.0.0.1", false),
    ("127.0.0.2", false),
    ("0.0.0.0", false),
    ("::1", false),
    ("::ffff:127.0.0.1", false),
    ("::", false),
    ("::", true),
    ("::ffff:127.0.0.2", false),
];

fn main() {
    let root = root();
    if root.is_none() {
        own_network();
    }
    run(
        &[
            (
                "a_listener_stops_what_the_kernel_says_it_stops",
                None,
                listeners,
            ),
            ("an_mptcp_listener_has_a_tcp_port", None, mptcp),
            (
                "a_udp_socket_stops_what_the_kernel_says_it_stops",
                None,
                udp,
            ),
            (
                "what_is_bound_but_does_not_listen_stops_binds_too",
                None,
                bound,
            ),
            ("a_connection_left_by_its_listener_stops_some", None, orphan),
            (
                "time_wait_stops_only_binds_without_so_reuseaddr",
                None,
                time_wait,
            ),
            (
                "sockets_of_no_listener_without_so_reuseaddr_stop_all",
                None,
                no_reuse,
            ),
            (
                "a_connection_of_ipv6_may_stop_the_wildcard_of_ipv4",
                None,
                ipv6_connections,
            ),
            ("a_free_port_is_free", None, free),
            (
                "another_namespace_has_ports_of_its_own",
                root,
                other_namespace,
            ),
            (
                "sockets_of_other_devices_of_the_namespace_are_not_in_the_way",
                root,
                devices,
            ),
            (
                "multicast_and_broadcast_are_bound_as_the_kernel_has_it",
                None,
                multicast,
            ),
            (
                "an_address_that_is_not_here_cannot_be_bound_unless_the_namespace_allows_it",
                root,
                addresses,
            ),
        ],
        // A port that one has just freed must not be picked by another.
        true,
    )
}

fn netns() -> Option<u32> {
    let inode = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    Some(u32::try_from(inode).unwrap())
}

/// A bound socket.
fn open(
    proto: Protocol,
    addr: IpAddr,
    port: u16,
    v6only: bool,
    reuse: bool,
) -> std::io::Result<Socket> {
    open_on(None, proto, addr, port, v6only, reuse)
}

/// The same, bound to a device.
fn open_on(
    device: Option<&str>,
    proto: Protocol,
    addr: IpAddr,
    port: u16,
    v6only: bool,
    reuse: bool,
) -> std::io::Result<Socket> {
    let kind = match proto {
        Protocol::UDP => Type::DGRAM,
        _ => Type::STREAM,
    };
    let socket = Socket::new(
        Domain::for_address(SocketAddr::new(addr, port)),
        kind,
        Some(proto),
    )?;
    if addr.is_ipv6() {
        socket.set_only_v6(v6only)?;
    }
    socket.set_reuse_address(reuse)?;
    socket.bind_device(device.map(str::as_bytes))?;
    socket.bind(&SocketAddr::new(addr, port).into())?;
    Ok(socket)
}

/// The same at a port that the kernel picks, with SO_REUSEADDR for tcp as servers have it.
fn server(proto: Protocol, addr: &str, v6only: bool) -> (Socket, u16) {
    let reuse = proto != Protocol::UDP;
    let socket = open(proto, addr.parse().unwrap(), 0, v6only, reuse).unwrap();
    let port = port_of(&socket);
    (socket, port)
}

fn port_of(socket: &Socket) -> u16 {
    socket.local_addr().unwrap().as_socket().unwrap().port()
}

fn snapshot() -> Vec<Row> {
    let options = Options {
        holders: true,
        ..Options::default()
    };
    take(&options).unwrap().rows
}

/// Compares forecast and truth for every kind of bind to this port, with and without SO_REUSEADDR.
fn check(proto: Protocol, port: u16, situation: &str) {
    let rows = snapshot();
    let all_free = ATTEMPTS
        .iter()
        .all(|&(addr, v6only)| compare(&rows, proto, addr, v6only, port, situation));
    assert_eq!(all_free, situation == "free", "{situation}");
}

/// Whether it would succeed.
fn compare(
    rows: &[Row],
    proto: Protocol,
    addr: &str,
    v6only: bool,
    port: u16,
    situation: &str,
) -> bool {
    compare_on(None, rows, proto, (addr, v6only), port, situation)
}

/// The same of a bind on a device.
fn compare_on(
    device: Option<&str>,
    rows: &[Row],
    proto: Protocol,
    (addr, v6only): (&str, bool),
    port: u16,
    situation: &str,
) -> bool {
    let tcp = proto == Protocol::TCP;
    let addr: IpAddr = addr.parse().unwrap();
    let attempt = Attempt {
        proto: if tcp { Proto::Tcp } else { Proto::Udp },
        addr,
        port,
        device: device.and_then(|name| Device::new(name.as_bytes())),
        v6only,
        netns: netns(),
    };
    let forecast = Bind {
        attempt,
        refusal: refusal(attempt.proto, addr, attempt.device),
        denied: false,
        obstacles: obstacles(&attempt, rows),
        left: Vec::new(),
    };
    let truth = |reuse| match open_on(device, proto, addr, port, v6only, reuse) {
        Ok(_) => None,
        Err(error) => match error.raw_os_error() {
            Some(libc::EADDRINUSE) => Some("EADDRINUSE"),
            Some(libc::EADDRNOTAVAIL) => Some("EADDRNOTAVAIL"),
            Some(libc::EINVAL) => Some("EINVAL"),
            Some(libc::ENODEV) => Some("ENODEV"),
            _ => panic!("{situation}: {addr}: {error}"),
        },
    };
    let what =
        format!("{situation}: a bind to {addr} on {device:?}, v6only {v6only}: {forecast:#?}");
    for reuse in [false, true] {
        let truth = truth(reuse);
        // No error may come where none was foretold, and none may stay away that is certain.
        if truth.is_some() || forecast.only_if(reuse).is_empty() {
            assert_eq!(forecast.error(), truth, "with reuse {reuse}, {what}");
        }
    }
    let unknown = addr.is_ipv4() && addr.is_unspecified();
    assert!(unknown || forecast.only_if(false).is_empty(), "{what}");
    forecast.error().is_none()
}

const ADDRS: [(&str, bool); 6] = [
    ("127.0.0.1", false),
    ("0.0.0.0", false),
    ("::1", false),
    ("::ffff:127.0.0.1", false),
    ("::", false),
    ("::", true),
];

fn listeners() {
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

fn mptcp() {
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

fn udp() {
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

fn bound() {
    // sock_diag tells of them since Linux 6.8
    let (_socket, port) = server(Protocol::TCP, "127.0.0.1", false);
    if !snapshot().iter().any(|row| row.event.lport == Some(port)) {
        eprintln!("NOT RUN: this kernel does not tell of sockets that are only bound");
        return;
    }
    check(Protocol::TCP, port, "bound, not listening");
}

/// Listener, the connection as the server has it, and as the client has it.
fn connection() -> (Socket, Socket, TcpStream, u16) {
    let (listener, port) = server(Protocol::TCP, "127.0.0.1", false);
    listener.listen(1).unwrap();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    (listener, accepted, client, port)
}

fn orphan() {
    let (listener, _accepted, _client, port) = connection();
    drop(listener);
    check(Protocol::TCP, port, "a connection without its listener");
}

fn time_wait() {
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

fn no_reuse() {
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

fn ipv6_connections() {
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

fn free() {
    for proto in [Protocol::TCP, Protocol::UDP] {
        let (socket, port) = server(proto, "127.0.0.1", false);
        drop(socket);
        check(proto, port, "free");
    }
}

fn other_namespace() {
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

fn devices() {
    // Both ends have the same address of the link, as different links may.
    let script = "ip link add pw0 type veth peer name pw1 && \
                  ip link set pw0 up && ip link set pw1 up && \
                  ip addr add 192.0.2.1/24 dev pw0 && \
                  ip addr add fe80::1/64 dev pw0 nodad && ip addr add fe80::1/64 dev pw1 nodad";
    let made = Command::new("sh").args(["-c", script]).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("NOT RUN: no pair of devices can be made here");
        return;
    }
    const DEVICES: [Option<&str>; 4] = [None, Some("lo"), Some("pw0"), Some("pw1")];
    let tries = || {
        let addrs = ATTEMPTS.into_iter();
        addrs.chain([("192.0.2.1", false), ("fe80::1", false)])
    };
    let check = |proto, port, situation: &str| {
        let rows = snapshot();
        for device in DEVICES.into_iter().chain([Some("pw9")]) {
            for what in tries() {
                compare_on(device, &rows, proto, what, port, situation);
            }
        }
        rows
    };
    for proto in [Protocol::TCP, Protocol::UDP] {
        let tcp = proto == Protocol::TCP;
        for device in DEVICES {
            for (addr, v6only) in tries() {
                let at = addr.parse().unwrap();
                // Some addresses are not on that device.
                let Ok(socket) = open_on(device, proto, at, 0, v6only, tcp) else {
                    continue;
                };
                if tcp {
                    socket.listen(1).unwrap();
                }
                let situation = format!("a server at {addr} on {device:?}, v6only {v6only}");
                let port = port_of(&socket);
                let rows = check(proto, port, &situation);
                let row = rows.iter().find(|row| row.event.lport == Some(port));
                let told = row.unwrap().device;
                let told = told.as_ref().map(Device::text);
                assert_eq!(told.as_deref(), device, "{situation}");
            }
        }
    }
    // One that only the address binds to a device.
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
    let at = SocketAddrV6::new("fe80::1".parse().unwrap(), 0, 0, index_of(c"pw1"));
    socket.bind(&at.into()).unwrap();
    check(Protocol::UDP, port_of(&socket), "udp at fe80::1%pw1");
    // What a listener accepts is bound as it is.
    let local = "127.0.0.1".parse().unwrap();
    let listener = open_on(Some("lo"), Protocol::TCP, local, 0, false, true).unwrap();
    listener.listen(1).unwrap();
    let port = port_of(&listener);
    let _client = TcpStream::connect((local, port)).unwrap();
    let _accepted = listener.accept().unwrap();
    drop(listener);
    check(Protocol::TCP, port, "a connection on lo");
}

fn index_of(name: &std::ffi::CStr) -> u32 {
    // SAFETY: the name ends with a NUL.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

fn multicast() {
    // Whether tcp and udp can be bound there.
    for (addr, tcp, udp) in [
        ("224.0.0.1", true, true),
        ("255.255.255.255", true, true),
        ("127.255.255.255", true, true),
        ("::ffff:224.0.0.1", true, true),
        ("ff0e::1", false, true),
        ("ff05::1", false, true),
        // of a link, but of which
        ("ff01::1", false, false),
        ("ff02::1", false, false),
        ("fe80::1", false, false),
    ] {
        for (proto, succeeds) in [(Protocol::TCP, tcp), (Protocol::UDP, udp)] {
            let (socket, port) = server(proto, "127.0.0.1", false);
            drop(socket);
            let told = if proto == Protocol::TCP {
                Proto::Tcp
            } else {
                Proto::Udp
            };
            let ip = addr.parse().unwrap();
            assert_eq!(invalid(told, ip, None), refusal(told, ip, None), "{addr}");
            let got = compare(&snapshot(), proto, addr, false, port, "free");
            assert_eq!(got, succeeds, "{addr}");
            if !succeeds {
                continue;
            }
            let (socket, port) = server(proto, addr, false);
            if proto == Protocol::TCP {
                socket.listen(1).unwrap();
            }
            let rows = snapshot();
            for other in [addr, "0.0.0.0", "::", "127.0.0.1"] {
                compare(&rows, proto, other, false, port, "taken");
            }
            assert!(!compare(&rows, proto, addr, false, port, "taken"), "{addr}");
        }
    }
}

fn addresses() {
    // Whether it can be bound here, and after the setting as well.
    const ADDRS: [(&str, bool); 6] = [
        ("127.9.8.7", true),
        ("0.0.0.0", true),
        ("224.0.0.1", true),
        ("203.0.113.7", false),
        ("::ffff:203.0.113.7", false),
        ("2001:db8::7", false),
    ];
    let set = |family: &str, value: &str| {
        let file = format!("/proc/sys/net/{family}/ip_nonlocal_bind");
        std::fs::write(file, value).unwrap();
    };
    for nonlocal in [false, true] {
        for family in ["ipv4", "ipv6"] {
            set(family, if nonlocal { "1" } else { "0" });
        }
        for proto in [Protocol::TCP, Protocol::UDP] {
            let (socket, port) = server(proto, "127.0.0.1", false);
            drop(socket);
            for (addr, here) in ADDRS {
                let situation = format!("free, ip_nonlocal_bind {nonlocal}");
                let succeeds = compare(&snapshot(), proto, addr, false, port, &situation);
                assert_eq!(succeeds, here || nonlocal, "{situation}: {addr}");
            }
        }
    }
    set("ipv4", "0");
    set("ipv6", "0");
}
