//! Whether a bind would succeed now, and what is in its way: the rules of the kernel
//! (inet_csk_bind_conflict and inet_rcv_saddr_equal in net/ipv4/inet_connection_sock.c,
//! udp_lib_get_port in net/ipv4/udp.c), applied to rows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::device::Device;
use crate::event::{Family, Proto};
use crate::row::{Row, State};

/// A bind that might be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Tcp (mptcp shares its ports) or udp.
    pub proto: Proto,
    pub addr: IpAddr,
    pub port: u16,
    /// The network device that the socket is bound to before.
    pub device: Option<Device>,
    /// Whether `::` is meant for IPv6 only, which matters for no other address.
    pub v6only: bool,
    pub netns: Option<u32>,
}

/// A socket that a bind runs into.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Obstacle<'a> {
    pub row: &'a Row,
    pub overlap: Overlap,
    /// Whether it serves, or else only stops a bind unless both have set SO_REUSEADDR, as connections do,
    /// also those in TIME-WAIT. Nobody tells whether they have.
    pub hard: bool,
}

/// Why the kernel refuses an address whatever sockets there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// EADDRNOTAVAIL: this machine does not have it.
    Foreign,
    /// EINVAL: one of IPv6 that is multicast, with tcp, or that only means something on an interface.
    Invalid,
    /// ENODEV: this network namespace has no such device.
    NoDevice,
}

impl Refusal {
    /// Name of the error.
    pub fn error(self) -> &'static str {
        match self {
            Refusal::Foreign => "EADDRNOTAVAIL",
            Refusal::Invalid => "EINVAL",
            Refusal::NoDevice => "ENODEV",
        }
    }
}

/// Why no machine's kernel binds to an address with this protocol, on this device.
pub fn invalid(proto: Proto, addr: IpAddr, device: Option<Device>) -> Option<Refusal> {
    let IpAddr::V6(addr) = addr else { return None };
    // __ipv6_addr_needs_scope_id: of a link, and multicast that stays on the interface.
    let on_interface = match addr.octets() {
        [0xff, scope, ..] => matches!(scope & 0xf, 1 | 2),
        _ => addr.is_unicast_link_local(),
    };
    let of_tcp = addr.is_multicast() && ports_of(proto) == Proto::Tcp;
    (of_tcp || on_interface && device.is_none()).then_some(Refusal::Invalid)
}

/// How two addresses get into each other's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    Same,
    /// The socket has a wildcard address, which includes ours.
    TheirWildcard,
    /// Ours is a wildcard, which includes that of the socket.
    OurWildcard,
    /// The socket has the address `::` and includes ours unless it is for IPv6 only, which nobody told.
    PerhapsTheirWildcard,
    /// Ours is 0.0.0.0, and the socket is a connection of IPv6. Unless it is for IPv6 only, which nobody
    /// tells of connections, it also has an address of IPv4 for the kernel (LOOPBACK4_IPV6).
    PerhapsOurWildcard,
}

impl Overlap {
    /// Whether they get there for sure.
    pub fn is_certain(self) -> bool {
        !matches!(
            self,
            Overlap::PerhapsTheirWildcard | Overlap::PerhapsOurWildcard
        )
    }
}

/// The sockets in the way of a bind. Rows of other network namespaces never are.
pub fn obstacles<'a>(attempt: &Attempt, rows: &'a [Row]) -> Vec<Obstacle<'a>> {
    let mut found: Vec<Obstacle<'a>> = (rows.iter())
        .filter(|row| row.event.lport == Some(attempt.port))
        .filter(|row| row.event.netns == attempt.netns)
        .filter(|row| row.event.proto.map(ports_of) == Some(ports_of(attempt.proto)))
        .filter(|row| may_meet(attempt.device, row.device))
        .filter_map(|row| {
            Some(Obstacle {
                row,
                overlap: overlap(attempt, row)?,
                hard: attempt.proto == Proto::Udp || row.state == State::Listen,
            })
        })
        .collect();
    // Those that serve first, and their processes in one order whatever the order of the rows.
    found.sort_by_key(|x| (!x.hard, x.row.event.pid.unwrap_or(u32::MAX)));
    found
}

/// The protocol whose ports a protocol uses.
pub fn ports_of(proto: Proto) -> Proto {
    match proto {
        Proto::Mptcp => Proto::Tcp,
        other => other,
    }
}

/// Whether sockets bound to these devices may be in each other's way: one without has a part in all.
pub fn may_meet(a: Option<Device>, b: Option<Device>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// What a socket covers of one family's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cover<T> {
    Nothing,
    One(T),
    All,
    /// All, unless it is for IPv6 only.
    PerhapsAll,
}

