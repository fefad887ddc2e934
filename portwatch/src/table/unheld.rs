//! Connections that no process has. No event tells of their end; what happens to others does.

use super::{Key, Table};

impl Table {
    /// A connection has come, so what was left of another one with its addresses (TIME-WAIT) is gone.
    /// `addresses`: see [`super::key::Keys::by_addresses`].
    pub(super) fn replace(&mut self, addresses: Key) {
        if let Some(left) = self.left.remove(&addresses) {
            self.open.swap_remove(&left);
        }
    }
}
