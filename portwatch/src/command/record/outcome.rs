//! What was recorded, and what is said of it.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use blake3::Hash;

use crate::command::say;
use crate::command::trace::summary::{Summary, plural};
use crate::source::accounts::Accounts;
use crate::view::human;

/// With so many events the bytes that each takes say something.
const MANY: u64 = 1_000;

/// What was recorded.
pub struct Outcome {
    pub summary: Summary,
    pub accounts: Accounts,
    /// Name of the file, or of the first and the last that are there.
    pub files: String,
    /// The last file, and the hash that stands for all of it.
    pub head: (PathBuf, Hash),
    pub events: u64,
    /// Added to all files.
    pub bytes: u64,
    pub differences: u64,
    /// What became of the output. The session is whole.
    pub failure: Option<Error>,
}

impl Outcome {
    /// Says what was recorded; whether nothing is missing.
    pub fn tell(self) -> Result<bool> {
        say(&self.summary.text());
        let mut text = String::from("recorded into ");
        text.push_str(&self.files);
        text.push_str(": ");
        human::push_bytes(&mut text, self.bytes);
        // A few have to carry the tables and what is told once of each process.
        if self.events >= MANY {
            text.push_str(&format!(", {} bytes an event", self.bytes / self.events));
        }
        say(&text);
        let (last, head) = &self.head;
        say(&about_head(last, *head));
        if self.differences > 0 {
            say(&format!(
                "{} between events and snapshots of the kernel's sockets, repaired",
                plural(self.differences, "difference")
            ));
        }
        say(&self.summary.verdict(&self.accounts));
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(self.accounts.complete()),
        }
    }
}

/// What to write down of a file that ended, as `verify` has it.
pub fn about_head(path: &Path, head: Hash) -> String {
    format!("{}: head {head}", path.display())
}