fn overlap(attempt: &Attempt, row: &Row) -> Option<Overlap> {
    let family = match attempt.addr {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    };
    let ours = covers(family, attempt.addr, Some(attempt.v6only));
    let theirs = covers(row.event.family?, row.event.laddr?, row.v6only);
    let found = [
        meet(ours.0, theirs.0),
        meet(ours.1, theirs.1),
        stand_in(attempt, row),
    ];
    // One that is certain is the reason, also where another may be.
    let found = found.into_iter().flatten();
    found.min_by_key(|overlap| !overlap.is_certain())
}

/// Of a connection of IPv6 that has an address of IPv4 only for the kernel. What was bound to an address of
/// IPv6 is for IPv6 only, whatever its process wants (__inet6_bind) and, with mptcp, sock_diag says; so that has none.
fn stand_in(attempt: &Attempt, row: &Row) -> Option<Overlap> {
    let theirs = row.event.laddr.is_some_and(|addr| addr.is_ipv6());
    let connected = row.event.rport.is_some();
    if attempt.addr != IpAddr::V4(Ipv4Addr::UNSPECIFIED) || !theirs || !connected {
        return None;
    }
    match row.v6only {
        Some(true) => None,
        Some(false) => Some(Overlap::OurWildcard),
        None => Some(Overlap::PerhapsOurWildcard),
    }
}

