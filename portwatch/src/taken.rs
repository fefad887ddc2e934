//! Who has the port that a bind found taken, those who left it in the last minute included. Sans-IO:
//! takes events, snapshots and the time, which is in nanoseconds since the Unix epoch.

use std::collections::VecDeque;
use std::net::IpAddr;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::event::{Cause, Comm, Event, Family, Kind, Peer, Proto};
use crate::row::Row;

/// How long those who left are remembered.
const DEPARTED_NS: u64 = 60_000_000_000;
/// Most of them remembered.
const DEPARTED: usize = 65_536;
/// Most of them told of one port, the latest first.
const TOLD: usize = 64;

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

/// A connection that its own process ended. What the kernel keeps of it (TIME-WAIT) has the port for a minute.
#[derive(Clone, Copy, Debug)]
struct Ended {
    pid: u32,
    comm: Comm,
    sock: Option<u64>,
    laddr: Option<IpAddr>,
    at: u64,
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
    /// The last one on each port that no bind told of.
    ended: FxHashMap<Port, Ended>,
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
        let (Some(port), Some(peer)) = (port(event), peer_of(event)) else {
            return;
        };
        match event.sock.and_then(|sock| self.ports.insert(sock, port)) {
            Some(before) if before == port => return,
            // A disconnected udp socket gives its port back without an event.
            Some(before) => self.depart(before, event),
            None => {}
        }
        self.binders.entry(port).or_default().push(Binder {
            peer,
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
        let Some(port) = known.or_else(|| port(event)) else {
            return;
        };
        if known.is_none()
            && event.cause == Some(Cause::Local)
            && port.1 == Transport::Tcp
            && let (Some(pid), Some(comm)) = (event.pid, event.comm)
        {
            if self.ended.len() >= DEPARTED {
                self.ended.clear();
            }
            let ended = Ended {
                pid,
                comm,
                sock: event.sock,
                laddr: event.laddr,
                at: event.ts,
            };
            self.ended.insert(port, ended);
        }
        self.depart(port, event);
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
    /// latest one when it is older than `fresh_ns`.
    pub fn needs_snapshot(&mut self, event: &Event, fresh_ns: u64) -> bool {
        if (self.taken_at).is_some_and(|at| event.ts.saturating_sub(at) > fresh_ns) {
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
    /// and socket once, but a process only once for all its connections; then who had it before events came and
    /// left it since, as `later` events tell, who left it in the last minute and has it no more, and who ended the
    /// last connection there. Not its own socket, which may have the port by now, nor those that came since.
    pub fn tell(&self, event: &mut Event, later: &[Event]) {
        let Some(port) = found_taken(event).then(|| port(event)).flatten() else {
            return;
        };
        let own = |sock: Option<u64>| sock.is_some() && sock == event.sock;
        let younger = self.younger(event, later);
        let binders = || {
            let binders = self.binders.get(&port).into_iter().flatten();
            binders.filter(|x| !own(x.peer.sock))
        };
        let seen = || {
            let seen = self.seen.get(&port).into_iter().flatten();
            seen.filter(|x| !own(x.sock) && !younger.iter().any(|event| x.is_of(event)))
        };
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
        let passed_on = |x: &Binder| is_in(&known, x.peer.sock) && Some(x.since) < self.taken_at;
        for binder in now.into_iter().filter(|x| !passed_on(x)) {
            add(&mut holders, &binder.peer, false);
        }
        // From a snapshot of a moment ago they may have left since. Connections are only in the way where nothing
        // else of their process is.
        let mut there: Vec<_> = (there.into_iter())
            .filter(|x| !is_in(&gone, x.sock) && overlap(x.laddr, event.laddr))
            .collect();
        there.sort_by_key(|x| x.connected);
        for seen in there {
            for peer in &seen.holders {
                add(&mut holders, peer, seen.connected);
            }
        }
        let left_since = self.strangers(event, later).filter(|x| {
            x.kind == Kind::Close
                && x.ts > event.ts
                && overlap(x.laddr, event.laddr)
                && !own(x.sock)
                && !younger.iter().any(|came| came.sock == x.sock)
        });
        for peer in left_since.filter_map(peer_of) {
            add(&mut holders, &peer, true);
        }
        let most = holders.len() + TOLD;
        let is_recent = |at: u64| event.ts.saturating_sub(at) <= DEPARTED_NS;
        let lately = |x: &&Binder| x.left.is_some_and(is_recent);
        for binder in left.into_iter().rev().filter(lately) {
            if holders.len() == most {
                break;
            }
            add(&mut holders, &binder.peer, true);
        }
        let ended = (self.ended.get(&port))
            .filter(|x| is_recent(x.at) && !own(x.sock) && overlap(x.laddr, event.laddr));
        if let Some(ended) = ended {
            let peer = Peer {
                pid: ended.pid,
                comm: ended.comm.text().into_owned(),
                sock: ended.sock,
            };
            add(&mut holders, &peer, true);
        }
        if !holders.is_empty() {
            event.holders = Some(holders);
        }
    }

    /// Which of the later events tell of a socket that has the port of this one only since. A snapshot taken
    /// meanwhile shows it.
    fn younger<'e>(&self, event: &Event, later: &'e [Event]) -> Vec<&'e Event> {
        let younger = self.strangers(event, later).filter(|x| {
            matches!(x.kind, Kind::Bind | Kind::Connect | Kind::Accept)
                && x.error.is_none()
                && x.began() > event.ts
        });
        younger.collect()
    }

    /// Those of the later events on its port whose socket nothing has told of.
    fn strangers<'e>(&self, event: &Event, later: &'e [Event]) -> impl Iterator<Item = &'e Event> {
        let port = port(event);
        let is_new = |sock| !self.ports.contains_key(&sock);
        (later.iter()).filter(move |x| self::port(x) == port && x.sock.is_some_and(is_new))
    }
}

impl Seen {
    /// Whether this is the socket of an event on its port.
    fn is_of(&self, event: &Event) -> bool {
        match self.sock {
            Some(_) => self.sock == event.sock,
            None => {
                self.laddr == event.laddr && self.holders.iter().any(|x| Some(x.pid) == event.pid)
            }
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

/// Who has its socket, as far as that is known.
fn peer_of(event: &Event) -> Option<Peer> {
    Some(Peer {
        pid: event.pid?,
        comm: event.comm?.text().into_owned(),
        sock: event.sock,
    })
}

/// Whether it is a bind to a port that others have.
pub fn found_taken(event: &Event) -> bool {
    event.kind == Kind::Bind && event.has_error(libc::EADDRINUSE)
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
mod tests;
