//! Connections that no process has. No event tells of their end; the time does, and what happens to
//! others.

use super::compact::Compact;
use super::{Key, Open, Place, Table, accepts, at};
use crate::event::Proto;
use crate::row::State;

/// The kernel keeps TIME-WAIT for a minute, and its timer for that is up to four seconds late.
const TIME_WAIT_NS: u64 = 64_000_000_000;

impl Table {
    /// A connection has come, so what was left of another one with its addresses (TIME-WAIT) is gone.
    /// `addresses`: see [`super::key::Keys::by_addresses`].
    pub(super) fn replace(&mut self, addresses: Key) {
        if let Some(left) = self.left.remove(&addresses) {
            self.open.swap_remove(&left);
        }
    }

    /// This one is in TIME-WAIT, and was so at `ts`.
    pub(super) fn leave(&mut self, addresses: Key, key: Key, ts: u64) {
        self.left.insert(addresses, key);
        self.left_until = self.left_until.min(ts.saturating_add(TIME_WAIT_NS));
    }

    /// Takes out what cannot be in TIME-WAIT any more; how many these were.
    pub(super) fn expire(&mut self, now: u64) -> u64 {
        if now < self.left_until {
            return 0;
        }
        self.left_until = u64::MAX;
        let before = self.left.len();
        self.left.retain(|_, key| {
            let seen = self.open.get(key).map_or(0, |open| open.socket.ts);
            let until = seen.saturating_add(TIME_WAIT_NS);
            if until <= now {
                self.open.swap_remove(key);
                return false;
            }
            self.left_until = self.left_until.min(until);
            true
        });
        (before - self.left.len()) as u64
    }

    /// A listener has closed: the kernel resets what nobody accepted there. What another listener may
    /// have been chosen for stays.
    pub(super) fn reset_queue(&mut self, listener: &Compact) {
        let Some(port) = listener.lport else { return };
        let socket = |key| self.open.get(&key).map(|open| &open.socket);
        let fit = |listener, key| {
            let came = socket(key)?;
            accepts(listener, (came.proto, came.family, came.laddr))
        };
        let waiting = at(&self.waiting, listener.netns, port);
        let mut gone: Vec<_> = waiting
            .filter(|&key| fit(listener, key).is_some())
            .collect();
        if gone.is_empty() {
            return;
        }
        let others = at(&self.listeners, listener.netns, port);
        let others: Vec<&Compact> = others.filter_map(socket).collect();
        gone.retain(|&key| {
            others
                .iter()
                .all(|other| fit(other, key) < fit(listener, key))
        });
        for key in gone {
            self.take(key);
        }
    }
}

/// Where a connection that nobody has accepted is found by its listener.
pub(super) fn waiting(key: Key, open: &Open) -> Option<Place> {
    let socket = &open.socket;
    let queued = matches!(
        socket.state,
        State::SynRecv | State::Estab | State::CloseWait
    );
    let held = socket.inode.get().is_some_and(|inode| inode != 0);
    let waits = !open.told && !held && queued && socket.proto != Some(Proto::Udp);
    waits.then_some((socket.netns, socket.lport?, key))
}
