//! The table put down and taken up again, as a session does at checkpoints.

use super::compact::Compact;
use super::reconcile::Shared;
use super::{Limits, Open, Table};
use crate::session::Kept;

impl Table {
    /// All open sockets, in no order.
    pub fn kept(&self) -> impl ExactSizeIterator<Item = Kept> {
        self.open.values().map(|open| Kept {
            row: open.socket.row(),
            bound: open.bound,
            told: open.told,
        })
    }

    /// A table with these open sockets.
    pub fn of_kept(limits: Limits, sockets: impl IntoIterator<Item = Kept>) -> Self {
        let mut table = Self::new(limits);
        let mut shared = Shared::default();
        for Kept { row, bound, told } in sockets {
            let key = table.keys.of(&row.event);
            let mut socket = Compact::of_row(&row, shared.holders(&row));
            socket.accepted = row.event.accepted.into();
            table.insert(
                key,
                Open {
                    socket,
                    bound,
                    told,
                },
            );
        }
        table
    }
}
