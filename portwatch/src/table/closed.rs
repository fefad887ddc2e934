//! What closed just now, for as long as it stays in sight.

use std::collections::VecDeque;

use super::Sight;
use super::compact::{Compact, Maybe};
use super::key::Key;
use crate::event::Cause;

/// A socket that closed, or an attempt to connect that failed.
#[derive(Clone, Debug)]
pub struct Closed {
    pub(super) key: Key,
    pub socket: Compact,
    /// Nanoseconds since the Unix epoch.
    pub at: u64,
    /// errno, of an attempt that failed.
    pub error: Option<u16>,
    pub cause: Option<Cause>,
    pub reason: Option<&'static str>,
    pub(super) duration_us: Maybe<u64>,
}

impl Closed {
    pub(super) fn sight(&self) -> Sight<'_> {
        Sight {
            key: self.key,
            socket: &self.socket,
            end: Some(self),
        }
    }
}

/// The closed ones in the order of their ends. Servers lie apart: connections come and go by the
/// thousands, and would crowd out the one listener that was there for a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Graves {
    servers: VecDeque<Closed>,
    connections: VecDeque<Closed>,
}

impl Graves {
    /// Adds one; where there are `most` of its kind already, the oldest makes room.
    pub fn bury(&mut self, closed: Closed, most: usize) {
        let kind = match closed.socket.raddr {
            Some(_) => &mut self.connections,
            None => &mut self.servers,
        };
        if kind.len() >= most {
            kind.pop_front();
        }
        kind.push_back(closed);
    }

    /// Takes out the oldest as long as they are to go; how many these were.
    pub fn forget(&mut self, gone: impl Fn(&Closed) -> bool) -> u64 {
        let mut count = 0;
        for kind in [&mut self.servers, &mut self.connections] {
            while kind.front().is_some_and(&gone) {
                kind.pop_front();
                count += 1;
            }
        }
        count
    }

    pub fn iter(&self) -> impl Iterator<Item = &Closed> {
        self.servers.iter().chain(&self.connections)
    }

    /// The one of this key that closed last.
    pub fn last(&self, key: Key) -> Option<&Closed> {
        let last = |kind: &'_ VecDeque<Closed>| kind.iter().rposition(|closed| closed.key == key);
        let server = last(&self.servers).map(|at| &self.servers[at]);
        let connection = last(&self.connections).map(|at| &self.connections[at]);
        server
            .into_iter()
            .chain(connection)
            .max_by_key(|closed| closed.at)
    }
}
