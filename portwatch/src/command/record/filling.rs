//! The run in one file, as it is filled.

use std::sync::Arc;

use anyhow::Result;

use crate::session::{Kept, SecretKey, Writer};

/// The run in one file.
pub struct Filling<'db> {
    pub writer: Writer<'db>,
    key: Option<Arc<SecretKey>>,
    /// Events of the session before it.
    pub before: i64,
    /// Bytes of the session before it, and when it had just begun.
    pub bytes: u64,
    pub seed: u64,
    /// Events of the session at the last commit.
    stored: i64,
    /// Events of the session at the last checkpoint, and when that was.
    checkpoint: i64,
    checkpoint_ts: u64,
}

impl<'db> Filling<'db> {
    /// A run that has begun, in a session of so many bytes before it.
    pub fn new(writer: Writer<'db>, bytes: u64, began: u64, key: Option<Arc<SecretKey>>) -> Self {
        Self {
            before: writer.events(),
            bytes,
            seed: 0,
            stored: writer.events(),
            checkpoint: writer.events(),
            checkpoint_ts: began,
            writer,
            key,
        }
    }

    /// Events of this run.
    pub fn events(&self) -> u64 {
        (self.writer.events() - self.before).cast_unsigned()
    }

    /// Events since the last checkpoint.
    pub fn since_checkpoint(&self) -> u64 {
        (self.writer.events() - self.checkpoint).cast_unsigned()
    }

    /// Events that are not stored yet.
    pub fn pending(&self) -> u64 {
        (self.writer.events() - self.stored).cast_unsigned()
    }

    /// Whole seconds from the last checkpoint to `now`, in nanoseconds since the Unix epoch.
    pub fn seconds_since_checkpoint(&self, now: u64) -> u64 {
        now.saturating_sub(self.checkpoint_ts) / 1_000_000_000
    }

    /// Adds all that is open now.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub fn checkpoint(&mut self, now: u64, open: impl IntoIterator<Item = Kept>) -> Result<()> {
        self.checkpoint = self.writer.events();
        self.checkpoint_ts = now;
        self.writer.checkpoint(now, open)
    }

    /// Stores what was added, as one batch.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub fn commit(&mut self) -> Result<()> {
        self.stored = self.writer.events();
        let key = self.key.as_deref();
        let sign = key.map(|key| move |hash: &[u8; 32]| key.sign(hash));
        self.writer
            .commit(sign.as_ref().map(|sign| sign as &dyn Fn(&_) -> _))
    }
}
