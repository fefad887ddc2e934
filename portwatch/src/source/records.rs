//! From records to events: gives each record its process and the wall clock's time, and keeps news of
//! processes for those that follow.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use portwatch_common::{Kind as WireKind, NO_STATUS, SocketRecord, flag, is_address};
use rustc_hash::FxHashMap;

use super::News;
use crate::clock::{Clock, boot};
use crate::decode::{self, Record};
use crate::event::{Cause, Comm, Context, Event, Family, Kind, Origin, Proto};
use crate::machine::{Machine, read_args, same_numbers};
use crate::process::{Lookup as _, Process, Processes};

/// More owners than the kernel's map has sockets are left over from lost closes.
const OWNERS: usize = 1 << 19;

/// What turns records into events.
pub struct Records {
    pub clock: Clock,
    machine: Machine,
    processes: Processes,
    /// Context of the owner of each open socket: it may outlive the process, and its number.
    owners: FxHashMap<u64, (u32, Arc<Context>)>,
    /// Whether closes are told, which is when they are forgotten.
    closes: bool,
    /// When set, only these processes are shown.
    followed: Option<Followed>,
    /// Where news of processes go, when someone asked for them.
    news: Option<Sender<News>>,
}

/// A process and its descendants.
struct Followed {
    pids: HashSet<u32>,
    /// By the kernel's clock. What is told of births before may include its own.
    since: u64,
}

impl Records {
    /// Knows the processes that there are. `closes`: whether closes are told.
    pub fn new(closes: bool) -> Self {
        let mut machine = match same_numbers() {
            Ok(()) => Machine::new(),
            Err(_) => Machine::without_processes(),
        };
        let mut processes = Processes::default();
        for (pid, process) in machine.processes() {
            processes.seed(pid, process);
        }
        Self {
            clock: Clock::new(),
            machine,
            processes,
            owners: FxHashMap::default(),
            closes,
            followed: None,
            news: None,
        }
    }

    /// See [`super::Source::follow`].
    pub fn follow(&mut self, pid: u32) {
        self.followed = Some(Followed {
            pids: HashSet::from([pid]),
            since: boot(),
        });
    }

    /// How many sockets of those who are followed are open, if closes are told.
    pub fn open(&self) -> usize {
        self.owners.len()
    }

    /// See [`super::Source::tell_processes`].
    pub fn tell_processes(&mut self, to: Sender<News>) {
        self.news = Some(to);
    }

    /// News for the process cache.
    pub fn process(&mut self, record: Record) {
        if let Some(news) = &self.news
            && let Some(told) = news_of(&record, &self.clock)
        {
            // Who asked may have ended.
            let _ = news.send(told);
        }
        match record {
            Record::Fork(fork) => {
                let parent = comm(fork.comm);
                let Self {
                    processes, machine, ..
                } = self;
                processes.fork(fork.ppid, fork.tgid, parent, fork.ts, machine);
                if let Some(Followed { pids, since }) = &mut self.followed {
                    if pids.contains(&fork.ppid) {
                        pids.insert(fork.tgid);
                    } else if fork.ts > *since {
                        // The number was another's before.
                        pids.remove(&fork.tgid);
                    }
                }
            }
            Record::Exit(exit) => self.processes.exit(exit.tgid, exit.ts),
            Record::Exec { head, exe, args } => {
                let told = decode::args(args);
                // Of one that ends just now nothing is left to read, or what another ran since.
                let whole = (head.truncated == 1)
                    .then(|| read_args(head.tgid))
                    .flatten()
                    .filter(|whole| begins_like(whole, &told));
                let comm = comm(head.comm);
                // The kernel's programs follow no path that is too deep.
                let exe = (Some(exe).filter(|exe| !exe.is_empty()))
                    .or_else(|| self.machine.exe(head.tgid, &comm));
                let process = Process {
                    ppid: head.ppid,
                    comm,
                    exe,
                    args: Some(whole.unwrap_or(told).into()),
                    // For those it will start, too: they may be gone when their events are shown.
                    cgroup: self.machine.cgroup_now(head.tgid),
                };
                self.processes.exec(head.tgid, process, head.ts);
                // Should the record of its birth be lost.
                if let Some(Followed { pids, .. }) = &mut self.followed
                    && pids.contains(&head.ppid)
                {
                    pids.insert(head.tgid);
                }
            }
            Record::Cgroup { id, path } => self.machine.add_cgroup(id, path),
            Record::Socket(..) => {}
        }
    }

