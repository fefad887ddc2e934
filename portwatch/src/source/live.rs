//! Events from the running kernel: drains the ring buffer, gives each record its process and the
//! wall clock's time, and keeps account of what was lost.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use portwatch_common::{Kind as WireKind, NO_STATUS, SocketRecord, flag, is_address};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::{Clock, boot};
use crate::decode::{self, Record};
use crate::event::{Cause, Comm, Context, Event, Family, Kind, Origin, Proto};
use crate::machine::{Machine, read_args};
use crate::probe::{self, Links, Loaded, Report, Settings, Skips, Tier};
use crate::process::{Process, Processes};
use crate::source::News;
use crate::source::loss::Losses;
use crate::source::notes::Notes;

/// How long events may wait in the ring before they are looked for. The kernel wakes the reader
/// only when the ring fills.
const TICK: Duration = Duration::from_millis(8);
/// Most records taken in one go: so few that their events stay in the CPU's cache until they are shown.
const BATCH: usize = 512;

/// What to ask of the kernel.
#[derive(Clone, Debug)]
pub struct Options {
    /// `None`: the first tier that works.
    pub tier: Option<Tier>,
    /// Size of the ring buffer in bytes: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Kinds of event wanted; the others are not produced.
    pub kinds: Vec<Kind>,
    /// Whether to say on stderr what the programs note about themselves.
    pub notes: bool,
}

/// Accounts of a run, complete only after [`Live::finish`]. In JSON, as a session keeps it, the names
/// are these, kinds `[["connect",10],…]`, times nanoseconds; what is left out is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Accounts {
    /// Events of the wanted kinds that the kernel could not hand over.
    pub lost: u64,
    /// The same by kind, only those above 0.
    pub lost_by_kind: Vec<(Kind, u64)>,
    /// Process and cgroup records that the kernel could not hand over.
    pub lost_process: u64,
    /// Sockets the kernel's map had no room for.
    pub untracked_sockets: u64,
    /// Calls whose return no kretprobe saw.
    pub missed_returns: u64,
    /// Events for which the kernel skipped a program, because the same one was interrupted on that
    /// CPU, and all its copies too.
    pub skipped_events: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Nothing came from the kernel: snapshots were compared, with this much between two at most.
    #[serde(with = "nanoseconds")]
    pub polled: Option<Duration>,
}

mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub fn serialize<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        let ns = time.map(|x| u64::try_from(x.as_nanos()).unwrap_or(u64::MAX));
        ns.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_nanos))
    }
}

impl Accounts {
    /// Whether nothing is known to be missing.
    pub fn complete(&self) -> bool {
        *self == Accounts::default()
    }
}

