//! The live table: every open socket, and those that closed just now. Sans-IO: it takes events,
//! snapshots and the time, and knows nothing of where they come from. Here is what it holds, and how
//! that is found.

mod apply;
mod checkpoint;
mod closed;
mod compact;
mod history;
mod key;
#[cfg(test)]
mod model;
mod reconcile;
#[cfg(test)]
mod tests;
mod unheld;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::num::NonZeroUsize;

use indexmap::IndexMap;

use crate::event::{Family, Proto};
use crate::row::{Row, State};

pub use closed::Closed;
pub use compact::Compact;
pub use history::{History, Past};
pub use key::Key;
pub use reconcile::{Difference, What};

use closed::Graves;
use compact::Maybe;
use key::Keys;
use reconcile::Doubt;
use unheld::waiting;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Closed sockets stay in sight for this long, in nanoseconds.
    pub closed_ns: u64,
    /// Most closed sockets kept of either kind: servers, connections.
    pub closed: usize,
    /// Ports whose history is kept, of those with a server and of others each.
    pub ports: NonZeroUsize,
    /// Happenings kept of each of them.
    pub happenings: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            closed_ns: 5_000_000_000,
            closed: 5_000,
            ports: const { NonZeroUsize::new(1_000).unwrap() },
            happenings: 16,
        }
    }
}

/// An open socket.
#[derive(Clone, Debug)]
struct Open {
    socket: Compact,
    /// It was bound before it was connected, so it outlives a failed attempt.
    bound: bool,
    /// An event told of it, or should have: then one has to tell of its end, too.
    told: bool,
}

/// One socket of the table, open or closed.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    pub key: Key,
    pub socket: &'a Compact,
    /// How it ended, when it did.
    pub end: Option<&'a Closed>,
}

impl Sight<'_> {
    /// The whole row; of what is closed with what is known of its end, as a `close` has it.
    pub fn row(&self) -> Row {
        let mut row = self.socket.row();
        if let Some(end) = self.end {
            row.event.error = end.error;
            row.event.cause = end.cause;
            row.event.reason = end.reason;
            row.event.duration_us = end.duration_us.get();
        }
        row
    }
}

#[derive(Clone, Debug)]
pub struct Table {
    limits: Limits,
    keys: Keys,
    open: IndexMap<Key, Open>,
    closed: Graves,
    /// Keys of the listeners by network namespace and port.
    listeners: BTreeSet<Place>,
    /// Keys of connections that wait to be accepted, in the same way.
    waiting: BTreeSet<Place>,
    /// Keys of what is in TIME-WAIT by a key of its addresses.
    left: BTreeMap<Key, Key>,
    /// No TIME-WAIT is over before.
    left_until: u64,
    history: History,
    /// Sockets that events told of since [`Table::watch`].
    touched: Option<HashSet<Key>>,
    /// What was different at the last comparison, and not before.
    doubts: HashSet<Doubt>,
    /// Sockets that went without an event.
    unsaid: u64,
    lost: u64,
    version: u64,
}

impl Table {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            keys: Keys::default(),
            open: IndexMap::new(),
            closed: Graves::default(),
            listeners: BTreeSet::new(),
            waiting: BTreeSet::new(),
            left: BTreeMap::new(),
            left_until: u64::MAX,
            history: History::new(limits.ports, limits.happenings),
            touched: None,
            doubts: HashSet::new(),
            unsaid: 0,
            lost: 0,
            version: 0,
        }
    }

    /// Forgets what closed too long ago, and what cannot be in TIME-WAIT any more. `now`: nanoseconds
    /// since the Unix epoch.
    pub fn tick(&mut self, now: u64) {
        let gone = |closed: &Closed| now.saturating_sub(closed.at) >= self.limits.closed_ns;
        self.version += self.closed.forget(gone) + self.expire(now);
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Events that never came, as far as the source knows.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// How many sockets went without an event, and needed none, since the start.
    pub fn unsaid(&self) -> u64 {
        self.unsaid
    }

    /// Number of open sockets.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// All sockets, the open ones first, in no order. What lives on is not among the closed ones.
    pub fn iter(&self) -> impl Iterator<Item = Sight<'_>> {
        let open = self.open.iter().map(|(&key, open)| Sight {
            key,
            socket: &open.socket,
            end: None,
        });
        let closed = (self.closed.iter()).filter(|x| !self.open.contains_key(&x.key));
        open.chain(closed.map(Closed::sight))
    }

    /// A socket by its key: the open one, or the one that closed last.
    pub fn get(&self, key: Key) -> Option<Sight<'_>> {
        let open = self.open.get(&key).map(|open| Sight {
            key,
            socket: &open.socket,
            end: None,
        });
        open.or_else(|| self.closed.last(key).map(Closed::sight))
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    fn insert(&mut self, key: Key, open: Open) {
        if let Some(place) = listening(key, &open.socket) {
            self.listeners.insert(place);
        }
        if let Some(place) = waiting(key, &open) {
            self.waiting.insert(place);
        }
        if open.socket.rport.is_some() {
            let addresses = self.keys.by_addresses(&open.socket);
            self.replace(addresses);
            if open.socket.state == State::TimeWait {
                self.leave(addresses, key, open.socket.ts);
            }
        }
        self.open.insert(key, open);
    }

    fn take(&mut self, key: Key) -> Option<Open> {
        let open = self.open.swap_remove(&key)?;
        if let Some(place) = listening(key, &open.socket) {
            self.listeners.remove(&place);
        }
        if let Some(place) = waiting(key, &open) {
            self.waiting.remove(&place);
        }
        if open.socket.state == State::TimeWait {
            let addresses = self.keys.by_addresses(&open.socket);
            self.left.remove(&addresses);
        }
        Some(open)
    }
}

/// Network namespace, local port, and who is there.
type Place = (Maybe<u32>, u16, Key);

/// Who is at a port.
fn at(places: &BTreeSet<Place>, netns: Maybe<u32>, port: u16) -> impl Iterator<Item = Key> {
    let range = (netns, port, Key::FIRST)..=(netns, port, Key::LAST);
    places.range(range).map(|&(.., key)| key)
}

/// Where a listener is found by what it accepts.
fn listening(key: Key, socket: &Compact) -> Option<Place> {
    let listens = socket.state == State::Listen && socket.proto != Some(Proto::Udp);
    listens.then_some((socket.netns, socket.lport?, key))
}

/// To what a connection came, but for the port.
type To = (Option<Proto>, Option<Family>, Option<IpAddr>);

/// How well a listener on its port fits; `None` if not at all.
fn accepts(listener: &Compact, (proto, family, laddr): To) -> Option<(bool, bool)> {
    let exact = listener.laddr == laddr;
    let any = listener.laddr.is_none_or(|addr| addr.is_unspecified());
    let fits = listener.proto == proto && (exact || any);
    fits.then_some((exact, listener.family == family))
}
