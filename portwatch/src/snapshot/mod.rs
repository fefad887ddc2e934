//! All sockets of the machine at one moment, by the best means this process is allowed.

mod diag;
pub(crate) mod file;
mod gap;
mod holders;
mod iterator;
mod namespaces;
mod owner;
mod packed;
mod proc;
mod read;
mod socket;

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rustc_hash::FxHashMap;

use crate::clock::{Clock, boot};
use crate::event::{Kind, Origin, Peer, Proto};
use crate::row::{Row, State};
use crate::threads::both;

use packed::{Packed, Place};

pub use gap::{Gap, Scope, Why};
pub use holders::Holders;
pub use namespaces::{first_netns, own as own_netns};
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
    /// Those from /proc also where the kernel would tell them by eBPF.
    pub without_ebpf: bool,
    /// Bytes, rtt and retransmits of tcp connections.
    pub tcp_info: bool,
    /// Rows in the order of [`Row::place`]; else they have none.
    pub in_order: bool,
}

/// The sockets of one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub rows: Vec<Row>,
    /// What could not be seen, and why, each a sentence for the user: other network namespaces, owners, …
    pub limits: Vec<String>,
}

/// Takes a snapshot. Without root it is not whole, and says so.
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
    // Both take most of their time in the kernel.
    let (sockets, holders) = both(
        || {
            let sockets = read(options)?;
            let mut order = Vec::new();
            let mut listeners = Listeners::default();
            let mut connected = vec![false; usize::from(u16::MAX) + 1];
            for (place, socket, _) in sockets.list.places() {
                let port = socket.local.1;
                order.extend(options.in_order.then_some((port, place)));
                connected[usize::from(port)] |= socket.remote.is_some();
                listeners.add(&socket);
            }
            // Of ports without connections nobody will ask, and listeners may be many.
            (listeners.0).retain(|&(port, ..)| connected[usize::from(port)]);
            listeners.0.sort_unstable();
            let order = options.in_order.then(|| sorted(order, &sockets.list));
            Ok::<_, anyhow::Error>((sockets, order, listeners))
        },
        || match root {
            _ if !options.holders => Ok(Holders::default()),
            Some(root) => Holders::read(root),
            None if options.without_ebpf => Holders::read(Path::new("/proc")),
            None => Holders::of_machine(),
        },
    );
    let (sockets, order, listeners) = sockets?;
    let Sockets {
        list,
        denied,
        mut limits,
        namespaces,
        gaps,
    } = sockets;
    let mut holders = holders?;
    // The kernel's own sockets have no holder either, so this only counts where processes are hidden.
    if denied > 0 {
        holders.count_lonely(&list);
    }
    limits.extend(holders.limits());
    let holders = Arc::new(holders);
    let clock = Clock::new();
    let join = Join {
        now: clock.wall(boot()),
        listeners,
        owners: Owners::new(root),
        known: FxHashMap::default(),
        holders: holders.clone(),
        tcp_info: options.tcp_info,
    };
    Ok(Rows {
        list,
        order: order.map(Vec::into_iter),
        next: Place::default(),
        join,
        limits,
        scope: Scope {
            namespaces,
            gaps,
            holders,
        },
    })
}

/// The places of the list in the order that their rows are to have, from ports and places.
fn sorted(mut order: Vec<(u16, Place)>, list: &Packed) -> Vec<Place> {
    // Most have a port of their own, so this settles nearly all of it.
    order.sort_unstable();
    for same_port in order.chunk_by_mut(|(a, _), (b, _)| a == b) {
        if same_port.len() > 1 {
            same_port
                .sort_by_cached_key(|&(_, at)| list.get(at).map(|(socket, ..)| socket.place()));
        }
    }
    order.into_iter().map(|(_, place)| place).collect()
}

/// The rows of a snapshot.
pub struct Rows {
    list: Packed,
    /// `None`: as they are in the list.
    order: Option<std::vec::IntoIter<Place>>,
    next: Place,
    join: Join,
    /// As those of [`Snapshot`].
    pub limits: Vec<String>,
    /// What it proves of sockets without a row.
    pub scope: Scope,
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let place = match &mut self.order {
            Some(order) => order.next()?,
            None => self.next,
        };
        let (socket, _, next) = self.list.get(place)?;
        self.next = next;
        Some(self.join.row(&socket))
    }
}

/// Makes rows of sockets and processes.
struct Join {
    now: u64,
    listeners: Listeners,
    holders: Arc<Holders>,
    owners: Owners,
    known: FxHashMap<u32, Known>,
    tcp_info: bool,
}

/// A process already asked for.
struct Known {
    comm: String,
    /// Read when it is the first of those that hold a socket, which are seldom all.
    owner: OnceCell<Option<Owner>>,
}

impl Join {
    fn row(&mut self, socket: &Socket) -> Row {
        let kind = match socket.state {
            State::Listen => Kind::Listen,
            State::Unconn => Kind::Bind,
            _ if self.listeners.accepted(socket) => Kind::Accept,
            _ => Kind::Connect,
        };
        let mut event = socket.event(kind, Origin::Seed, self.now);
        if self.tcp_info {
            socket.put_traffic(&mut event);
        }
        let mut peers = Vec::new();
        for pid in socket.inode.into_iter().flat_map(|x| self.holders.of(x)) {
            let known = self.known.entry(pid).or_insert_with(|| Known {
                comm: self.owners.comm(pid).unwrap_or_default(),
                owner: OnceCell::new(),
            });
            if event.pid.is_none()
                && let Some(owner) = known.owner.get_or_init(|| self.owners.owner(pid))
            {
                owner.put(&mut event);
            }
            peers.push(Peer {
                pid,
                comm: known.comm.clone(),
                sock: socket.sock,
            });
        }
        if event.pid.is_none() {
            event.context = event.uid.and_then(|uid| self.owners.user(uid));
        }
        event.holders = (!peers.is_empty()).then_some(peers);
        Row {
            event,
            state: socket.state,
            device: socket.device,
            since: None,
            recv_queue: Some(socket.recv_queue),
            send_queue: socket.send_queue,
            v6only: socket.v6only,
        }
    }
}

/// Where connections are accepted, to tell them from those that were made from here: port, address and
/// network namespace, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners(Vec<(u16, IpAddr, Option<u32>)>);

impl Listeners {
    pub fn of(sockets: impl IntoIterator<Item = Socket>) -> Self {
        let mut places = Self::default();
        sockets.into_iter().for_each(|socket| places.add(&socket));
        places.0.sort_unstable();
        places
    }

    /// Adds it out of order, if it is one.
    fn add(&mut self, socket: &Socket) {
        let place = (socket.local.1, socket.local.0, socket.netns);
        (self.0).extend((socket.state == State::Listen).then_some(place));
    }

    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
        self.0.sort_unstable();
    }

    /// Whether a connection came in through one of them.
    pub fn accepted(&self, socket: &Socket) -> bool {
        let (address, port) = socket.local;
        let places = [
            address,
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        let is_place = |place| self.0.binary_search(&(port, place, socket.netns)).is_ok();
        socket.proto != Proto::Udp && socket.remote.is_some() && places.into_iter().any(is_place)
    }
}
