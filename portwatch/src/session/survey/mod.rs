//! What a whole session tells, in numbers: for the report. Memory is bounded by what is shown, not by
//! what was recorded; SQLite sorts on disk what it cannot hold.

mod actors;
mod listeners;
mod pass;
#[cfg(test)]
mod tests;

use std::ops::Range;

use anyhow::{Context as _, Result};
use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::{Recorded, Session};

pub use actors::{Failures, Peer, Program, Resets};
pub use listeners::{Bar, Life, Listener, Listeners, TICKS};
pub use pass::{Port, Rate, Slot, Totals};

/// Rows of each ranking.
const RANKED: i64 = 15;
/// Rows of each list of what went wrong.
const LISTED: i64 = 100;

/// The first of a list, and how many there are in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top<T> {
    pub rows: Vec<T>,
    pub of: u64,
}

/// Text from outside: bytes, maybe hostile and no UTF-8.
pub type Bytes = Vec<u8>;

#[derive(Clone, Debug)]
pub struct Survey {
    pub runs: Vec<Recorded>,
    /// From the first to the last moment that it tells of, nanoseconds since the Unix epoch.
    pub span: Range<u64>,
    /// Times between runs, of which nothing is known.
    pub gaps: Vec<Range<u64>>,
    pub totals: Totals,
    pub rate: Rate,
    pub ports: Top<Port>,
    pub listeners: Listeners,
    pub programs: Top<Program>,
    pub peers: Top<Peer>,
    pub failures: Top<Failures>,
    pub resets: Top<Resets>,
}

impl Survey {
    /// Goes through the session. `progress` is told what is counted now.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn of(session: &Session, mut progress: impl FnMut(&str)) -> Result<Self> {
        let runs = session.runs()?;
        let lasted = lasted(session, &runs)?;
        let start = lasted.iter().map(|run| run.start).min();
        let end = lasted.iter().map(|run| run.end).max();
        let span = start.unwrap_or(0)..end.unwrap_or(0);
        progress("events");
        let pass = pass::go(session, span.clone()).context("counting events")?;
        progress("listeners");
        let listeners = listeners::gather(session, &runs, &lasted, span.clone());
        let listeners = listeners.context("gathering listeners")?;
        progress("programs");
        let programs = actors::programs(session.connection()).context("counting programs")?;
        progress("peers");
        let peers = actors::peers(session.connection()).context("counting peers")?;
        progress("failures");
        let failures = actors::failures(session.connection()).context("counting failures")?;
        let resets = actors::resets(session.connection()).context("counting resets")?;
        Ok(Self {
            gaps: gaps(&lasted),
            runs,
            span,
            totals: pass.totals,
            rate: pass.rate,
            ports: pass.ports,
            listeners,
            programs,
            peers,
            failures,
            resets,
        })
    }
}

/// From when to when each run is known to have lasted.
fn lasted(session: &Session, runs: &[Recorded]) -> Result<Vec<Range<u64>>> {
    let sql = "SELECT min(first_ts), max(last_ts) FROM raw_batch WHERE run = ?";
    let mut statement = session.connection().prepare(sql)?;
    let span = |run: &Recorded| {
        let (first, last): (Option<i64>, Option<i64>) =
            statement.query_row([run.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let began = run.run.began;
        let first = first.map_or(began, i64::cast_unsigned);
        let last = last.map_or(began, i64::cast_unsigned);
        let ended = run.finish.as_ref().map_or(began, |x| x.ended);
        Ok(began.min(first)..began.max(last).max(ended))
    };
    runs.iter().map(span).collect()
}

/// Times between runs, of which nothing is known.
fn gaps(lasted: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut lasted = lasted.to_vec();
    lasted.sort_by_key(|run| run.start);
    let mut gaps = Vec::new();
    let mut known = lasted.first().map_or(0, |run| run.end);
    for run in lasted {
        if run.start > known {
            gaps.push(known..run.start);
        }
        known = known.max(run.end);
    }
    gaps
}

/// Text, or what stands where it should.
fn bytes(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Bytes>> {
    Ok(match row.get_ref(at)? {
        ValueRef::Null => None,
        ValueRef::Text(text) => Some(text.to_vec()),
        // A comm that is no UTF-8 has all of its 16 bytes.
        ValueRef::Blob(blob) => {
            let end = blob.iter().position(|&byte| byte == 0);
            Some(blob[..end.unwrap_or(blob.len())].to_vec())
        }
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
    })
}

/// A count, never negative.
fn count(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    let number: f64 = row.get::<_, Option<f64>>(at)?.unwrap_or(0.0);
    // Sums are made by `total`, which cannot overflow; `as` holds at both ends.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(number as u64)
}
