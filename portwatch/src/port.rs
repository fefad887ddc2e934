//! Everything about one port, worked out of the rows of a snapshot. Sans-IO.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bind::{self, Attempt, Obstacle, Refusal};
use crate::device::Device;
use crate::event::{Kind, Proto};
use crate::filter::{Span, Spans};
use crate::group;
use crate::row::{Row, State};

/// The question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub port: u16,
    /// `None`: any, so both wildcards are tried.
    pub addr: Option<IpAddr>,
    /// The network device to which the socket is bound that is thought of.
    pub device: Option<Device>,
    /// Tcp, udp or both.
    pub protos: Vec<Proto>,
    /// The network namespace in which a bind is thought of.
    pub netns: Option<u32>,
}

/// What this machine lets a process bind, as far as it does not depend on sockets.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Ports below need `privileged` (net.ipv4.ip_unprivileged_port_start).
    pub unprivileged_start: u16,
    /// Whether the one who asks may bind them.
    pub privileged: bool,
    /// From which the kernel picks ports by itself (net.ipv4.ip_local_port_range).
    pub ephemeral: Span<u16>,
    /// But not these (net.ipv4.ip_local_reserved_ports).
    pub reserved: Spans<u16>,
    /// Whether `::` is for IPv6 only unless a program wants otherwise (net.ipv6.bindv6only).
    pub v6only: bool,
    /// Protocols with which the address or the device of the question cannot be bound here.
    pub refusals: Vec<(Proto, Refusal)>,
    /// Connections of tcp that closed shortly before: nobody tells whether they are in TIME-WAIT.
    pub closed: Vec<Row>,
    /// Why others may have the port that are not among the rows, and so nothing is known to be free.
    pub unseen: Option<&'static str>,
}

impl Rules {
    /// The kernel's defaults, for a process with privileges.
    pub const DEFAULT: Self = Self {
        unprivileged_start: 1024,
        privileged: true,
        ephemeral: Span {
            first: 32768,
            last: 60999,
        },
        reserved: Spans(Vec::new()),
        v6only: false,
        refusals: Vec::new(),
        closed: Vec::new(),
        unseen: None,
    };

    /// Those of another machine, of which only sockets are known: it has the address and the device.
    pub fn elsewhere(question: &Question) -> Self {
        let refusal = |proto| bind::invalid(proto, question.addr?, question.device);
        Self {
            refusals: (question.protos.iter())
                .filter_map(|&proto| Some((proto, refusal(proto)?)))
                .collect(),
            ..Self::DEFAULT
        }
    }

    /// Whether a socket looks like a client that left its port to the kernel: connected from one of its
    /// choice to one that is not.
    pub fn picked(&self, row: &Row) -> bool {
        let Span { first, last } = self.ephemeral;
        let event = &row.event;
        let is = |port: Option<u16>| port.is_some_and(|x| (first..=last).contains(&x));
        event.kind == Kind::Connect && is(event.lport) && event.rport.is_some() && !is(event.rport)
    }
}

/// The answer for one protocol.
#[derive(Debug)]
pub struct Report<'a> {
    pub proto: Proto,
    /// Listeners and bound udp sockets, those that share an address as one; first those of the namespace
    /// of the question.
    pub servers: Vec<Row>,
    /// Other sockets with this local port: connections, and what is bound but does not listen.
    pub others: Vec<&'a Row>,
    /// Connections from here to this port of others.
    pub outgoing: Vec<&'a Row>,
    /// What would become of a bind now, by address.
    pub binds: Vec<Bind<'a>>,
}

/// What would become of a bind.
#[derive(Debug)]
pub struct Bind<'a> {
    pub attempt: Attempt,
    /// The address cannot be bound here, whatever sockets there are.
    pub refusal: Option<Refusal>,
    /// Needs a privilege that is not there: EACCES before any socket is looked at.
    pub denied: bool,
    pub obstacles: Vec<Obstacle<'a>>,
    /// Where a connection may have left a TIME-WAIT that is in the way.
    pub left: Vec<IpAddr>,
}

/// What the sockets there make of a bind, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Succeeds,
    /// Fails unless both have set SO_REUSEADDR, and only if they meet, which nobody tells.
    MayFailUnless,
    /// Fails unless both have set SO_REUSEADDR.
    FailsUnless,
    /// Fails only if they meet.
    MayFail,
    Fails,
}

impl Outcome {
    fn of<'a>(obstacles: impl Iterator<Item = &'a Obstacle<'a>>) -> Self {
        let outcomes = obstacles.map(|x| match (x.hard, x.overlap.is_certain()) {
            (true, true) => Self::Fails,
            (true, false) => Self::MayFail,
            (false, true) => Self::FailsUnless,
            (false, false) => Self::MayFailUnless,
        });
        outcomes.max().unwrap_or(Self::Succeeds)
    }
}

