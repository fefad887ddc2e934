//! Sockets of all network namespaces, without their holders: by sock_diag where the kernel has it,
//! else from the tables of /proc.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::thread::CapabilitySet;

use super::diag;
use super::gap::{Gap, Why};
use super::namespaces::{self, Entry, Namespace, Namespaces};
use super::packed::Packed;
use super::socket::Socket;
use super::{Options, proc};
use crate::event::{Family, Proto};
use crate::machine::has_network_capability;
use crate::row::State;
use crate::threads::both;

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
const TABLES: [(Proto, Family); 4] = [
    (Proto::Tcp, Family::Ipv4),
    (Proto::Udp, Family::Ipv4),
    (Proto::Tcp, Family::Ipv6),
    (Proto::Udp, Family::Ipv6),
];
/// What is asked of sock_diag, one after the other.
const DUMPS: [(Proto, &[Family]); 5] = [
    (Proto::Tcp, &FAMILIES),
    (Proto::Udp, &[Family::Ipv4]),
    (Proto::Udp, &[Family::Ipv6]),
    (Proto::Mptcp, &[Family::Ipv4]),
    (Proto::Mptcp, &[Family::Ipv6]),
];

/// The sockets of one moment.
#[derive(Debug, Default)]
pub struct Sockets {
    pub list: Packed,
    /// Processes that may not be looked into.
    pub denied: usize,
    /// What could not be seen, and why, each a sentence for the user.
    pub limits: Vec<String>,
    /// See [`super::Scope`].
    pub namespaces: HashSet<Option<u32>>,
    /// Which sockets the limits may concern.
    pub gaps: Vec<Gap>,
}

/// Reads them.
///
/// # Errors
/// When there is nothing to read: no proc file system where one should be.
pub fn read(options: &Options) -> Result<Sockets> {
    let mut reading = Reading {
        listening: options.listening,
        ..Reading::default()
    };
    let namespaces = match &options.proc_root {
        Some(root) => reading
            .tree(root)
            .context("--proc-root takes the root of a proc file system")?,
        None => reading.machine()?,
    };
    Ok(Sockets {
        limits: reading.limits(&namespaces, options.proc_root.is_some()),
        denied: namespaces.denied,
        list: reading.sockets,
        namespaces: reading.seen,
        gaps: reading.gaps,
    })
}

/// A snapshot in the making, and what went wrong.
#[derive(Default)]
struct Reading {
    listening: bool,
    sockets: Packed,
    /// Network namespaces that were looked into.
    seen: HashSet<Option<u32>>,
    gaps: Vec<Gap>,
    /// Nobody told which namespaces there are.
    one_for_all: bool,
    /// Network namespaces that could not be entered and were read from /proc.
    from_outside: usize,
}