    /// Appends the event of a socket record; `None` when it is not to be shown. It is made where it
    /// stays: events are large.
    pub fn socket<'e>(
        &mut self,
        wire: WireKind,
        record: &SocketRecord,
        events: &'e mut Vec<Event>,
    ) -> Option<&'e mut Event> {
        let kind = shown(wire)?;
        let socket = &record.socket;
        let owner = &socket.owner;
        // The record of its birth may be lost, or the number another's by now.
        let of_family = |Followed { pids, .. }: &Followed| {
            pids.contains(&owner.tgid) || pids.contains(&owner.ppid)
        };
        if !self.followed.as_ref().is_none_or(of_family) {
            // One who is followed may have passed it on.
            self.owners.remove(&socket.cookie);
            return None;
        }
        let context = self.context(kind, record);
        events.push(Event::new(kind, Origin::Live, self.clock.wall(record.ts)));
        let event = events.last_mut()?;
        event.proto = match i32::from(socket.protocol) {
            libc::IPPROTO_TCP => Some(Proto::Tcp),
            libc::IPPROTO_UDP => Some(Proto::Udp),
            libc::IPPROTO_MPTCP => Some(Proto::Mptcp),
            _ => None,
        };
        let v6 = i32::from(socket.family) == libc::AF_INET6;
        event.family = Some(if v6 { Family::Ipv6 } else { Family::Ipv4 });
        // A connect that failed early never got a local port; a bind may have asked for port 0, and may
        // have got none until its close (IP_BIND_ADDRESS_NO_PORT).
        let named = match kind {
            Kind::Bind => socket.flags & flag::NAMELESS == 0,
            Kind::Close => socket.laddr != [0; 2],
            _ => false,
        };
        if socket.lport != 0 || named {
            event.laddr = Some(address(v6, socket.laddr));
            event.lport = Some(socket.lport);
        }
        // Elsewhere what is left of a peer has no port.
        let port_0 = socket.raddr != [0; 2]
            && (kind == Kind::Connect || kind == Kind::Close && event.proto == Some(Proto::Udp));
        if socket.rport != 0 || port_0 {
            event.raddr = Some(address(v6, socket.raddr));
            event.rport = Some(socket.rport);
        }
        // Without a cookie the kernel side knows it by its address, which is nobody's business.
        // So is the highest number, by which snapshots say that there is none.
        let none = |cookie| is_address(cookie) || cookie == u64::MAX;
        event.sock = Some(socket.cookie).filter(|&cookie| !none(cookie));
        event.netns = Some(socket.netns);
        if owner.tgid != 0 {
            event.pid = Some(owner.tgid);
            event.tid = Some(owner.tid);
            event.ppid = Some(owner.ppid);
            event.uid = Some(owner.uid);
            event.gid = Some(owner.gid);
            event.comm = Some(comm(owner.comm));
            event.context = context;
        }
        event.error = (record.error != 0).then_some(record.error);
        event.cause = cause(record.cause);
        let micros = (record.elapsed != 0).then_some(record.elapsed / 1000);
        let listener = socket.flags & flag::LISTENER != 0;
        match kind {
            Kind::Listen => event.backlog = Some(socket.backlog),
            Kind::Connect | Kind::Accept => event.latency_us = micros,
            Kind::Close => {
                event.duration_us = micros;
                if listener {
                    // Not of one that listened before anybody counted.
                    event.accepted = (socket.since != 0).then_some(socket.accepted as u32);
                } else if event.proto == Some(Proto::Tcp) && socket.rport != 0 {
                    event.rx_bytes = Some(record.rx_bytes);
                    event.tx_bytes = Some(record.tx_bytes);
                    event.rtt_us = Some(record.rtt);
                    event.retrans = Some(record.retrans);
                }
            }
            Kind::Bind | Kind::Reset | Kind::Lost => {}
        }
        Some(event)
    }

    /// Context of the owner, remembered with the socket from its first event to its close.
    fn context(&mut self, kind: Kind, record: &SocketRecord) -> Option<Arc<Context>> {
        let owner = &record.socket.owner;
        let cookie = record.socket.cookie;
        if owner.tgid == 0 {
            return None;
        }
        match kind {
            Kind::Close => {
                let kept = self
                    .owners
                    .remove(&cookie)
                    .filter(|(pid, _)| *pid == owner.tgid);
                if let Some((_, context)) = kept {
                    return Some(context);
                }
            }
            Kind::Reset => {
                if let Some((_, context)) = self
                    .owners
                    .get(&cookie)
                    .filter(|(pid, _)| *pid == owner.tgid)
                {
                    return Some(context.clone());
                }
            }
            _ => {}
        }
        let ts = match kind {
            // The owner is who began it, which may have run another program then.
            Kind::Connect => record.ts.saturating_sub(record.elapsed),
            _ => record.ts,
        };
        let context = self.processes.context(owner, ts, &mut self.machine);
        if self.closes
            && record.error == 0
            && matches!(
                kind,
                Kind::Bind | Kind::Listen | Kind::Connect | Kind::Accept
            )
        {
            if self.owners.len() >= OWNERS {
                self.owners.clear();
            }
            self.owners.insert(cookie, (owner.tgid, context.clone()));
        }
        Some(context)
    }
}

