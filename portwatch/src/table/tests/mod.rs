//! What the table says after a few events and snapshots.

mod apply;
mod key;
mod reconcile;
mod unheld;

use super::model::{event, row, scope};
use super::*;
use crate::event::{Event, Kind};

fn table(events: &[Event]) -> Table {
    let mut table = Table::new(Limits::default());
    for event in events {
        table.apply(event);
    }
    table
}

fn states(table: &Table) -> Vec<(State, bool)> {
    (table.iter())
        .map(|sight| (sight.socket.state, sight.end.is_some()))
        .collect()
}

/// All that grows with the number of sockets: what the table keeps of each, the places of hash
/// tables at their emptiest, and half of a B-tree's.
#[test]
fn a_hundred_thousand_rows_take_a_small_part_of_64_mib() {
    let bucket = size_of::<Key>() + size_of::<u64>() + size_of::<Open>();
    let index = 2 * size_of::<usize>() * 8 / 7 + 2;
    let listener = 2 * size_of::<(Maybe<u32>, u16, Key)>();
    // A row is in one of these at most, as is what waits in the first one's space.
    let left = 2 * size_of::<(Key, Key)>();
    let each = bucket + index + listener.max(left);
    assert!(each * 100_000 <= 32 << 20, "{each} bytes a row");
}
