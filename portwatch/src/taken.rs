//! Who has the port that a bind found taken, those who left it in the last minute included. Sans-IO:
//! takes events, snapshots and the time, which is in nanoseconds since the Unix epoch.

use std::collections::VecDeque;
use std::net::IpAddr;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::event::{Event, Family, Kind, Peer, Proto};
use crate::row::Row;

/// How long those who left are remembered.
const DEPARTED_NS: u64 = 60_000_000_000;
/// Most of them remembered.
const DEPARTED: usize = 65_536;
/// Most of them told of one port, the latest first.
const TOLD: usize = 64;
/// How old a snapshot may be. Taking one costs some milliseconds, and binds may fail by the thousand.
const FRESH_NS: u64 = 1_000_000_000;

/// Ports are taken per network namespace and transport.
type Port = (Option<u32>, Transport, u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Transport {
    Tcp,
    Udp,
    Other(Proto),
}

impl Transport {
    fn of(proto: Proto) -> Self {
        match proto {
            // they share their ports
            Proto::Tcp | Proto::Mptcp => Self::Tcp,
            Proto::Udp => Self::Udp,
            other => Self::Other(other),
        }
    }
}

/// A bound socket that events told of.
#[derive(Clone, Debug)]
struct Binder {
    peer: Peer,
    laddr: Option<IpAddr>,
    since: u64,
    left: Option<u64>,
}

/// A socket of a snapshot.
#[derive(Debug)]
struct Seen {
    sock: Option<u64>,
    laddr: Option<IpAddr>,
    connected: bool,
    /// Not for IPv4 as well.
    v6only: bool,
    holders: Vec<Peer>,
}

/// What events and the latest snapshot tell of ports in use.
#[derive(Debug, Default)]
pub struct Taken {
    binders: FxHashMap<Port, Vec<Binder>>,
    /// Which of them each open socket has.
    ports: FxHashMap<u64, Port>,
    /// When a socket left which port, in order.
    departures: VecDeque<(u64, Port, Option<u64>)>,
    /// Of the latest snapshot while it is fresh.
    seen: FxHashMap<Port, Vec<Seen>>,
    taken_at: Option<u64>,
}

impl Taken {
    /// Takes in an event.
    pub fn note(&mut self, event: &Event) {
        match event.kind {
            _ if event.error.is_some() => {}
            Kind::Bind | Kind::Listen => self.came(event),
            Kind::Close => self.left(event),
            _ => {}
        }
    }

    fn came(&mut self, event: &Event) {
        let (Some(port), Some(pid), Some(comm)) = (port(event), event.pid, &event.comm) else {
            return;
        };
        match event.sock.and_then(|sock| self.ports.insert(sock, port)) {
            Some(before) if before == port => return,
            // A disconnected udp socket gives its port back without an event.
            Some(before) => self.depart(before, event),
            None => {}
        }
        self.binders.entry(port).or_default().push(Binder {
            peer: Peer {
                pid,
                comm: comm.text().into_owned(),
                sock: event.sock,
            },
            laddr: event.laddr,
            since: event.ts,
            left: None,
        });
    }

    fn left(&mut self, event: &Event) {
        if event.rport.is_none() && event.sock.is_some() {
            // Perhaps open before events came; else it is known already.
            self.came(event);
        }
        let known = event.sock.and_then(|sock| self.ports.remove(&sock));
        if let Some(port) = known.or_else(|| port(event)) {
            self.depart(port, event);
        }
    }

    /// The event's socket has this port no more.
    fn depart(&mut self, port: Port, event: &Event) {
        let Some(binders) = self.binders.get_mut(&port) else {
            return;
        };
        let Some(binder) =
            (binders.iter_mut()).find(|x| x.left.is_none() && x.peer.sock == event.sock)
        else {
            return;
        };
        binder.left = Some(event.ts);
        self.departures.push_back((event.ts, port, event.sock));
        while let Some(&(at, port, sock)) = self.departures.front()
            && (self.departures.len() > DEPARTED || event.ts.saturating_sub(at) > DEPARTED_NS)
        {
            self.departures.pop_front();
            self.forget(port, sock);
        }
    }

    fn forget(&mut self, port: Port, sock: Option<u64>) {
        if let Some(binders) = self.binders.get_mut(&port) {
            binders.retain(|x| x.left.is_none() || x.peer.sock != sock);
            if binders.is_empty() {
                self.binders.remove(&port);
            }
        }
    }

    /// Whether a snapshot is needed to tell who has the port that this event could not have. Drops the
    /// latest one when it is too old.
    pub fn needs_snapshot(&mut self, event: &Event) -> bool {
        if (self.taken_at).is_some_and(|at| event.ts.saturating_sub(at) > FRESH_NS) {
            self.taken_at = None;
            self.seen = FxHashMap::default();
        }
        found_taken(event) && self.taken_at.is_none()
    }

    /// A snapshot, taken at `now`.
    pub fn refresh(&mut self, rows: impl IntoIterator<Item = Row>, now: u64) {
        self.taken_at = Some(now);
        for row in rows {
            let Some(port) = port(&row.event) else {
                continue;
            };
            let seen = Seen {
                sock: row.event.sock,
                laddr: row.event.laddr,
                connected: row.event.raddr.is_some(),
                v6only: row.v6only == Some(true),
                holders: row.event.holders.unwrap_or_default(),
            };
            if seen.v6only || !seen.holders.is_empty() {
                self.seen.entry(port).or_default().push(seen);
            }
        }
    }

    /// Puts the holders into a bind that failed with `EADDRINUSE`: those who have the port now, each process
    /// and socket once, but a process only once for all its connections; then those who left it in the last
    /// minute and have it no more.
    pub fn tell(&self, event: &mut Event) {
        let Some(port) = port(event).filter(|_| found_taken(event)) else {
            return;
        };
        let binders = || self.binders.get(&port).into_iter().flatten();
        let seen = || self.seen.get(&port).into_iter().flatten();
        // IPv4 may have the same port.
        let ipv4 = match event.laddr {
            Some(addr) => addr.is_ipv4(),
            None => event.family == Some(Family::Ipv4),
        };
        let (aside, there): (Vec<_>, Vec<_>) = seen().partition(|x| x.v6only && ipv4);
        let socks = |of: &[&Seen]| of.iter().filter_map(|x| x.sock).collect::<FxHashSet<_>>();
        let (aside, known) = (socks(&aside), socks(&there));
        let is_in = |socks: &FxHashSet<u64>, sock: Option<u64>| {
            sock.is_some_and(|sock| socks.contains(&sock))
        };
        let (left, now): (Vec<_>, Vec<_>) = (binders())
            .filter(|x| !is_in(&aside, x.peer.sock) && overlap(x.laddr, event.laddr))
            .partition(|x| x.left.is_some());
        let gone: FxHashSet<u64> = left.iter().filter_map(|x| x.peer.sock).collect();
        let mut holders: Vec<Peer> = Vec::new();
        // Events know cookies, which snapshots of other namespaces may not; so they come first. Who has a socket
        // that the snapshot shows may have passed it on.
        let is_told = |x: &&Binder| {
            !(is_in(&known, x.peer.sock) && self.taken_at.is_some_and(|at| x.since < at))
        };
        for binder in now.into_iter().filter(is_told) {
            add(&mut holders, &binder.peer, false);
        }
        // From a snapshot of a moment ago they may have left since. Connections are only in the way where nothing
        // else of their process is.
        let mut there: Vec<_> = (there.into_iter())
            .filter(|x| !is_in(&gone, x.sock) && overlap(x.laddr, event.laddr))
            .collect();
        there.sort_by_key(|x| x.connected);
        for seen in there {
            let connected = seen.connected;
            (seen.holders.iter()).for_each(|peer| add(&mut holders, peer, connected));
        }
        let most = holders.len() + TOLD;
        for binder in left.iter().rev() {
            let ago = binder.left.map(|at| event.ts.saturating_sub(at));
            if holders.len() < most && ago.is_some_and(|ago| ago <= DEPARTED_NS) {
                add(&mut holders, &binder.peer, true);
            }
        }
        if !holders.is_empty() {
            event.holders = Some(holders);
        }
    }
}

/// Adds a holder unless it is there with this socket, or at all if `once`.
fn add(holders: &mut Vec<Peer>, peer: &Peer, once: bool) {
    let same = |x: &Peer| x.pid == peer.pid && (once || x.sock == peer.sock || peer.sock.is_none());
    if !holders.iter().any(same) {
        holders.push(peer.clone());
    }
}

fn found_taken(event: &Event) -> bool {
    event.kind == Kind::Bind && event.error.map(i32::from) == Some(libc::EADDRINUSE)
}

/// `None` also of a bind that leaves the port open (IP_BIND_ADDRESS_NO_PORT).
fn port(event: &Event) -> Option<Port> {
    let lport = event.lport.filter(|&lport| lport != 0)?;
    Some((event.netns, Transport::of(event.proto?), lport))
}

/// Whether sockets with these addresses may not share a port. A wildcard is every address, that of IPv4 every
/// one of IPv4.
fn overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    let includes = |wildcard: IpAddr, addr: IpAddr| {
        let reaches = wildcard.is_ipv6() || addr.is_ipv4() || addr.is_unspecified();
        wildcard.is_unspecified() && reaches
    };
    match (one, other) {
        (Some(one), Some(other)) => one == other || includes(one, other) || includes(other, one),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Comm, Origin};
    use crate::row::State;

    const SECOND: u64 = 1_000_000_000;

    fn event(kind: Kind, ts: u64, pid: u32, sock: u64, laddr: &str) -> Event {
        let mut comm = [0; 16];
        comm[..2].copy_from_slice(b"nc");
        let mut event = Event::new(kind, Origin::Live, ts);
        event.proto = Some(Proto::Tcp);
        event.netns = Some(1);
        event.laddr = Some(laddr.parse().unwrap());
        event.lport = Some(80);
        event.sock = Some(sock);
        event.pid = Some(pid);
        event.comm = Some(Comm(comm));
        event
    }

    /// Pids and sockets of the holders that a failed bind to this address is told.
    fn holders(taken: &Taken, ts: u64, laddr: &str) -> Vec<(u32, Option<u64>)> {
        let mut failed = event(Kind::Bind, ts, 99, 99, laddr);
        failed.error = Some(libc::EADDRINUSE as u16);
        taken.tell(&mut failed);
        let holders = failed.holders.unwrap_or_default();
        holders.iter().map(|x| (x.pid, x.sock)).collect()
    }

    #[test]
    fn holders_are_those_in_the_way_and_those_who_left_in_the_last_minute() {
        let mut taken = Taken::default();
        taken.note(&event(Kind::Bind, SECOND, 10, 1, "127.0.0.1"));
        taken.note(&event(Kind::Listen, SECOND, 10, 1, "127.0.0.1"));
        taken.note(&event(Kind::Bind, SECOND, 20, 2, "127.0.0.2"));
        assert_eq!(holders(&taken, SECOND, "127.0.0.1"), [(10, Some(1))]);
        assert_eq!(
            holders(&taken, SECOND, "0.0.0.0"),
            [(10, Some(1)), (20, Some(2))]
        );
        taken.note(&event(Kind::Close, 2 * SECOND, 10, 1, "127.0.0.1"));
        taken.note(&event(Kind::Bind, 3 * SECOND, 30, 3, "127.0.0.1"));
        assert_eq!(
            holders(&taken, 3 * SECOND, "127.0.0.1"),
            [(30, Some(3)), (10, Some(1))]
        );
        taken.note(&event(Kind::Close, 70 * SECOND, 30, 3, "127.0.0.1"));
        assert_eq!(holders(&taken, 70 * SECOND, "127.0.0.1"), [(30, Some(3))]);
    }

    #[test]
    fn who_left_is_told_also_when_nothing_told_that_it_came() {
        let mut taken = Taken::default();
        let closed = event(Kind::Close, SECOND, 10, 1, "127.0.0.1");
        let mut connection = event(Kind::Close, SECOND, 11, 2, "127.0.0.1");
        connection.rport = Some(50_000);
        taken.note(&closed);
        taken.note(&connection);
        assert_eq!(holders(&taken, SECOND, "0.0.0.0"), [(10, Some(1))]);
        taken.note(&event(Kind::Close, 62 * SECOND, 12, 3, "127.0.0.1"));
        assert_eq!(holders(&taken, 62 * SECOND, "0.0.0.0"), [(12, Some(3))]);
    }

    #[test]
    fn a_bind_that_leaves_the_port_open_takes_none() {
        let mut taken = Taken::default();
        for sock in 1..=3 {
            let mut bind = event(Kind::Bind, SECOND, 10, sock, "127.0.0.1");
            bind.lport = Some(0);
            taken.note(&bind);
            let mut connection = event(Kind::Close, SECOND, 10, sock, "127.0.0.1");
            connection.rport = Some(50_000);
            taken.note(&connection);
        }
        assert!(taken.binders.is_empty() && taken.ports.is_empty());
    }

    #[test]
    fn a_socket_that_changed_its_port_holds_the_other_one() {
        let mut taken = Taken::default();
        let bind = event(Kind::Bind, SECOND, 10, 1, "127.0.0.1");
        taken.note(&bind);
        taken.note(&Event {
            lport: Some(81),
            ..bind.clone()
        });
        taken.note(&event(Kind::Bind, 2 * SECOND, 20, 2, "127.0.0.1"));
        let both = [(20, Some(2)), (10, Some(1))];
        assert_eq!(holders(&taken, 2 * SECOND, "127.0.0.1"), both);
        // at its end it has none at all
        taken.note(&Event {
            kind: Kind::Close,
            lport: Some(0),
            ..bind
        });
        assert_eq!(taken.ports.len(), 1);
        assert_eq!(taken.departures.len(), 2);
    }

    #[test]
    fn a_listener_of_ipv6_alone_is_in_the_way_of_ipv6_alone() {
        let mut taken = Taken::default();
        taken.note(&event(Kind::Bind, SECOND, 10, 100, "::"));
        let mut row = Row::server(Proto::Tcp, "[::]:80", 10, "nc");
        row.v6only = Some(true);
        row.event.sock = Some(100);
        taken.refresh(vec![row], SECOND);
        let told = |family, laddr| {
            let mut failed = event(Kind::Bind, SECOND, 99, 99, laddr);
            failed.error = Some(libc::EADDRINUSE as u16);
            failed.family = Some(family);
            taken.tell(&mut failed);
            failed.holders.unwrap_or_default().len()
        };
        assert_eq!(told(Family::Ipv4, "127.0.0.1"), 0);
        // of a socket of IPv6, but mapped
        assert_eq!(told(Family::Ipv6, "127.0.0.1"), 0);
        assert_eq!(told(Family::Ipv6, "::1"), 1);
    }

    #[test]
    fn a_wildcard_of_ipv4_is_not_in_the_way_of_ipv6() {
        let mut taken = Taken::default();
        taken.note(&event(Kind::Bind, SECOND, 10, 1, "0.0.0.0"));
        assert_eq!(holders(&taken, SECOND, "::1"), []);
        let there = [(10, Some(1))];
        for laddr in ["::", "0.0.0.0", "127.0.0.1"] {
            assert_eq!(holders(&taken, SECOND, laddr), there);
        }
    }

    #[test]
    fn connections_of_a_process_are_one_holder_and_none_beside_its_listener() {
        let connection = |pid, sock| {
            let mut row = Row::connection(State::Estab, "127.0.0.1:80", "127.0.0.1:9", pid, "nc");
            row.event.sock = Some(sock);
            row.event.holders.as_mut().unwrap()[0].sock = Some(sock);
            row
        };
        let mut taken = Taken::default();
        let rows = [connection(11, 1), connection(10, 2), connection(11, 3)];
        let server = Row::server(Proto::Tcp, "0.0.0.0:80", 10, "nc");
        taken.refresh(rows.into_iter().chain([server]), SECOND);
        let told = [(10, Some(100)), (11, Some(1))];
        assert_eq!(holders(&taken, SECOND, "127.0.0.1"), told);
    }

    #[test]
    fn who_passed_a_socket_on_does_not_hold_it() {
        let mut taken = Taken::default();
        let mut server = Row::server(Proto::Tcp, "0.0.0.0:80", 11, "nc");
        server.event.sock = Some(1);
        server.event.holders.as_mut().unwrap()[0].sock = Some(1);
        taken.note(&event(Kind::Bind, SECOND, 10, 1, "0.0.0.0"));
        assert_eq!(holders(&taken, SECOND, "0.0.0.0"), [(10, Some(1))]);
        taken.refresh([server], 2 * SECOND);
        assert_eq!(holders(&taken, 2 * SECOND, "0.0.0.0"), [(11, Some(1))]);
    }

    #[test]
    fn those_who_left_are_told_for_a_minute_the_latest_first_and_not_all() {
        let mut taken = Taken::default();
        for sock in 1..=100 {
            let bind = event(Kind::Bind, sock * SECOND, sock as u32, sock, "0.0.0.0");
            taken.note(&bind);
            taken.note(&Event {
                kind: Kind::Close,
                ..bind
            });
        }
        let told = holders(&taken, 101 * SECOND, "0.0.0.0");
        assert_eq!(told.len(), 60);
        assert_eq!(told[0], (100, Some(100)));
        assert_eq!(holders(&taken, 159 * SECOND, "0.0.0.0").len(), 2);
        for sock in 200..400 {
            let bind = event(Kind::Bind, 160 * SECOND, sock, u64::from(sock), "0.0.0.0");
            taken.note(&bind);
            taken.note(&Event {
                kind: Kind::Close,
                ..bind
            });
        }
        assert_eq!(holders(&taken, 160 * SECOND, "0.0.0.0").len(), TOLD);
    }

    #[test]
    fn a_snapshot_tells_the_rest_and_is_asked_for_once_a_second() {
        let mut taken = Taken::default();
        let mut failed = event(Kind::Bind, SECOND, 99, 99, "0.0.0.0");
        assert!(!taken.needs_snapshot(&failed));
        failed.error = Some(libc::EADDRINUSE as u16);
        assert!(taken.needs_snapshot(&failed));
        let mut seed = event(Kind::Listen, SECOND, 10, 1, "127.0.0.1");
        let peer = |pid| Peer {
            pid,
            comm: "nc".into(),
            sock: Some(1),
        };
        seed.holders = Some(vec![peer(10), peer(11)]);
        let row = Row {
            event: seed,
            state: State::Listen,
            since: None,
            recv_queue: None,
            send_queue: None,
            inode: None,
            device: None,
            v6only: None,
        };
        taken.refresh(vec![row], SECOND);
        assert!(!taken.needs_snapshot(&failed));
        taken.note(&event(Kind::Bind, SECOND, 10, 1, "127.0.0.1"));
        let both = [(10, Some(1)), (11, Some(1))];
        assert_eq!(holders(&taken, SECOND, "0.0.0.0"), both);
        // what left since the snapshot is told once, as such
        taken.note(&event(Kind::Close, SECOND, 10, 1, "127.0.0.1"));
        assert_eq!(holders(&taken, SECOND, "0.0.0.0"), [(10, Some(1))]);
        // any event shows that it is too old to be kept
        taken.needs_snapshot(&event(Kind::Listen, 3 * SECOND, 10, 2, "127.0.0.2"));
        assert!(taken.seen.is_empty());
        failed.ts = 3 * SECOND;
        assert!(taken.needs_snapshot(&failed));
    }
}
