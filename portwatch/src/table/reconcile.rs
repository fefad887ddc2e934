//! The table beside a snapshot: filled from the first, compared with later ones.
//!
//! A snapshot is not taken at one moment, and events arrive a little late. So what events told of
//! since the snapshot began is left to them, and what differs counts only when the next snapshot
//! differs in the same way.

use std::collections::HashSet;
use std::iter::{from_fn, once, once_with};

use crate::event::{Event, Kind, Origin, Peer, Proto, spelled};
use crate::row::{Row, State};
use crate::snapshot::Scope;

use super::compact::{Compact, Holders};
use super::{Closed, Key, Open, Table, at};

spelled! {
    /// What no event told.
    What {
        Opened = "opened without an event",
        Changed = "changed without an event",
        Gone = "closed without an event",
    }
}

/// A difference seen for the first time.
pub(super) type Doubt = (Key, What);

/// A difference between the table and two snapshots in a row, now repaired.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub what: What,
    /// The socket as it is, or was before it was gone.
    pub row: Row,
}

impl Difference {
    /// The event that is missing, as far as it can be made up for at `now` (nanoseconds since the
    /// Unix epoch): origin `poll`, as it was learned by comparing.
    pub fn event(&self, now: u64) -> Event {
        let mut event = self.row.event.clone();
        if self.what == What::Gone {
            event.kind = Kind::Close;
            event.latency_us = None;
            event.backlog = None;
        }
        event.origin = Origin::Poll;
        event.ts = now;
        // Those of a row are of now.
        event.holders = None;
        event
    }
}

impl Table {
    /// From here on remembers which sockets events tell of, until [`Table::seed`] or
    /// [`Table::reconcile`]. To be called before a snapshot is begun; the snapshot is to be handed
    /// over when the events of the time when it was taken are in.
    pub fn watch(&mut self) {
        self.touched = Some(HashSet::new());
    }

    /// Fills the table with the sockets that were open before the first event.
    pub fn seed(&mut self, rows: impl IntoIterator<Item = Row>) {
        let touched = self.touched.take().unwrap_or_default();
        let mut shared = Shared::default();
        let mut seen = HashSet::new();
        for row in unnamed_last(rows) {
            let key = self.place(&row, &seen);
            seen.insert(key);
            let told = owed(&row);
            if self.open.contains_key(&key) || told && touched.contains(&key) {
                continue;
            }
            let open = self.seeded(&row, &mut shared, told);
            self.insert(key, open);
        }
        self.replace_by(&touched);
        self.version += 1;
    }

    /// Compares with a snapshot, takes over what no event tells (holders, queues, states such as
    /// CLOSE-WAIT), and repairs what differed the last time already; what is missing and need not be in the
    /// snapshot by its `scope` stays. `now`: nanoseconds since the Unix epoch. Returns the differences that were
    /// repaired.
    pub fn reconcile(
        &mut self,
        rows: impl IntoIterator<Item = Row>,
        scope: &Scope,
        now: u64,
    ) -> Vec<Difference> {
        let touched = self.touched.take().unwrap_or_default();
        let before = std::mem::take(&mut self.doubts);
        let mut differences = Vec::new();
        let mut seen = HashSet::with_capacity(self.open.len());
        let mut shared = Shared::default();
        for row in unnamed_last(rows) {
            let key = self.place(&row, &seen);
            let news = touched.contains(&key);
            if row.state == State::TimeWait && self.is_told(key) {
                // What is left of a socket, not the socket itself.
                continue;
            }
            seen.insert(key);
            let what = match self.open.get(&key) {
                None if news && owed(&row) => continue,
                None if !owed(&row) => None,
                None => Some(What::Opened),
                Some(_) if news => None,
                Some(open) if !open.told => owed(&row).then_some(What::Opened),
                Some(open) => (class(&row) != class_of(&open.socket)).then_some(What::Changed),
            };
            let confirmed = what.is_some_and(|what| !self.doubts_newly(&before, (key, what)));
            match what {
                Some(what) if confirmed => {
                    let mut open = self.seeded(&row, &mut shared, true);
                    if let Some(old) = self.take(key)
                        && open.socket.pid.get().is_none()
                    {
                        open.socket.owner(&old.socket.row().event);
                    }
                    self.insert(key, open);
                    differences.push(Difference { what, row });
                }
                Some(What::Changed) => {}
                _ => self.take_over(key, &row, &mut shared, news),
            }
        }
        self.replace_by(&touched);
        let missing = self.open.iter().filter_map(|(&key, open)| {
            let seen = seen.contains(&key) || touched.contains(&key);
            let gone = !seen && (!open.told || can_be_seen(&open.socket, scope));
            gone.then_some((key, open.told))
        });
        for (key, told) in missing.collect::<Vec<_>>() {
            if told && self.doubts_newly(&before, (key, What::Gone)) {
                continue;
            }
            let Some(Open { socket, .. }) = self.take(key) else {
                continue;
            };
            let held = socket.inode.get().is_some_and(|inode| scope.holds(inode));
            if told && !held {
                let row = socket.row();
                let what = What::Gone;
                differences.push(Difference { what, row });
                let closed = Closed {
                    key,
                    socket,
                    at: now,
                    error: None,
                    cause: None,
                    reason: None,
                    duration_us: None.into(),
                };
                self.closed.bury(closed, self.limits.closed);
            } else {
                self.unsaid += 1;
            }
        }
        self.version += 1;
        differences
    }

