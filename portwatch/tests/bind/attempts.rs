//! What is tried on every port, and compared with what was foretold.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;

use portwatch::bind::{Attempt, obstacles};
use portwatch::device::Device;
use portwatch::event::Proto;
use portwatch::machine::refusal;
use portwatch::port::Bind;
use portwatch::row::Row;
use portwatch::snapshot::{Options, take};
use socket2::{Domain, Protocol, Socket, Type};

/// What is tried on every port: an address, and whether for IPv6 only.
pub const ATTEMPTS: [(&str, bool); 8] = [
    ("127.0.0.1", false),
    ("127.0.0.2", false),
    ("0.0.0.0", false),
    ("::1", false),
    ("::ffff:127.0.0.1", false),
    ("::", false),
    ("::", true),
    ("::ffff:127.0.0.2", false),
];

/// Compares forecast and truth for every kind of bind to this port, with and without SO_REUSEADDR.
pub fn check(proto: Protocol, port: u16, situation: &str) {
    let rows = snapshot();
    let all_free = ATTEMPTS
        .iter()
        .all(|&(addr, v6only)| compare(&rows, proto, addr, v6only, port, situation));
    assert_eq!(all_free, situation == "free", "{situation}");
}

/// Whether it would succeed.
pub fn compare(
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
pub fn compare_on(
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

/// A bound socket.
pub fn open(
    proto: Protocol,
    addr: IpAddr,
    port: u16,
    v6only: bool,
    reuse: bool,
) -> std::io::Result<Socket> {
    open_on(None, proto, addr, port, v6only, reuse)
}

/// The same, bound to a device.
pub fn open_on(
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
pub fn server(proto: Protocol, addr: &str, v6only: bool) -> (Socket, u16) {
    let reuse = proto != Protocol::UDP;
    let socket = open(proto, addr.parse().unwrap(), 0, v6only, reuse).unwrap();
    let port = port_of(&socket);
    (socket, port)
}

pub fn port_of(socket: &Socket) -> u16 {
    socket.local_addr().unwrap().as_socket().unwrap().port()
}

pub fn snapshot() -> Vec<Row> {
    let options = Options {
        holders: true,
        ..Options::default()
    };
    take(&options).unwrap().rows
}

pub fn netns() -> Option<u32> {
    let inode = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    Some(u32::try_from(inode).unwrap())
}
