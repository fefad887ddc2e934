//! What there is to show: the table, the latest events, and how far both can be relied upon.

use std::collections::VecDeque;

use super::Play;
use crate::event::Event;
use crate::table::{Limits, Table};

/// Latest events kept.
pub const EVENTS: usize = 1_000;

/// A freeze is a copy of it.
#[derive(Clone, Debug)]
pub struct Scene {
    pub table: Table,
    /// The latest is the last.
    pub events: VecDeque<Event>,
    pub status: Status,
}

#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Where events come from, such as `tracepoint probes`.
    pub source: String,
    /// What it does not tell.
    pub missing: Option<String>,
    /// What snapshots do not show, each a sentence.
    pub limits: Vec<String>,
    /// The sockets that were open at the start are in the table.
    pub seeded: bool,
    /// Differences between table and snapshots that were repaired.
    pub differences: u64,
    /// A session is played.
    pub play: Option<Play>,
}

impl Scene {
    pub fn new(source: String, limits: Limits) -> Self {
        Self {
            table: Table::new(limits),
            events: VecDeque::new(),
            status: Status {
                source,
                ..Status::default()
            },
        }
    }

    /// Keeps an event for the pane of the latest ones.
    pub fn show(&mut self, event: Event) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}
