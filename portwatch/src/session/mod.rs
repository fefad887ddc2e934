//! The session: a recording in one SQLite file. `schema.sql` says how it is stored, `views.sql` what
//! others read it through, `chain.rs` and `verify.rs` how it proves that nothing was altered.

mod cell;
mod chain;
mod dictionaries;
mod file;
mod moment;
pub mod question;
mod read;
mod sign;
pub mod survey;
#[cfg(test)]
mod tests;
mod verify;
mod what;
mod write;

use crate::row::Row;

pub use file::{Writable, append, create, is_being_written, is_session};
pub use read::{Checkpoint, Recorded, Session};
pub use sign::{PublicKey, SecretKey};
pub use verify::{Check, Fault, Verdict, signed_otherwise, verify};
pub use write::{About, Describe, Sign, Writer};

/// What tells a session from other SQLite files: "port".
const APPLICATION_ID: i32 = 0x706f_7274;
/// Version of the schema. Later ones read all earlier ones.
pub const VERSION: i32 = 1;

/// What is known at the start of a recording. Text that is JSON is marked so in `schema.sql`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Nanoseconds since the Unix epoch.
    pub began: u64,
    pub host: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    pub arch: Option<String>,
    pub boot: Option<String>,
    /// The network namespace of portwatch itself.
    pub netns: Option<u32>,
    /// Of portwatch.
    pub version: String,
    /// What events came from, for people.
    pub source: String,
    pub not_observed: Option<String>,
    pub command: Option<String>,
    pub plan: Option<String>,
    pub clock: Option<String>,
}

/// How a recording ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Nanoseconds since the Unix epoch.
    pub ended: u64,
    pub reason: String,
    pub complete: bool,
    /// JSON.
    pub accounts: String,
}

/// A socket of a checkpoint: its row, and what else the table keeps of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub row: Row,
    /// It was bound before it was connected.
    pub bound: bool,
    /// An event is to tell of its end.
    pub told: bool,
}