/// Whether these are the arguments of which `told` was cut off, somewhere in the last one.
fn begins_like(whole: &[String], told: &[String]) -> bool {
    told.split_last()
        .is_some_and(|(_, before)| whole.len() > before.len() && whole.starts_with(before))
}

/// What a record tells of the life of a process.
fn news_of(record: &Record, clock: &Clock) -> Option<News> {
    match record {
        Record::Fork(fork) => Some(News::Started {
            pid: fork.tgid,
            at: clock.wall(fork.ts),
        }),
        Record::Exit(exit) => Some(News::Ended {
            pid: exit.tgid,
            at: clock.wall(exit.ts),
            status: (exit.status != NO_STATUS).then_some(exit.status),
        }),
        _ => None,
    }
}

/// The kind of event a record is shown as; `None` for news of processes.
pub fn shown(wire: WireKind) -> Option<Kind> {
    match wire {
        WireKind::Bind => Some(Kind::Bind),
        WireKind::Listen => Some(Kind::Listen),
        WireKind::Connect => Some(Kind::Connect),
        WireKind::Accept => Some(Kind::Accept),
        WireKind::Close => Some(Kind::Close),
        WireKind::Reset => Some(Kind::Reset),
        WireKind::Fork | WireKind::Exec | WireKind::Exit | WireKind::Cgroup => None,
    }
}

fn cause(wire: u8) -> Option<Cause> {
    use portwatch_common::Cause as Wire;
    Some(match Wire::from_wire(wire)? {
        Wire::Local => Cause::Local,
        Wire::Remote => Cause::Remote,
        Wire::Reset => Cause::Reset,
        Wire::Timeout => Cause::Timeout,
        Wire::Error => Cause::Error,
        Wire::Sent => Cause::Sent,
        Wire::Received => Cause::Received,
    })
}

fn comm(words: [u64; 2]) -> Comm {
    Comm(bytes(words))
}

fn bytes(words: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    bytes
}

/// An address as it is shown: a v4-mapped one as the IPv4 address it stands for.
fn address(v6: bool, words: [u64; 2]) -> IpAddr {
    let bytes = bytes(words);
    if v6 {
        IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
    } else {
        IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
    }
}

#[cfg(test)]
mod tests {
    use portwatch_common::{Owner, ProcessRecord, Socket, TextRecord};

    use super::*;

    fn record(cookie: u64, tgid: u32, ppid: u32) -> SocketRecord {
        SocketRecord {
            socket: Socket {
                cookie,
                lport: 80,
                owner: Owner {
                    tgid,
                    ppid,
                    ..Owner::default()
                },
                ..Socket::default()
            },
            ..SocketRecord::default()
        }
    }

    #[test]
    fn owners_are_remembered_until_the_close_if_one_is_told() {
        for closes in [true, false] {
            let mut records = Records::new(closes);
            let mut told = |kind| {
                records.socket(kind, &record(1, 10, 1), &mut Vec::new());
                records.owners.len()
            };
            assert_eq!(told(WireKind::Connect), usize::from(closes));
            assert_eq!(told(WireKind::Close), 0);
        }
    }

    fn fork(ppid: u32, tgid: u32, ts: u64) -> Record<'static> {
        Record::Fork(ProcessRecord {
            ts,
            tgid,
            ppid,
            ..ProcessRecord::default()
        })
    }

    fn is_shown(records: &mut Records, pid: u32, ppid: u32) -> bool {
        let record = record(1, pid, ppid);
        (records.socket(WireKind::Bind, &record, &mut Vec::new())).is_some()
    }

    #[test]
    fn children_are_followed_though_nothing_told_of_their_birth() {
        let mut records = Records::new(true);
        records.follow(10);
        assert!(is_shown(&mut records, 11, 10));
        assert!(!is_shown(&mut records, 12, 11));
        records.process(Record::Exec {
            head: TextRecord {
                tgid: 11,
                ppid: 10,
                ..TextRecord::default()
            },
            exe: "/bin/sh".to_owned(),
            args: b"sh\0",
        });
        assert!(is_shown(&mut records, 12, 11));
        assert!(!is_shown(&mut records, 20, 1));
    }

    #[test]
    fn who_takes_the_number_of_a_descendant_is_not_followed() {
        let mut records = Records::new(true);
        let before = boot();
        records.follow(10);
        // its own birth, told late
        records.process(fork(1, 10, before));
        assert!(is_shown(&mut records, 10, 1));
        let now = boot() + 1;
        records.process(fork(10, 11, now));
        assert!(is_shown(&mut records, 11, 10));
        records.process(fork(1, 11, now));
        records.process(fork(11, 12, now));
        for (pid, ppid) in [(11, 1), (12, 11)] {
            assert!(!is_shown(&mut records, pid, ppid));
        }
        // what it had open is its own
        assert!(is_shown(&mut records, 11, 10));
    }
}