    /// Whether something differed that only another comparison can decide.
    pub fn in_doubt(&self) -> bool {
        !self.doubts.is_empty()
    }

    /// Whether this difference is new; then the next comparison decides.
    fn doubts_newly(&mut self, before: &HashSet<Doubt>, doubt: Doubt) -> bool {
        let new = !before.contains(&doubt);
        if new {
            self.doubts.insert(doubt);
        }
        new
    }

    /// Where the socket of a row is: it may have got its cookie after its first event, or the snapshot
    /// does not tell it. `seen` are those whose rows have come.
    fn place(&self, row: &Row, seen: &HashSet<Key>) -> Key {
        let key = self.keys.of(&row.event);
        let unnamed = once_with(|| self.keys.of_addresses(&row.event));
        let mut places = once(key).chain(unnamed).chain(self.listeners_of(row));
        let free = |place: &Key| {
            self.open.contains_key(place) && !(is_unnamed(row) && seen.contains(place))
        };
        places.find(free).unwrap_or(key)
    }

    /// Listeners that a row without a cookie may be.
    fn listeners_of(&self, row: &Row) -> impl Iterator<Item = Key> {
        let event = &row.event;
        let port = event.lport.filter(|_| is_unnamed(row));
        let keys = port.map(|port| at(&self.listeners, event.netns.into(), port));
        keys.into_iter().flatten().filter(|key| {
            let socket = self.open.get(key).map(|open| &open.socket);
            socket.is_some_and(|x| (x.proto, x.laddr) == (event.proto, event.laddr))
        })
    }

    fn is_told(&self, key: Key) -> bool {
        self.open.get(&key).is_some_and(|open| open.told)
    }

    fn seeded(&self, row: &Row, shared: &mut Shared, told: bool) -> Open {
        let mut socket = Compact::of_row(row, shared.holders(row));
        socket.origin = Origin::Seed;
        if row.state == State::Listen {
            socket.backlog = row.event.backlog.or(row.send_queue).into();
            socket.accepted = row.event.accepted.into();
        }
        Open {
            bound: row.event.kind == Kind::Bind,
            socket,
            told,
        }
    }

    /// What a snapshot tells of a socket that is where it should be, or that no event tells of.
    fn take_over(&mut self, key: Key, row: &Row, shared: &mut Shared, news: bool) {
        let Some(open) = self.open.get_mut(&key) else {
            let open = self.seeded(row, shared, false);
            return self.insert(key, open);
        };
        // Listeners are told by events, or repaired above.
        let listens = open.socket.state == State::Listen || row.state == State::Listen;
        let moves = !news && !listens && open.socket.state != row.state;
        let holders = shared.holders(row);
        if !moves && open.socket.inode == row.event.inode.into() {
            return open.socket.refresh(row, holders);
        }
        // It is found by both.
        if let Some(mut open) = self.take(key) {
            open.socket.refresh(row, holders);
            if moves {
                open.socket.state = row.state;
                if row.state == State::TimeWait {
                    open.socket.ts = row.event.ts;
                }
            }
            self.insert(key, open);
        }
    }