impl Bind<'_> {
    /// Of one whose address can be bound here.
    pub fn outcome(&self) -> Outcome {
        let left = match self.left.is_empty() {
            true => Outcome::Succeeds,
            false => Outcome::MayFailUnless,
        };
        Outcome::of(self.obstacles.iter()).max(left)
    }

    /// The same for an address of the family of this wildcard that no socket has: those with a wildcard
    /// have all.
    pub fn others(&self) -> Outcome {
        let has_all =
            |addr: IpAddr| addr.is_unspecified() && (addr.is_ipv6() || self.attempt.addr.is_ipv4());
        let wide = self.obstacles.iter();
        Outcome::of(wide.filter(|x| x.row.event.laddr.is_some_and(has_all)))
    }

    /// Name of the error that it gets, or may get with or without SO_REUSEADDR: see [`Bind::only_if`].
    /// `None` when it would succeed.
    pub fn error(&self) -> Option<&'static str> {
        self.error_if(!self.obstacles.is_empty() || !self.left.is_empty())
    }

    /// What nobody tells of the sockets in the way, in words. The error comes only if one of these is so;
    /// when there are none, it is certain. `reuse`: of a bind with SO_REUSEADDR.
    pub fn only_if(&self, reuse: bool) -> Vec<&'static str> {
        if self.error() != Some("EADDRINUSE") {
            return Vec::new();
        }
        let conditions = self.obstacles.iter().map(|x| {
            // udp sockets share an address when both have set it
            let gives_way = reuse && (!x.hard || self.attempt.proto == Proto::Udp);
            match (x.overlap.is_certain(), gives_way) {
                (true, false) => None,
                (false, false) => Some("a socket there is for IPv4 as well"),
                (true, true) => Some("a socket there has not set SO_REUSEADDR"),
                (false, true) => {
                    Some("a socket there is for IPv4 as well and has not set SO_REUSEADDR")
                }
            }
        });
        let left = self.left.iter().map(|_| match reuse {
            false => "a connection closed shortly before is in TIME-WAIT",
            true => {
                "a connection closed shortly before is in TIME-WAIT and has not set SO_REUSEADDR"
            }
        });
        // One that is in the way for sure is enough.
        let conditions: Option<Vec<_>> = conditions.chain(left.map(Some)).collect();
        unique(conditions.into_iter().flatten())
    }

    /// Whether it fails because of sockets that serve, or of no socket at all.
    pub fn is_taken(&self) -> bool {
        let hard = self.obstacles.iter().any(|x| x.hard);
        self.error_if(hard).is_some()
    }

    fn error_if(&self, in_use: bool) -> Option<&'static str> {
        // __inet_bind looks at the address first, __inet6_bind at the privilege, but at tcp with
        // multicast before that.
        match (self.refusal, self.denied) {
            // It comes to no bind.
            (Some(Refusal::NoDevice), _) => Some(Refusal::NoDevice.error()),
            (Some(refusal), false) => Some(refusal.error()),
            (Some(refusal), true) if self.attempt.addr.is_ipv4() || self.is_tcp_multicast() => {
                Some(refusal.error())
            }
            (_, true) => Some("EACCES"),
            (None, false) => in_use.then_some("EADDRINUSE"),
        }
    }

    fn is_tcp_multicast(&self) -> bool {
        self.attempt.proto != Proto::Udp && self.attempt.addr.is_multicast()
    }

    /// Why the address cannot be bound, when that is what stops it.
    pub fn refused(&self) -> Option<&'static str> {
        let refusal = self.refusal.filter(|x| self.error() == Some(x.error()))?;
        Some(match refusal {
            Refusal::Foreign => "this machine does not have that address",
            Refusal::NoDevice => "there is no such network interface here",
            Refusal::Invalid if self.is_tcp_multicast() => "tcp has no multicast",
            Refusal::Invalid => "the address means nothing without an interface",
        })
    }
}

/// A process that is connected to the port, where, and the address of the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// `None` where it is hidden, or nobody has the connection any more.
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub uid: Option<u32>,
    pub user: Option<String>,
    pub netns: Option<u32>,
    pub raddr: IpAddr,
}

/// Answers for each protocol of the question.
pub fn reports<'a>(question: &Question, rules: &Rules, rows: &'a [Row]) -> Vec<Report<'a>> {
    (question.protos.iter())
        .map(|&proto| report(question, rules, rows, proto))
        .collect()
}

