//! A line of a pane: a socket, or several that serve one address together (SO_REUSEPORT).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use crate::event::Peer;
use crate::group;
use crate::row::Row;
use crate::table::{Compact, Key, Sight, Table};

/// What is to be shown on one line.
pub struct Line<'a> {
    /// The one that stands for all.
    pub sight: Sight<'a>,
    /// Of all of them together, as [`group::servers`] has it.
    pub row: Row,
    /// How many others there are.
    pub others: usize,
}

/// Sockets that serve one address together: the one that stands for all of them, which is that of the
/// process with the lowest pid, with the others in the same order.
#[derive(Debug, Default)]
pub struct Groups {
    others: HashMap<Key, Vec<Key>>,
    first: HashMap<Key, Key>,
}

impl Groups {
    pub fn of(table: &Table) -> Self {
        let hasher = RandomState::new();
        // By a hash of the address, as there may be very many.
        let mut seen: HashMap<u64, Key> = HashMap::new();
        let mut members: HashMap<Key, Vec<Sight>> = HashMap::new();
        for sight in table.iter().filter(is_server) {
            let hash = hasher.hash_one(address(sight.socket));
            let first = *seen.entry(hash).or_insert(sight.key);
            if first == sight.key {
                continue;
            }
            let Some(other) = table.get(first) else {
                continue;
            };
            if address(other.socket) == address(sight.socket) {
                let members = members.entry(first).or_insert_with(|| vec![other]);
                members.push(sight);
            }
        }
        let mut groups = Self::default();
        for mut members in members.into_values() {
            members.sort_unstable_by_key(|sight| (sight.socket.pid, sight.key));
            let mut keys = members.into_iter().map(|sight| sight.key);
            let Some(first) = keys.next() else { continue };
            let others: Vec<Key> = keys.collect();
            groups.first.extend(others.iter().map(|&key| (key, first)));
            groups.others.insert(first, others);
        }
        groups
    }

    /// The one that stands for a socket, which may be itself.
    pub fn first_of(&self, key: Key) -> Key {
        self.first.get(&key).copied().unwrap_or(key)
    }

    /// The line of a socket that is alone or stands for others.
    pub fn line<'a>(&self, sight: Sight<'a>, table: &Table) -> Line<'a> {
        let others = self.others_of(sight);
        let row = if others.is_empty() {
            sight.row()
        } else {
            let sights = others.iter().filter_map(|&key| table.get(key));
            let rows = std::iter::once(sight).chain(sights).map(with_holders);
            // They have one address, so they become one row.
            group::servers(rows).next().expect("there is a first")
        };
        Line {
            sight,
            row,
            others: others.len(),
        }
    }

    /// The others that an open socket stands for.
    pub fn others_of(&self, sight: Sight) -> &[Key] {
        let others = self.others.get(&sight.key).filter(|_| sight.end.is_none());
        others.map_or(&[], |x| x)
    }
}

fn is_server(sight: &Sight) -> bool {
    sight.end.is_none() && group::is_server(sight.socket.state, sight.socket.proto)
}

/// What sockets of a group have in common.
fn address(socket: &Compact) -> impl PartialEq + std::hash::Hash {
    (
        socket.netns,
        socket.proto,
        socket.family,
        socket.laddr,
        socket.lport,
        socket.device,
    )
}

/// A row with its owner for a holder, until a snapshot has told who else is one.
fn with_holders(sight: Sight) -> Row {
    let mut row = sight.row();
    let event = &mut row.event;
    if event.holders.is_none()
        && let (Some(pid), Some(comm)) = (event.pid, event.comm)
    {
        event.holders = Some(vec![Peer {
            pid,
            comm: comm.text().into_owned(),
            sock: event.sock,
        }]);
    }
    row
}