/// Attached probes and the reader of their ring buffer. Dropping it detaches everything.
pub struct Live {
    /// Owns programs and maps.
    ebpf: Ebpf,
    links: Links,
    report: Report,
    reset_reasons: Vec<(u32, &'static str)>,
    ring: AsyncFd<RingBuf<MapData>>,
    losses: Losses,
    skips: Skips,
    notes: Option<Notes>,
    timer: tokio::time::Interval,
    /// There may be more in the ring: no need to wait.
    behind: bool,
    /// Records from before all probes were attached tell half the story.
    attached: u64,
    state: State,
}

/// What turns records into events.
struct State {
    clock: Clock,
    machine: Machine,
    processes: Processes,
    /// Context of the owner of each open socket: it may outlive the process, and its number.
    owners: FxHashMap<u64, (u32, Arc<Context>)>,
    /// When set, only these processes are shown.
    followed: Option<HashSet<u32>>,
    /// Where news of processes go, when someone asked for them.
    news: Option<Sender<News>>,
    accounts: Accounts,
}

/// More owners than the kernel's map has sockets are left over from lost closes.
const OWNERS: usize = 1 << 19;

impl Live {
    /// Attaches the probes and reads which processes there are. From here on nothing is missed.
    ///
    /// # Errors
    /// When no tier (or not the one asked for) can serve; the message names cause and remedy.
    pub fn start(options: &Options) -> Result<Self> {
        let kinds = WireKind::ALL.iter().filter(|wire| match shown(**wire) {
            Some(kind) => options.kinds.contains(&kind),
            None => true,
        });
        let settings = Settings {
            tier: options.tier,
            ring_bytes: options.ring_bytes,
            kinds: kinds.fold(0, |mask, kind| mask | 1 << *kind as u32),
            notes: options.notes,
        };
        let Loaded {
            mut ebpf,
            links,
            report,
            reset_reasons,
        } = probe::load(&settings)?;
        let attached = boot();
        let notes = options.notes.then(|| Notes::new(&mut ebpf)).transpose()?;
        let mut map = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name}"))
        };
        let ring = RingBuf::try_from(map("EVENTS")?).context("reading the ring buffer")?;
        let losses = Losses::new(map("LOSS")?)?;
        let skips = Skips::new(&mut ebpf, losses.read().left)?;
        // SAFETY: the ring owns its map, whose descriptor stays the same and open as long as it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.context("polling the ring buffer")?;
        let mut timer = tokio::time::interval(TICK);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut machine = Machine::new();
        let mut processes = Processes::default();
        for (pid, process) in machine.processes() {
            processes.seed(pid, process);
        }
        Ok(Self {
            ebpf,
            links,
            report,
            reset_reasons,
            ring,
            losses,
            skips,
            notes,
            timer,
            behind: false,
            attached,
            state: State {
                clock: Clock::new(),
                machine,
                processes,
                owners: FxHashMap::default(),
                followed: None,
                news: None,
                accounts: Accounts::default(),
            },
        })
    }

    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Waits until events may have come (some milliseconds at most), then appends them.
    /// Appends nothing when there were none. Cancel-safe: nothing is lost when it is dropped.
    pub async fn next(&mut self, events: &mut Vec<Event>) -> Result<()> {
        if self.behind {
            // Signals and time go on all the same.
            tokio::task::yield_now().await;
        } else {
            tokio::select! {
                _ = self.timer.tick() => {}
                ready = self.ring.readable() => {
                    ready.context("polling the ring buffer")?.clear_ready();
                    self.timer.reset();
                }
            }
        }
        self.behind = self.drain(events, BATCH) == BATCH;
        self.count_losses(events);
        Ok(())
    }

    /// Detaches the probes, appends what was still on its way and returns the accounts.
    pub fn finish(mut self, events: &mut Vec<Event>) -> Result<Accounts> {
        let skipped = self.skips.so_far(&self.ebpf);
        std::mem::take(&mut self.links).detach();
        while self.drain(events, BATCH) == BATCH {}
        self.count_losses(events);
        let loss = self.losses.read();
        let skipped_events = self.skips.missed(&self.ebpf, skipped, loss.left)?;
        let accounts = &mut self.state.accounts;
        accounts.missed_returns = loss.entered.saturating_sub(loss.returned);
        accounts.skipped_events = skipped_events;
        Ok(accounts.clone())
    }

    /// The accounts so far, without what is only known when nothing is attached any more.
    pub fn accounts(&self) -> &Accounts {
        &self.state.accounts
    }

    /// Shows only what this process and its descendants do from now on.
    pub fn follow(&mut self, pid: u32) {
        self.state.followed.get_or_insert_default().insert(pid);
    }

    /// Sends news of processes from now on.
    pub fn tell_processes(&mut self, to: Sender<News>) {
        self.state.news = Some(to);
    }

    /// Appends the events of at most `most` records; returns how many records there were.
    fn drain(&mut self, events: &mut Vec<Event>, most: usize) -> usize {
        self.state.clock.tick();
        if let Some(notes) = &mut self.notes {
            notes.say();
        }
        let ring = self.ring.get_mut();
        let mut count = 0;
        while count < most
            && let Some(item) = ring.next()
        {
            count += 1;
            match decode::decode(&item) {
                None => self.state.accounts.undecodable += 1,
                Some(Record::Socket(kind, record)) => {
                    if record.ts < self.attached {
                        continue;
                    }
                    if let Some(event) = self.state.socket(kind, &record, events)
                        && record.reason != 0
                    {
                        event.reason = (self.reset_reasons.iter())
                            .find_map(|&(n, name)| (n == record.reason).then_some(name));
                    }
                }
                Some(record) => self.state.process(record),
            }
        }
        count
    }

    /// Turns newly counted losses into an event.
    fn count_losses(&mut self, events: &mut Vec<Event>) {
        let loss = self.losses.read();
        let accounts = &mut self.state.accounts;
        let before = accounts.lost;
        accounts.lost = 0;
        accounts.lost_process = 0;
        accounts.lost_by_kind.clear();
        for kind in WireKind::ALL {
            let count = loss.full[kind as usize];
            match shown(kind) {
                Some(kind) if count > 0 => {
                    accounts.lost += count;
                    accounts.lost_by_kind.push((kind, count));
                }
                Some(_) => {}
                None => accounts.lost_process += count,
            }
        }
        accounts.untracked_sockets = loss.sockets;
        if accounts.lost > before {
            let now = self.state.clock.wall(boot());
            let mut event = Event::new(Kind::Lost, Origin::Live, now);
            event.count = Some(accounts.lost - before);
            events.push(event);
        }
    }
}

