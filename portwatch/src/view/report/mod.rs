//! A session as one HTML page that needs nothing else: no network, and no script but its own. `page.rs`
//! says what is on it, `style.css` and `script.js` how it looks and what can be done with its table.

mod chart;
mod data;
mod page;
mod tables;
#[cfg(test)]
mod tests;
mod words;

use crate::event::Event;
use crate::session::Verdict;
use crate::session::survey::Survey;

/// What a page is made from.
pub struct Report {
    pub survey: Survey,
    /// For the table, and the number of each in the session, from 1.
    pub events: Vec<(i64, Event)>,
    /// For each run that was finished, in words: whether anything is missing.
    pub accounts: Vec<(i64, String)>,
    /// What `verify` said, when it was asked.
    pub verdict: Option<Verdict>,
    /// The session's name, for people.
    pub name: String,
    /// When this is, nanoseconds since the Unix epoch.
    pub now: u64,
}

impl Report {
    /// The page. All text from outside is escaped twice: what a reader would not see or would be
    /// misled by becomes visible (`sanitize`), and what HTML would take for markup becomes text.
    pub fn html(&self) -> String {
        page::page(self).into_string()
    }
}
