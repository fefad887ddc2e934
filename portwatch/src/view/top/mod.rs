//! The live screen of `top`: what is selected, sorted, filtered and frozen, fed with keys; and how
//! it is drawn. Pure: it knows neither a terminal nor a clock.

mod columns;
mod details;
mod draw;
mod help;
mod keys;
mod line;
mod order;
mod play;
mod scene;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use jiff::tz::TimeZone;

use crate::filter::Filter;
use crate::table::Key;
use crate::view::lines;

pub use keys::Action;
pub use play::{Control, Play};
pub use scene::{EVENTS, Scene, Status};

use columns::{CONNECTIONS, Column, LISTENERS};
use details::Details;
use order::{Order, Sort, Wanted};

/// How it looks, apart from what it says.
#[derive(Clone, Debug)]
pub struct Look {
    pub colour: bool,
    /// Numbers instead of names of users and services.
    pub numeric: bool,
    /// The network namespace that goes without saying.
    pub netns: Option<u32>,
    /// Those that have names.
    pub netns_names: HashMap<u32, String>,
    /// Of the times.
    pub zone: TimeZone,
}

impl Look {
    fn netns_name(&self, netns: Option<u32>) -> Option<&str> {
        self.netns_names.get(&netns?).map(String::as_str)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pane {
    Listeners,
    Connections,
    Events,
}

impl Pane {
    const ALL: [Pane; 3] = [Pane::Listeners, Pane::Connections, Pane::Events];
}

/// What the keys go to.
#[derive(Debug)]
enum Mode {
    Panes,
    /// Into the filter; what it was before.
    Typing(String),
    Details(Box<Details>),
    Help,
}

/// One of the two panes of sockets.
#[derive(Debug)]
struct List {
    columns: &'static [Column],
    sort: Sort,
    /// `None`: the first, whichever that is.
    selected: Option<Key>,
    /// Where the selected one was when it was drawn last.
    at: usize,
    /// The first one in sight.
    top: usize,
    /// As drawn last.
    order: Order,
}

impl List {
    fn new(columns: &'static [Column], column: Column) -> Self {
        Self {
            columns,
            sort: Sort {
                column,
                falls: column.falls(),
            },
            selected: None,
            at: 0,
            top: 0,
            order: Order::default(),
        }
    }
}

#[derive(Debug)]
pub struct Screen {
    look: Look,
    mode: Mode,
    pane: Pane,
    lists: [List; 2],
    wanted: Wanted,
    /// Lines that the pane of events is scrolled back.
    back: usize,
    /// Rows that fitted into the pane with the focus when it was drawn last.
    page: usize,
    /// Only the pane with the focus is shown.
    zoom: bool,
    /// What is shown instead of what is, and since when.
    frozen: Option<Box<(Scene, u64)>>,
    lines: lines::Text,
}

impl Screen {
    /// `filter`: what rows have to be; `None` when any will do.
    pub fn new(look: Look, filter: Option<Filter>) -> Self {
        let style = lines::Style {
            colour: false,
            numeric: look.numeric,
            wide: false,
            zone: look.zone.clone(),
            netns: look.netns,
        };
        Self {
            lines: lines::Text::new(None, style),
            look,
            mode: Mode::Panes,
            pane: Pane::Listeners,
            lists: [
                List::new(LISTENERS, Column::Local),
                List::new(CONNECTIONS, Column::Age),
            ],
            wanted: Wanted {
                filter,
                typed: String::new(),
            },
            back: 0,
            page: 1,
            zoom: false,
            frozen: None,
        }
    }

    /// The network namespaces that have names by now.
    pub fn name_namespaces(&mut self, names: HashMap<u32, String>) {
        self.look.netns_names = names;
    }

    /// What to tell at the end of the filter.
    pub fn complaint(&self) -> Option<String> {
        self.wanted.filter.as_ref()?.complaint()
    }

    /// Whether what is shown does not change by itself.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// The list with the focus, if it is one of sockets.
    fn list(&mut self) -> Option<&mut List> {
        match self.pane {
            Pane::Listeners => Some(&mut self.lists[0]),
            Pane::Connections => Some(&mut self.lists[1]),
            Pane::Events => None,
        }
    }
}
