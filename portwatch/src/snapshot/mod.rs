//! All sockets of the machine at one moment, by the best means this process is allowed.

mod diag;
mod holders;
mod namespaces;
mod owner;
mod proc;
mod read;
mod socket;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::clock::{Clock, boot};
use crate::event::{Kind, Origin, Peer, Proto};
use crate::row::{Row, State};

pub use holders::Holders;
pub use owner::{Owner, Owners};
pub use read::{Sockets, read};
pub use socket::{Socket, Traffic};

/// What to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Another /proc, such as that of the host in a container, or a recorded one. `None`: this
    /// machine's, with sock_diag where the kernel has it.
    pub proc_root: Option<PathBuf>,
    /// Only tcp sockets that listen and udp sockets without a peer.
    pub listening: bool,
    /// Whose sockets they are: owners and holders.
    pub holders: bool,
    /// Bytes, rtt and retransmits of tcp connections.
    pub tcp_info: bool,
}

/// The sockets of one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub rows: Vec<Row>,
    /// What could not be seen, and why, each a sentence for the user: other network namespaces, owners, …
    pub limits: Vec<String>,
}

/// Takes a snapshot. Rows have no order. Without root it is not whole, and says so.
///
/// # Errors
/// When there is nothing to read: no proc file system where one should be.
pub fn take(options: &Options) -> Result<Snapshot> {
    let mut rows = rows(options)?;
    Ok(Snapshot {
        limits: std::mem::take(&mut rows.limits),
        rows: rows.collect(),
    })
}

/// Takes a snapshot whose rows are made one by one as they are asked for, since all of them
/// together take several times the room.
///
/// # Errors
/// As [`take`].
pub fn rows(options: &Options) -> Result<Rows> {
    let root = options.proc_root.as_deref();
    let (sockets, holders) = std::thread::scope(|scope| {
        // Both take most of their time in the kernel.
        let sockets = scope.spawn(|| read(options));
        let holders = match options.holders {
            true => Holders::read(root.unwrap_or(Path::new("/proc"))),
            false => Ok(Holders::default()),
        };
        (sockets.join(), holders)
    });
    let Sockets { list, mut limits } = sockets.unwrap_or_else(|panic| resume_unwind(panic))?;
    let holders = holders?;
    limits.extend(holders.limits());
    let clock = Clock::new();
    let join = Join {
        now: clock.wall(boot()),
        listeners: Listeners::of(&list),
        owners: Owners::new(root),
        known: HashMap::new(),
        holders,
        tcp_info: options.tcp_info,
    };
    Ok(Rows {
        list: list.into_iter(),
        join,
        limits,
    })
}

/// The rows of a snapshot.
pub struct Rows {
    list: std::vec::IntoIter<Socket>,
    join: Join,
    /// As those of [`Snapshot`].
    pub limits: Vec<String>,
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        Some(self.join.row(self.list.next()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.list.size_hint()
    }
}

/// Makes rows of sockets and processes.
struct Join {
    now: u64,
    listeners: Listeners,
    holders: Holders,
    owners: Owners,
    /// Owners already asked for.
    known: HashMap<u32, Option<Owner>>,
    tcp_info: bool,
}

impl Join {
    fn row(&mut self, socket: Socket) -> Row {
        let kind = match socket.state {
            State::Listen => Kind::Listen,
            State::Unconn => Kind::Bind,
            _ if self.listeners.accepted(&socket) => Kind::Accept,
            _ => Kind::Connect,
        };
        let mut event = socket.event(kind, Origin::Seed, self.now);
        if self.tcp_info {
            socket.put_traffic(&mut event);
        }
        let inode = socket.inode.into_iter();
        let pids = inode.flat_map(|inode| self.holders.of(inode));
        let owners = &mut self.owners;
        let mut owner = |pid: u32| {
            let known = self.known.entry(pid);
            known.or_insert_with(|| owners.owner(pid)).clone()
        };
        match pids.clone().find_map(&mut owner) {
            Some(owner) => owner.put(&mut event),
            None => event.context = event.uid.and_then(|uid| owners.user(uid)),
        }
        let peers = pids.map(|pid| Peer {
            pid,
            comm: owners.comm(pid).unwrap_or_default(),
            sock: socket.sock,
        });
        let peers: Vec<Peer> = peers.collect();
        event.holders = (!peers.is_empty()).then_some(peers);
        Row {
            event,
            state: socket.state,
            since: None,
            recv_queue: Some(socket.recv_queue),
            send_queue: socket.send_queue,
            inode: socket.inode,
            v6only: socket.v6only,
        }
    }
}

/// Where connections are accepted, to tell them from those that were made from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners(HashSet<(Option<u32>, IpAddr, u16)>);

impl Listeners {
    pub fn of(sockets: &[Socket]) -> Self {
        let listeners = sockets.iter().filter(|x| x.state == State::Listen);
        Self(listeners.map(|x| (x.netns, x.local.0, x.local.1)).collect())
    }

    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether a connection came in through one of them.
    pub fn accepted(&self, socket: &Socket) -> bool {
        let (address, port) = socket.local;
        let places = [
            address,
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        socket.proto != Proto::Udp
            && socket.remote.is_some()
            && (places.iter()).any(|place| self.0.contains(&(socket.netns, *place, port)))
    }
}