impl State {
    /// News for the process cache.
    fn process(&mut self, record: Record) {
        if let Some(news) = &self.news
            && let Some(told) = news_of(&record, &self.clock)
        {
            // Who asked may have ended.
            let _ = news.send(told);
        }
        match record {
            Record::Fork(fork) => {
                self.processes.fork(fork.ppid, fork.tgid, &mut self.machine);
                if let Some(followed) = &mut self.followed
                    && followed.contains(&fork.ppid)
                {
                    followed.insert(fork.tgid);
                }
            }
            Record::Exit(exit) => self.processes.exit(exit.tgid, exit.ts),
            Record::Exec { head, exe, args } => {
                let whole = (head.truncated == 1)
                    .then(|| read_args(head.tgid))
                    .flatten();
                let process = Process {
                    ppid: head.ppid,
                    comm: comm(head.comm).text().into_owned(),
                    exe: Some(exe).filter(|exe| !exe.is_empty()),
                    args: Some(whole.unwrap_or_else(|| decode::args(args))),
                    cgroup: None,
                };
                self.processes.exec(head.tgid, process);
            }
            Record::Cgroup { id, path } => self.machine.add_cgroup(id, path),
            Record::Socket(..) => {}
        }
    }

    /// Appends the event of a socket record; `None` when it is not to be shown. It is made where it
    /// stays: events are large.
    fn socket<'e>(
        &mut self,
        wire: WireKind,
        record: &SocketRecord,
        events: &'e mut Vec<Event>,
    ) -> Option<&'e mut Event> {
        let kind = shown(wire)?;
        let socket = &record.socket;
        let owner = &socket.owner;
        let context = self.context(kind, record);
        if let Some(followed) = &self.followed
            && !followed.contains(&owner.tgid)
        {
            return None;
        }
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
        // A connect that failed early never got a local port; a bind may have asked for port 0.
        if socket.lport != 0 || kind == Kind::Bind {
            event.laddr = Some(address(v6, socket.laddr));
            event.lport = Some(socket.lport);
        }
        if socket.rport != 0 {
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
                if event.proto != Some(Proto::Udp) {
                    if listener {
                        event.accepted = Some(socket.accepted as u32);
                    } else if socket.rport != 0 {
                        event.rx_bytes = Some(record.rx_bytes);
                        event.tx_bytes = Some(record.tx_bytes);
                        event.rtt_us = Some(record.rtt);
                        event.retrans = Some(record.retrans);
                    }
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
        let context = self.processes.context(owner, &mut self.machine);
        if record.error == 0
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
fn shown(wire: WireKind) -> Option<Kind> {
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
    use expect_test::expect;

    use super::*;

    #[test]
    fn accounts_are_the_same_after_they_were_json() {
        let accounts = Accounts {
            lost: 12,
            lost_by_kind: vec![(Kind::Connect, 10), (Kind::Close, 2)],
            undecodable: 1,
            polled: Some(Duration::from_millis(200)),
            ..Accounts::default()
        };
        let json = serde_json::to_string(&accounts).unwrap();
        expect![[r#"{"lost":12,"lost_by_kind":[["connect",10],["close",2]],"lost_process":0,"untracked_sockets":0,"missed_returns":0,"skipped_events":0,"undecodable":1,"polled":200000000}"#]].assert_eq(&json);
        assert_eq!(serde_json::from_str::<Accounts>(&json).unwrap(), accounts);
        let nothing: Accounts = serde_json::from_str("{}").unwrap();
        assert!(nothing.complete());
    }
}