impl Reading {
    /// The machine that this process runs on.
    fn machine(&mut self) -> Result<Namespaces> {
        let own = namespaces::own()?;
        let proc = Path::new("/proc");
        let (all, ()) = both(|| Namespaces::of_machine(proc), || self.namespace(own));
        let all = all?;
        if all.known.keys().all(|&netns| netns == own) {
            return Ok(all);
        }
        // A thread that has been in other namespaces is good for nothing else.
        let visit = || {
            for (&netns, namespace) in all.known.iter().filter(|(netns, _)| **netns != own) {
                match namespace.enter(netns) {
                    Entry::Inside => self.namespace(netns),
                    Entry::Gone => {}
                    // What it may not enter it may still be shown.
                    Entry::Denied if self.first_of(proc, namespace, netns) => {
                        self.from_outside += 1;
                    }
                    Entry::Denied => self.gap(Some(netns), None, Why::Closed),
                }
            }
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("snapshot".to_owned());
            thread.spawn_scoped(scope, visit).map(drop)
        })
        .context("starting a thread")?;
        Ok(all)
    }

    /// The network namespace that this thread is in.
    fn namespace(&mut self, netns: u32) {
        self.seen.insert(Some(netns));
        let mut found = Packed::default();
        let mut subflows = false;
        // Only to those who may change the network do all kernels say what carries MPTCP.
        let subflows_are_told = has_network_capability(CapabilitySet::NET_ADMIN);
        for (proto, families) in DUMPS {
            if proto == Proto::Mptcp && subflows_are_told && !subflows {
                continue;
            }
            let query = diag::Query {
                proto,
                family: match families {
                    [one] => Some(*one),
                    _ => None,
                },
                listening: self.listening,
                netns: Some(netns),
            };
            match diag::dump(query, &mut found) {
                Ok(any) => subflows |= any,
                // Not every kernel has it.
                Err(_) if proto == Proto::Mptcp => families
                    .iter()
                    .for_each(|&family| self.gap(Some(netns), Some((proto, family)), Why::Absent)),
                Err(_) => families.iter().for_each(|&family| {
                    let directory = Path::new("/proc/thread-self/net");
                    if let Err(error) = self.table(directory, proto, family, Some(netns)) {
                        let optional = family == Family::Ipv6;
                        self.unread(Some(netns), (proto, family), &error, optional);
                    }
                }),
            }
        }
        let has_mptcp = || found.iter().any(|socket| socket.proto == Proto::Mptcp);
        if subflows || !subflows_are_told && has_mptcp() {
            self.sockets.extend(without_subflows(&found));
        } else {
            self.sockets.append(found);
        }
    }

    /// A tree that looks like /proc.
    fn tree(&mut self, root: &Path) -> Result<Namespaces> {
        let all = Namespaces::of_processes(root)?;
        for (&netns, namespace) in &all.known {
            if !self.first_of(root, namespace, netns) && namespace.is_in(root) {
                self.gap(Some(netns), None, Why::Closed);
            }
        }
        if self.closed() == all.known.len() {
            let places = [root.join("1/net"), root.join("net")];
            let mut read = (places.iter()).map(|directory| self.tables(directory, None));
            let first = read.next();
            if !matches!(first, Some(Ok(()))) {
                read.next().unwrap_or(Ok(())).with_context(|| {
                    format!(
                        "{} has no tables of sockets (such as net/tcp)",
                        root.display()
                    )
                })?;
            }
            self.one_for_all = true;
        }
        Ok(all)
    }

    /// All tables of a namespace, from the first of its tasks that is still there.
    fn first_of(&mut self, root: &Path, namespace: &Namespace, netns: u32) -> bool {
        let mut tasks = namespace.tasks(root);
        tasks.any(|task| self.tables(&task.join("net"), Some(netns)).is_ok())
    }

    /// All tables in a directory. What is missing of a tree that is not whole is noted.
    ///
    /// # Errors
    /// When none is there, or one cannot be read. Nothing of them is kept then.
    fn tables(&mut self, directory: &Path, netns: Option<u32>) -> Result<()> {
        let (sockets, gaps) = (self.sockets.end(), self.gaps.len());
        let mut unread = Vec::new();
        let mut there = None;
        for (proto, family) in TABLES {
            match self.table(directory, proto, family, netns) {
                Ok(()) => there = Some(proc::table(proto, family)),
                Err(error) => unread.push(((proto, family), error)),
            }
        }
        // A process that ended meanwhile has none any more.
        if !there.is_some_and(|name| directory.join(name).exists()) {
            // One that is there, but cannot be read, tells more.
            unread.sort_by_key(|(_, error)| error.kind() != ErrorKind::NotFound);
            if let Some((_, error)) = unread.pop() {
                self.sockets.truncate(sockets);
                self.gaps.truncate(gaps);
                return Err(error).with_context(|| directory.display().to_string());
            }
        }
        self.seen.insert(netns);
        // The kernel may do without IPv6, but then without all of it.
        let families = unread.iter().map(|((_, family), _)| *family);
        let optional = families.eq([Family::Ipv6, Family::Ipv6]);
        for (table, error) in &unread {
            self.unread(netns, *table, error, optional);
        }
        Ok(())
    }

    /// Notes a table that could not be read. `optional`: it need not be there.
    fn unread(
        &mut self,
        netns: Option<u32>,
        table: (Proto, Family),
        error: &std::io::Error,
        optional: bool,
    ) {
        let why = match optional && error.kind() == ErrorKind::NotFound {
            true => Why::Absent,
            false => Why::Unread(error.to_string()),
        };
        self.gap(netns, Some(table), why);
    }

    fn gap(&mut self, netns: Option<u32>, table: Option<(Proto, Family)>, why: Why) {
        self.gaps.push(Gap { netns, table, why });
    }

    fn table(
        &mut self,
        directory: &Path,
        proto: Proto,
        family: Family,
        netns: Option<u32>,
    ) -> std::io::Result<()> {
        let (start, listening) = (self.sockets.end(), self.listening);
        let keep = |socket: Socket| {
            if !listening || is_listening(&socket) {
                self.sockets.push(&socket, false);
            }
        };
        match proc::read(directory, proto, family, netns, keep) {
            Ok(None) => {}
            Ok(Some(why)) => self.gap(netns, Some((proto, family)), why),
            Err(error) => {
                self.sockets.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Network namespaces that could not be looked into.
    fn closed(&self) -> usize {
        let closed = self.gaps.iter().filter(|gap| gap.why == Why::Closed);
        closed.count()
    }

    /// What the user should know.
    fn limits(&self, namespaces: &Namespaces, recorded: bool) -> Vec<String> {
        let remedy = needs_root(recorded);
        let mut limits = Vec::new();
        if self.one_for_all {
            limits.push("network namespaces cannot be told apart: only one is shown".to_owned());
        } else if namespaces.denied > 0 {
            limits.push(format!(
                "the network namespaces of {} cannot be read{remedy}: sockets of other namespaces \
                 than this one may be missing",
                plural(namespaces.denied, "process", "processes")
            ));
        }
        let closed = self.closed();
        if closed > 0 && !self.one_for_all {
            limits.push(format!(
                "{} cannot be looked into{remedy}",
                plural(closed, "network namespace", "network namespaces")
            ));
        }
        if self.from_outside > 0 {
            limits.push(format!(
                "{} cannot be entered, which needs CAP_SYS_ADMIN, and {} read from /proc: MPTCP is \
                 shown as tcp there, and tcp sockets that are only bound, devices, backlogs and \
                 traffic are missing",
                plural(self.from_outside, "network namespace", "network namespaces"),
                if self.from_outside == 1 { "is" } else { "are" }
            ));
        }
        if namespaces.damaged > 0 && !self.one_for_all {
            limits.push(format!(
                "the network namespaces of {} are not told",
                plural(namespaces.damaged, "process", "processes")
            ));
        }
        let mut lines = 0;
        let mut tables: Vec<String> = Vec::new();
        for gap in &self.gaps {
            match (&gap.why, gap.table) {
                (Why::Lines(count), _) => lines += count,
                (Why::Unread(error), Some((proto, family))) => {
                    let text = format!("{}: {error}", proc::table(proto, family));
                    // in whatever namespaces
                    if !tables.contains(&text) {
                        tables.push(text);
                    }
                }
                _ => {}
            }
        }
        if lines > 0 {
            limits.push(format!(
                "{} of tables of sockets could not be understood and {} left out",
                plural(lines, "line", "lines"),
                if lines == 1 { "is" } else { "are" }
            ));
        }
        if !tables.is_empty() {
            let tables = tables.join(", ");
            limits.push(format!("tables of sockets could not be read: {tables}"));
        }
        limits
    }
}

/// How to get what was denied, to be put behind a sentence; root would not help root.
pub fn needs_root(recorded: bool) -> &'static str {
    match recorded || rustix::process::geteuid().is_root() {
        true => "",
        false => ", which needs root",
    }
}

pub fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn is_listening(socket: &Socket) -> bool {
    match socket.proto {
        Proto::Udp => socket.state == State::Unconn,
        _ => socket.state == State::Listen,
    }
}

/// An MPTCP connection is shown as what it is and as the tcp connections that carry it: here once.
fn without_subflows(found: &Packed) -> impl Iterator<Item = Socket> {
    type Ends = ((IpAddr, u16), Option<(IpAddr, u16)>);
    let ends = |socket: &Socket| -> Ends { (socket.local, socket.remote) };
    let (mut inodes, mut carried) = (HashSet::new(), HashSet::new());
    let (mut cookies, mut shared) = (HashSet::new(), HashSet::new());
    for socket in found.iter().filter(|socket| socket.proto == Proto::Mptcp) {
        inodes.extend(socket.inode);
        carried.insert(ends(&socket));
        shared.extend((socket.sock).filter(|&cookie| !cookies.insert(cookie)));
    }
    found.places().filter_map(move |(_, mut socket, subflow)| {
        // On older kernels an accepted one has the cookie of its listener.
        if socket.proto == Proto::Mptcp && socket.state != State::Listen {
            socket.sock = socket.sock.filter(|cookie| !shared.contains(cookie));
        }
        if socket.proto == Proto::Tcp {
            let known = socket.inode.is_some_and(|inode| inodes.contains(&inode));
            // Several listeners may have one address; all have an inode.
            let listens = socket.state == State::Listen;
            if known || subflow && !listens && carried.contains(&ends(&socket)) {
                return None;
            }
            if subflow {
                // Kernels before 5.18 do not tell of listeners, later ones not of each where more than
                // two share an address, none of connections that fell back to tcp: of their subflows the
                // first stands for them.
                inodes.extend(socket.inode);
                (socket.proto, socket.sock, socket.traffic) = (Proto::Mptcp, None, None);
            }
        }
        Some(socket)
    })
}
