//! Addresses and devices that are not like others.

use std::net::{SocketAddrV6, TcpStream};
use std::process::Command;

use portwatch::bind::invalid;
use portwatch::device::Device;
use portwatch::event::Proto;
use portwatch::machine::refusal;
use socket2::{Domain, Protocol, Socket, Type};

use super::attempts::{ATTEMPTS, compare, compare_on, open_on, port_of, server, snapshot};

pub fn devices() {
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

pub fn multicast() {
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

pub fn addresses() {
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