/// Of IPv4 and of IPv6.
fn covers(
    family: Family,
    addr: IpAddr,
    v6only: Option<bool>,
) -> (Cover<Ipv4Addr>, Cover<Ipv6Addr>) {
    let v4 = |addr: Ipv4Addr| match addr.is_unspecified() {
        true => Cover::All,
        false => Cover::One(addr),
    };
    match (family, addr) {
        (Family::Ipv6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => {
            let v4 = match v6only {
                Some(true) => Cover::Nothing,
                Some(false) => Cover::All,
                None => Cover::PerhapsAll,
            };
            (v4, Cover::All)
        }
        // a v4-mapped one is shown as what it stands for
        (_, IpAddr::V4(addr)) => (v4(addr), Cover::Nothing),
        (_, IpAddr::V6(addr)) => match addr.to_ipv4_mapped() {
            Some(addr) => (v4(addr), Cover::Nothing),
            None => (Cover::Nothing, Cover::One(addr)),
        },
    }
}

fn meet<T: PartialEq>(ours: Cover<T>, theirs: Cover<T>) -> Option<Overlap> {
    use Cover::*;
    match (ours, theirs) {
        (Nothing, _) | (_, Nothing) => None,
        (One(a), One(b)) => (a == b).then_some(Overlap::Same),
        (_, PerhapsAll) => Some(Overlap::PerhapsTheirWildcard),
        (One(_), All) => Some(Overlap::TheirWildcard),
        (_, One(_)) => Some(Overlap::OurWildcard),
        (_, All) => Some(Overlap::Same),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// Whether a bind to `ours` runs into a listener at `theirs`; `6only` and `?` say which kind of
    /// `::` that is.
    fn check(ours: &str, theirs: &str, expected: Option<Overlap>) {
        let (ours, our_v6only) = match ours.strip_suffix(" 6only") {
            Some(addr) => (addr, true),
            None => (ours, false),
        };
        let (addr, v6only) = match theirs.split_once(' ') {
            Some((addr, "6only")) => (addr, Some(true)),
            Some((addr, _)) => (addr, None),
            // what is bound to one address of IPv6 is for IPv6 only
            None => (theirs, Some(theirs != "::")),
        };
        let addr: IpAddr = addr.parse().unwrap();
        let row = Row {
            v6only,
            ..Row::server(Proto::Tcp, &SocketAddr::new(addr, 80).to_string(), 1, "x")
        };
        let attempt = Attempt {
            proto: Proto::Mptcp,
            addr: ours.parse().unwrap(),
            port: 80,
            device: None,
            v6only: our_v6only,
            netns: Some(1),
        };
        let rows = [row];
        let got = obstacles(&attempt, &rows);
        assert_eq!(
            got.first().map(|x| x.overlap),
            expected,
            "{ours} on {theirs}"
        );
    }

    #[test]
    fn addresses_overlap_as_the_kernel_has_it() {
        use Overlap::*;
        for (ours, theirs, expected) in [
            ("127.0.0.1", "127.0.0.1", Some(Same)),
            ("127.0.0.1", "127.0.0.2", None),
            ("0.0.0.0", "127.0.0.1", Some(OurWildcard)),
            ("127.0.0.1", "0.0.0.0", Some(TheirWildcard)),
            ("0.0.0.0", "0.0.0.0", Some(Same)),
            // a dual-stack wildcard has IPv4 as well
            ("127.0.0.1", "::", Some(TheirWildcard)),
            ("0.0.0.0", "::", Some(Same)),
            ("::", "127.0.0.1", Some(OurWildcard)),
            ("::", "0.0.0.0", Some(Same)),
            ("0.0.0.0", "::1", None),
            // one for IPv6 only has not
            ("0.0.0.0", ":: 6only", None),
            (":: 6only", "0.0.0.0", None),
            (":: 6only", "127.0.0.1", None),
            ("::", ":: 6only", Some(Same)),
            (":: 6only", "::", Some(Same)),
            ("::1", ":: 6only", Some(TheirWildcard)),
            ("127.0.0.1", ":: ?", Some(PerhapsTheirWildcard)),
            ("::", ":: ?", Some(Same)),
            ("::1", ":: ?", Some(TheirWildcard)),
            ("::1", "::1", Some(Same)),
            ("::1", "127.0.0.1", None),
            ("::ffff:127.0.0.1", "127.0.0.1", Some(Same)),
        ] {
            check(ours, theirs, expected);
        }
    }

    #[test]
    fn other_ports_protocols_and_namespaces_are_not_in_the_way() {
        let attempt = Attempt {
            proto: Proto::Tcp,
            addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 80,
            device: None,
            v6only: false,
            netns: Some(1),
        };
        let elsewhere = {
            let mut row = Row::server(Proto::Tcp, "0.0.0.0:80", 1, "x");
            row.event.netns = Some(2);
            row
        };
        let rows = [
            elsewhere,
            Row::server(Proto::Udp, "0.0.0.0:80", 1, "x"),
            Row::server(Proto::Tcp, "0.0.0.0:81", 1, "x"),
        ];
        assert_eq!(obstacles(&attempt, &rows), []);
    }

    #[test]
    fn only_sockets_that_share_a_device_meet() {
        for (ours, theirs, meet) in [
            (None, None, true),
            (None, Some("eth0"), true),
            (Some("eth0"), None, true),
            (Some("eth0"), Some("eth0"), true),
            (Some("eth0"), Some("eth1"), false),
        ] {
            let device = |name: Option<&str>| Device::new(name?.as_bytes());
            let attempt = Attempt {
                proto: Proto::Udp,
                addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                port: 53,
                device: device(ours),
                v6only: false,
                netns: Some(1),
            };
            let rows = [Row {
                device: device(theirs),
                ..Row::server(Proto::Udp, "127.0.0.53:53", 1, "x")
            }];
            let got = obstacles(&attempt, &rows);
            assert_eq!(got.len(), usize::from(meet), "{ours:?}, {theirs:?}");
        }
    }

    #[test]
    fn a_connection_of_ipv6_may_stop_the_wildcard_of_ipv4() {
        let connection = |local: &str, v6only| Row {
            v6only,
            ..Row::connection(State::Estab, local, "[::1]:4000", 1, "x")
        };
        for (ours, row, expected) in [
            (
                "0.0.0.0",
                connection("[::1]:80", None),
                Some(Overlap::PerhapsOurWildcard),
            ),
            (
                "0.0.0.0",
                connection("[::1]:80", Some(false)),
                Some(Overlap::OurWildcard),
            ),
            ("0.0.0.0", connection("[::1]:80", Some(true)), None),
            ("127.0.0.1", connection("[::1]:80", None), None),
            (
                "::",
                connection("[::1]:80", None),
                Some(Overlap::OurWildcard),
            ),
            (
                "0.0.0.0",
                connection("127.0.0.1:80", None),
                Some(Overlap::OurWildcard),
            ),
            // what was bound to ::1 is for IPv6 only, though sock_diag says otherwise of mptcp
            (
                "0.0.0.0",
                Row {
                    v6only: Some(false),
                    ..Row::server(Proto::Mptcp, "[::1]:80", 1, "x")
                },
                None,
            ),
        ] {
            let attempt = Attempt {
                proto: Proto::Tcp,
                addr: ours.parse().unwrap(),
                port: 80,
                device: None,
                v6only: false,
                netns: Some(1),
            };
            let rows = [row];
            let got = obstacles(&attempt, &rows);
            assert_eq!(got.first().map(|x| x.overlap), expected, "{ours}: {rows:?}");
        }
    }

    #[test]
    fn only_a_listener_stops_a_tcp_bind_with_so_reuseaddr() {
        let attempt = Attempt {
            proto: Proto::Tcp,
            addr: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 80,
            device: None,
            v6only: false,
            netns: Some(1),
        };
        let rows = [
            Row::server(Proto::Mptcp, "0.0.0.0:80", 1, "x"),
            Row::connection(State::TimeWait, "127.0.0.1:80", "127.0.0.1:4000", 1, "x"),
        ];
        let hard: Vec<bool> = obstacles(&attempt, &rows).iter().map(|x| x.hard).collect();
        assert_eq!(hard, [true, false]);
    }
}
