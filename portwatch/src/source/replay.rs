//! Events from a session, as they were recorded and as fast as they can be read.

use anyhow::{Context as _, Result};

use super::accounts::Accounts;
use crate::event::Event;
use crate::session::{Recorded, Session};

/// Events read in one go.
const BATCH: usize = 4096;

/// One run of a session, or a part of it.
pub struct Replay {
    session: Session,
    run: Recorded,
    /// Number of the next event, and of the last one.
    next: i64,
    last: i64,
    /// Nanoseconds since the Unix epoch, both included.
    since: u64,
    until: u64,
    /// What was read and is not told yet.
    read: Vec<Event>,
}

impl Replay {
    /// What happened from `since` until `until`, in nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// When the session cannot be read.
    pub fn new(session: Session, run: Recorded, since: u64, until: u64) -> Result<Self> {
        let next = session.first_from(since)?.max(run.events.start);
        let last = session.last_until(until)?.min(run.events.end - 1);
        Ok(Self {
            session,
            run,
            next,
            last,
            since,
            until,
            read: Vec::new(),
        })
    }

    /// Appends what comes next; nothing at the end. Cancel-safe.
    ///
    /// # Errors
    /// When the session cannot be read.
    pub async fn next(&mut self, events: &mut Vec<Event>) -> Result<()> {
        if self.is_over() {
            return std::future::pending().await;
        }
        // So that signals are seen in between.
        tokio::task::yield_now().await;
        let first = self.run.events.start;
        self.next = (self.session).events_on(self.next, self.last, BATCH, first, &mut self.read)?;
        let wanted = self.since..=self.until;
        events.extend(
            self.read
                .drain(..)
                .filter(|event| wanted.contains(&event.ts)),
        );
        Ok(())
    }

    /// Whether all was told.
    pub fn is_over(&self) -> bool {
        self.next > self.last
    }

    /// The accounts of the run.
    ///
    /// # Errors
    /// When the session cannot be read.
    pub fn finish(self) -> Result<Accounts> {
        accounts(&self.session, &self.run)
    }
}

/// The accounts of a run as they were recorded; of one that was not finished the losses that it told of.
///
/// # Errors
/// When the session cannot be read.
pub fn accounts(session: &Session, run: &Recorded) -> Result<Accounts> {
    match &run.finish {
        Some(finish) => serde_json::from_str(&finish.accounts)
            .context("the session's accounts of losses cannot be read"),
        None => Ok(Accounts {
            lost: session.lost(run.events.start, run.events.end)?,
            ..Accounts::default()
        }),
    }
}