    /// A snapshot may have found what connections that events told of meanwhile replaced.
    fn replace_by(&mut self, touched: &HashSet<Key>) {
        for key in touched {
            let socket = self.open.get(key).map(|open| &open.socket);
            let connection = socket.filter(|x| x.rport.is_some() && x.state != State::TimeWait);
            if let Some(addresses) = connection.map(|x| self.keys.by_addresses(x)) {
                self.replace(addresses);
            }
        }
    }
}

/// Lists of holders, each kept once.
#[derive(Default)]
pub(super) struct Shared(HashSet<Holders>);

impl Shared {
    pub(super) fn holders(&mut self, row: &Row) -> Option<Holders> {
        let holders = row.event.holders.as_deref().filter(|x| !x.is_empty())?;
        // Which socket is clear here; without it, many sockets have the same holders.
        let holders: Holders = holders
            .iter()
            .map(|peer| Peer {
                sock: None,
                ..peer.clone()
            })
            .collect();
        if let Some(known) = self.0.get(&holders) {
            return Some(known.clone());
        }
        self.0.insert(holders.clone());
        Some(holders)
    }
}

/// Whether it is an MPTCP listener whose cookie nobody told: kernels before 5.18 do not, later ones not of
/// all where more than two are at one address.
fn is_unnamed(row: &Row) -> bool {
    let mptcp = row.event.proto == Some(Proto::Mptcp);
    mptcp && row.state == State::Listen && row.event.sock.is_none()
}

/// Those are then taken for what the others left.
fn unnamed_last(rows: impl IntoIterator<Item = Row>) -> impl Iterator<Item = Row> {
    let mut rows = rows.into_iter();
    let mut unnamed = Vec::new();
    from_fn(move || {
        for row in rows.by_ref() {
            match is_unnamed(&row) {
                true => unnamed.push(row),
                false => return Some(row),
            }
        }
        unnamed.pop()
    })
}

/// Whether an event should have told of this socket. None tells of connections that nobody has
/// accepted yet, of what is left of them after their end (TIME-WAIT, or a socket of tcp that is only bound),
/// and of sockets of other protocols.
fn owed(row: &Row) -> bool {
    let held = row.event.inode.is_some_and(|inode| inode != 0);
    let proto = matches!(
        row.event.proto,
        Some(Proto::Tcp | Proto::Udp | Proto::Mptcp)
    );
    let state = match row.state {
        State::Unconn => {
            row.event.proto == Some(Proto::Udp) && row.event.lport.is_some_and(|port| port != 0)
        }
        State::SynSent | State::SynRecv | State::TimeWait => false,
        _ => true,
    };
    held && proto && state
}

/// As far as events tell states apart.
#[derive(PartialEq)]
enum Class {
    Listening,
    Connected,
    Neither,
}

fn class(row: &Row) -> Class {
    class_in(row.event.proto, row.state)
}

fn class_of(socket: &Compact) -> Class {
    class_in(socket.proto, socket.state)
}

fn class_in(proto: Option<Proto>, state: State) -> Class {
    match state {
        State::Listen => Class::Listening,
        State::Unconn | State::SynSent => Class::Neither,
        // A udp socket is connected and disconnected at will.
        _ if proto == Some(Proto::Udp) => Class::Neither,
        _ => Class::Connected,
    }
}

/// Whether the snapshot would show this socket, were it still there. Of tcp sockets that are only bound not
/// every kernel tells: only if one did before.
fn can_be_seen(socket: &Compact, scope: &Scope) -> bool {
    let (netns, inode) = (socket.netns.get(), socket.inode.get());
    let table = socket.proto.zip(socket.family);
    if !scope.namespaces.contains(&netns) {
        // Where it was is gone, or nothing but sockets is left there: then it has to be held.
        let let_go = inode.is_some_and(|inode| !scope.holds(inode) && scope.holders.all_seen());
        return let_go && !scope.has_gap(netns, table);
    }
    let only_bound = socket.state == State::Unconn && socket.proto != Some(Proto::Udp);
    (!only_bound || inode.is_some()) && !scope.has_gap(netns, table)
}
