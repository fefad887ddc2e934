//! What the loop of `record` and the thread that records tell each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::event::Event;
use crate::snapshot::Rows;
use crate::source::News;
use crate::source::accounts::Accounts;

/// What the recorder is told.
pub enum Message {
    /// Events and what came of processes meanwhile.
    Events(Vec<Event>, Vec<News>),
    /// A snapshot begins.
    Watch,
    /// `None`: it could not be taken.
    Snapshot(Option<Box<Rows>>),
    /// What was recorded so far is to be stored; the accounts so far, as the source has them.
    Store(Accounts),
    Finish(Box<Farewell>),
}

/// How the recording ends.
pub struct Farewell {
    pub accounts: Accounts,
    pub reason: &'static str,
}

/// What the recorder tells while it works.
#[derive(Default)]
pub struct Shared {
    in_doubt: AtomicBool,
    enough: AtomicBool,
    events: AtomicU64,
    lost: AtomicU64,
    bytes: AtomicU64,
    notes: Mutex<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub events: u64,
    pub lost: u64,
    pub bytes: u64,
}

impl Shared {
    /// A snapshot has to decide.
    pub fn doubt(&self) {
        self.in_doubt.store(true, Relaxed);
    }

    /// Whether something differed since this was asked last that another snapshot has to decide.
    pub fn in_doubt(&self) -> bool {
        self.in_doubt.swap(false, Relaxed)
    }

    /// The recorder needs nothing more.
    pub fn enough(&self) {
        self.enough.store(true, Relaxed);
    }

    pub fn has_enough(&self) -> bool {
        self.enough.load(Relaxed)
    }

    /// What is to be said since this was asked last, a line each.
    pub fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something is to be said.
    pub fn note(&self, text: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(text);
    }

    pub fn count(&self, counts: Counts) {
        self.events.store(counts.events, Relaxed);
        self.lost.store(counts.lost, Relaxed);
        self.bytes.store(counts.bytes, Relaxed);
    }

    pub fn counts(&self) -> Counts {
        Counts {
            events: self.events.load(Relaxed),
            lost: self.lost.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}