fn report<'a>(question: &Question, rules: &Rules, rows: &'a [Row], proto: Proto) -> Report<'a> {
    let of_proto = |row: &&Row| row.event.proto.map(bind::ports_of) == Some(proto);
    let (mut servers, others): (Vec<&Row>, Vec<&Row>) = (rows.iter())
        .filter(of_proto)
        .filter(|row| row.event.lport == Some(question.port))
        .filter(|row| question.addr.is_none_or(|addr| concerns(row, addr)))
        .filter(|row| bind::may_meet(question.device, row.device))
        .partition(|row| group::serves(row));
    servers.sort_by_key(|row| row.place());
    let mut servers: Vec<Row> = group::servers(servers.into_iter().cloned()).collect();
    servers.sort_by_key(|row| {
        let event = &row.event;
        (event.netns != question.netns, event.netns, event.laddr)
    });
    let addrs = match question.addr {
        Some(addr) => vec![addr],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    let binds = (addrs.into_iter())
        .map(|addr| {
            let attempt = Attempt {
                proto,
                addr,
                port: question.port,
                device: question.device,
                v6only: rules.v6only,
                netns: question.netns,
            };
            let left = bind::obstacles(&attempt, &rules.closed).into_iter();
            Bind {
                attempt,
                left: unique(left.filter_map(|x| x.row.event.laddr)),
                refusal: (rules.refusals.iter())
                    .find_map(|&(of, refusal)| (of == proto).then_some(refusal)),
                denied: question.port < rules.unprivileged_start && !rules.privileged,
                obstacles: bind::obstacles(&attempt, rows),
            }
        })
        .collect();
    Report {
        proto,
        servers,
        others,
        outgoing: (rows.iter())
            .filter(of_proto)
            .filter(|row| row.event.rport == Some(question.port))
            // What came in from that port is the other way round.
            .filter(|row| row.event.kind != Kind::Accept)
            // What is left of one has no process any more.
            .filter(|row| row.state != State::TimeWait)
            .filter(|row| {
                question
                    .addr
                    .is_none_or(|addr| row.event.raddr == Some(addr))
            })
            .collect(),
        binds,
    }
}

/// Whether a socket has anything to do with an address: it has it, or a wildcard has, on either side.
fn concerns(row: &Row, addr: IpAddr) -> bool {
    let Some(own) = row.event.laddr else {
        return false;
    };
    own == addr || own.is_unspecified() || addr.is_unspecified()
}

impl Report<'_> {
    /// The addresses that are taken, with the devices of the sockets there, when there are others that are
    /// free.
    pub fn taken(&self) -> Vec<(IpAddr, Option<Device>)> {
        let [ipv4, ipv6] = &self.binds[..] else {
            // one address was asked for
            return Vec::new();
        };
        if ipv4.others() >= Outcome::MayFail && ipv6.outcome() == Outcome::Fails {
            return Vec::new();
        }
        let mut addrs: Vec<(IpAddr, Option<Device>)> = (self.binds.iter())
            .flat_map(|x| &x.obstacles)
            .filter(|x| x.hard)
            .filter_map(|x| Some((x.row.event.laddr?, x.row.device)))
            .collect();
        addrs.sort();
        addrs.dedup();
        addrs
    }

    /// Those of the other sockets that are connections, by namespace and state: how many.
    pub fn states(&self) -> Vec<(Option<u32>, State, usize)> {
        let mut counts: Vec<(Option<u32>, State, usize)> = Vec::new();
        for row in &self.others {
            let (netns, state) = (row.event.netns, row.state);
            match counts.iter_mut().find(|x| (x.0, x.1) == (netns, state)) {
                Some((_, _, count)) => *count += 1,
                None => counts.push((netns, state, 1)),
            }
        }
        counts.sort();
        counts
    }

    /// Namespaces of connections with this local port and addresses at their other end, the busiest first.
    pub fn peers(&self) -> Vec<((Option<u32>, IpAddr), usize)> {
        let peers = self.others.iter().map(|row| &row.event);
        count(peers.filter_map(|event| Some((event.netns, event.raddr?))))
    }

    /// Who here is connected to this port: the process and the address of the other end.
    pub fn clients(&self) -> Vec<(Client, usize)> {
        count(self.outgoing.iter().filter_map(|row| {
            let event = &row.event;
            Some(Client {
                pid: event.pid,
                comm: event.comm.map(|x| x.text().into_owned()),
                uid: event.uid,
                user: event.context.as_ref().and_then(|x| x.user.clone()),
                netns: event.netns,
                raddr: event.raddr?,
            })
        }))
    }
}

/// Each once, in the order in which they come first.
pub fn unique<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    found
}

/// How often each comes, the most frequent first, then in their own order.
fn count<T: std::hash::Hash + Ord>(items: impl Iterator<Item = T>) -> Vec<(T, usize)> {
    let mut counts = HashMap::new();
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
    let mut counts: Vec<(T, usize)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}
