//! Which rows a pane shows, and in which order.

use std::fmt::Write as _;

use crate::event::Proto;
use crate::filter::Filter;
use crate::row::Row;
use crate::table::{Compact, Key, Table};
use crate::view::human;

use super::Look;
use super::columns::{Column, Rank};
use super::line::Groups;

/// What rows have to be.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The filter of the command line; `None` when it asks for nothing.
    pub filter: Option<Filter>,
    /// As it was typed: words, all of which have to be found somewhere in the row.
    pub typed: String,
}

#[derive(Clone, Copy, Debug)]
pub struct Sort {
    pub column: Column,
    pub falls: bool,
}

impl Wanted {
    pub fn row(&self, row: &Row, look: &Look) -> bool {
        let fits = |x: &Filter| x.matches_row(row);
        self.filter.as_ref().is_none_or(fits) && self.text(|| haystack(row, look))
    }

    /// Whether all the words that were typed are in this text.
    pub fn text(&self, text: impl FnOnce() -> String) -> bool {
        if self.typed.trim().is_empty() {
            return true;
        }
        let text = text().to_lowercase();
        let typed = self.typed.to_lowercase();
        typed.split_whitespace().all(|word| text.contains(word))
    }

    fn asks(&self) -> bool {
        self.filter.is_some() || !self.typed.trim().is_empty()
    }
}

/// The lines of a pane.
#[derive(Debug, Default)]
pub struct Order {
    /// Those to show, sorted, by the sockets that they are of or that stand for several.
    pub keys: Vec<Key>,
    pub groups: Groups,
    /// How many of them are open.
    pub open: usize,
    /// How many are open, shown or not.
    pub all: usize,
}

impl Order {
    /// Where the line is that a socket is on.
    pub fn position(&self, key: Key) -> Option<usize> {
        let first = self.groups.first_of(key);
        self.keys.iter().position(|&x| x == first)
    }
}

pub fn order(table: &Table, listeners: bool, wanted: &Wanted, sort: Sort, look: &Look) -> Order {
    let mut order = Order::default();
    if listeners {
        order.groups = Groups::of(table);
    }
    let asks = wanted.asks();
    let mut rows: Vec<(bool, Rank, Key)> = Vec::new();
    for sight in table.iter() {
        if sight.socket.is_listening() != listeners {
            continue;
        }
        let open = sight.end.is_none();
        if open && order.groups.first_of(sight.key) != sight.key {
            continue;
        }
        order.all += usize::from(open);
        let line = (asks || !order.groups.others_of(sight).is_empty())
            .then(|| order.groups.line(sight, table));
        if asks
            && !line
                .as_ref()
                .is_some_and(|line| wanted.row(&line.row, look))
        {
            continue;
        }
        order.open += usize::from(open);
        let (absent, rank) = match line.filter(|line| line.others > 0) {
            Some(line) => rank(&Compact::of_row(&line.row, None), sort),
            None => rank(sight.socket, sort),
        };
        rows.push((absent, rank, sight.key));
    }
    rows.sort_unstable();
    order.keys.extend(rows.into_iter().map(|(.., key)| key));
    order
}

fn rank(socket: &Compact, sort: Sort) -> (bool, Rank) {
    match sort.column.rank(socket) {
        Some((high, low)) if sort.falls => (false, (!high, !low)),
        Some(rank) => (false, rank),
        None => (true, (0, 0)),
    }
}

/// All that one may look for in a row.
fn haystack(row: &Row, look: &Look) -> String {
    let event = &row.event;
    let mut text = String::new();
    for word in [
        event.proto.map(Proto::as_str),
        Some(row.state.as_str()),
        event.service,
    ] {
        text.extend(word);
        text.push(' ');
    }
    human::push_local(&mut text, event.laddr, row.device, event.lport);
    text.push(' ');
    human::push_endpoint(&mut text, event.raddr, event.rport);
    for number in [event.pid, event.netns] {
        text.push(' ');
        text.extend(number.map(|x| x.to_string()));
    }
    text.push(' ');
    text.extend(look.netns_name(event.netns));
    text.push(' ');
    text.extend(event.comm.map(|x| x.text().into_owned()));
    for holder in event.holders.iter().flatten() {
        // Writing to a String cannot fail.
        let _ = write!(text, " {} {}", holder.comm, holder.pid);
    }
    if let Some(context) = &event.context {
        let words = [
            &context.exe,
            &context.user,
            &context.container,
            &context.unit,
        ];
        let args = context.args.as_deref().unwrap_or_default();
        for word in words.into_iter().flatten().chain(args) {
            text.push(' ');
            text.push_str(word);
        }
    }
    text
}
