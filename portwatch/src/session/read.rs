//! Reading a session: rows become events and sockets again.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::dictionaries::{Dictionaries, Known, number};
use super::{Finish, Kept, Run};
use crate::event::Event;
use crate::row::{Row, State};

/// An open session, maybe one that is still being written.
pub struct Session {
    db: Connection,
    known: Known,
}

/// A recording in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub id: i64,
    pub run: Run,
    /// Numbers of its events in the session: from the first, up to before the end.
    pub events: std::ops::Range<i64>,
    /// `None`: it goes on, or was killed.
    pub finish: Option<Finish>,
}

/// A whole table at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The last event that is in it.
    pub event: i64,
    /// Nanoseconds since the Unix epoch.
    pub ts: u64,
    pub sockets: Vec<Kept>,
}

impl Session {
    /// # Errors
    /// When it is no session, or of a newer version.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            db: super::file::readable(path)?,
            known: Known::default(),
        })
    }

    /// For questions in SQL; nothing can be changed through it.
    pub fn connection(&self) -> &Connection {
        &self.db
    }

    /// Number of the last event that is there now.
    ///
    /// # Errors
    /// When the file is damaged, as with the other functions.
    pub fn last_event(&self) -> Result<i64> {
        let sql = "SELECT ifnull(max(events), 0) FROM raw_batch";
        Ok(self.db.query_row(sql, [], |row| row.get(0))?)
    }

    /// All recordings in their order.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn runs(&self) -> Result<Vec<Recorded>> {
        let sql = "SELECT r.id, r.before, r.began, r.host, r.kernel, r.arch, r.boot, r.netns,
                          r.version, r.source, r.not_observed, r.command, r.plan, r.clock,
                          f.ended, f.reason, f.complete, f.accounts
                   FROM raw_run r LEFT JOIN raw_finish f ON f.run = r.id ORDER BY r.id";
        let mut statement = self.db.prepare(sql)?;
        let rows = statement.query_map([], |row| {
            let ended: Option<i64> = row.get(14)?;
            Ok(Recorded {
                id: row.get(0)?,
                events: row.get::<_, i64>(1)?.saturating_add(1)..i64::MAX,
                run: Run {
                    began: row.get::<_, i64>(2)?.cast_unsigned(),
                    host: row.get(3)?,
                    kernel: row.get(4)?,
                    arch: row.get(5)?,
                    boot: row.get(6)?,
                    netns: row.get(7)?,
                    version: row.get(8)?,
                    source: row.get(9)?,
                    not_observed: row.get(10)?,
                    command: row.get(11)?,
                    plan: row.get(12)?,
                    clock: row.get(13)?,
                },
                finish: match ended {
                    Some(ended) => Some(Finish {
                        ended: ended.cast_unsigned(),
                        reason: row.get(15)?,
                        complete: row.get(16)?,
                        accounts: row.get(17)?,
                    }),
                    None => None,
                },
            })
        })?;
        let mut runs: Vec<Recorded> = rows.collect::<rusqlite::Result<_>>()?;
        let mut end = self.last_event()?.saturating_add(1);
        for run in runs.iter_mut().rev() {
            run.events.end = end;
            ensure!(
                (1..=end).contains(&run.events.start),
                "the session's runs do not follow one another: portwatch verify tells what was done to it"
            );
            end = run.events.start;
        }
        Ok(runs)
    }

    /// Number of an event before which nothing happened at `ts` (nanoseconds since the Unix epoch) or
    /// later. Some that happened before may follow it.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn first_from(&self, ts: u64) -> Result<i64> {
        // Batches are few, compared with events.
        let sql = "SELECT ifnull(max(events), 0) + 1 FROM raw_batch
                   WHERE id < (SELECT min(id) FROM raw_batch WHERE last_ts >= ?)";
        let any = "SELECT EXISTS (SELECT 1 FROM raw_batch WHERE last_ts >= ?)";
        let ts = ts.min(i64::MAX.cast_unsigned()).cast_signed();
        match self.db.query_row(any, [ts], |row| row.get(0))? {
            true => Ok(self.db.query_row(sql, [ts], |row| row.get(0))?),
            false => Ok(self.last_event()? + 1),
        }
    }

    /// Number of the event after which nothing happened at `ts` or before; the counterpart.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn last_until(&self, ts: u64) -> Result<i64> {
        let sql = "SELECT ifnull(max(events), 0) FROM raw_batch WHERE first_ts <= ?";
        let ts = ts.min(i64::MAX.cast_unsigned()).cast_signed();
        Ok(self.db.query_row(sql, [ts], |row| row.get(0))?)
    }

    /// Appends up to `most` events with numbers from `from` up to and with `to`, in their order, with
    /// `seq` as their number in their run, which begins with event `first`. Returns the number to go on
    /// from.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn events(
        &mut self,
        from: i64,
        to: i64,
        most: usize,
        first: i64,
        events: &mut Vec<Event>,
    ) -> Result<i64> {
        let sql = "SELECT * FROM raw_event WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?";
        let mut next = from;
        let mut dictionaries = Dictionaries::new(&self.db, &mut self.known);
        let mut statement = dictionaries.db.prepare_cached(sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![from, to, most])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let event = dictionaries.event(row, 1);
            let mut event = event.with_context(|| {
                format!(
                    "event {id} cannot be read: portwatch verify tells what was done to the session"
                )
            })?;
            event.seq = (id - first + 1).cast_unsigned();
            events.push(event);
            next = id + 1;
        }
        Ok(next)
    }

    /// The latest events about servers on this local port until `ts` (nanoseconds since the Unix epoch):
    /// up to `most` of those wanted, the last one last.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn latest_of_port(
        &mut self,
        port: u16,
        ts: u64,
        most: usize,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Vec<Event>> {
        let to = self.last_until(ts)?;
        let sql = "SELECT * FROM raw_event WHERE lport = ? AND remote IS NULL AND id <= ?
                   ORDER BY id DESC";
        let mut dictionaries = Dictionaries::new(&self.db, &mut self.known);
        let mut statement = dictionaries.db.prepare_cached(sql)?;
        let mut rows = statement.query(params![port, to])?;
        let mut events = Vec::new();
        while events.len() < most
            && let Some(row) = rows.next()?
        {
            let event = dictionaries.event(row, 1)?;
            if event.ts <= ts && wanted(&event) {
                events.push(event);
            }
        }
        events.reverse();
        Ok(events)
    }

    /// Connections of tcp at this local port that closed in a run from `from` until `to` (nanoseconds since
    /// the Unix epoch), and may have been in TIME-WAIT afterwards: of those with the same local address one.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn lately_closed(
        &mut self,
        run: &Recorded,
        port: u16,
        from: u64,
        to: u64,
    ) -> Result<Vec<Event>> {
        let first = self.first_from(from)?.max(run.events.start);
        let last = self.last_until(to)?.min(run.events.end - 1);
        // The end that closed first has the TIME-WAIT; polling does not always see which that was.
        let sql = "SELECT * FROM raw_event WHERE id IN (
                     SELECT max(e.id) FROM raw_event e JOIN raw_what w ON w.id = e.what
                     WHERE e.id BETWEEN ? AND ? AND e.kind = 4 AND e.lport = ? AND e.remote IS NOT NULL
                       AND e.ts BETWEEN ? AND ? AND w.proto IN ('tcp', 'mptcp')
                       AND ifnull(w.cause, 'local') = 'local'
                     GROUP BY e.what, e.local) ORDER BY id";
        let mut dictionaries = Dictionaries::new(&self.db, &mut self.known);
        let mut statement = dictionaries.db.prepare(sql)?;
        let (from, to) = (from.cast_signed(), to.cast_signed());
        let mut rows = statement.query(params![first, last, port, from, to])?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            events.push(dictionaries.event(row, 1)?);
        }
        Ok(events)
    }

    /// When those of these processes were started that ran at `ts`, as far as it is known; nanoseconds
    /// since the Unix epoch.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn started(&self, pids: &HashSet<u32>, ts: u64) -> Result<HashMap<u32, u64>> {
        let sql = "SELECT pid, started FROM raw_process WHERE started <= ? ORDER BY started";
        let ts = ts.min(i64::MAX.cast_unsigned()).cast_signed();
        let mut statement = self.db.prepare(sql)?;
        let mut rows = statement.query([ts])?;
        let mut started = HashMap::new();
        while let Some(row) = rows.next()? {
            if let (Some(pid), Some(at)) = (number(row, 0)?, number(row, 1)?)
                && pids.contains(&pid)
            {
                started.insert(pid, at);
            }
        }
        Ok(started)
    }

    /// The last checkpoint of a run that holds nothing of what came after this event, and was taken at
    /// `ts` or before; `None` when there is none.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn checkpoint(&mut self, run: i64, event: i64, ts: u64) -> Result<Option<Checkpoint>> {
        let sql = "SELECT id, event, ts FROM raw_checkpoint
                   WHERE run = ? AND event <= ? AND ts <= ? ORDER BY id DESC LIMIT 1";
        let ts = ts.min(i64::MAX.cast_unsigned()).cast_signed();
        let found = (self.db).query_row(sql, params![run, event, ts], |row| {
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, i64>(2)?))
        });
        let Some((id, event, ts)) = found.optional()? else {
            return Ok(None);
        };
        // Rows of a checkpoint lie together; where they are is found by halving.
        let sql = "SELECT * FROM raw_open WHERE id > ? AND checkpoint = ? ORDER BY id";
        let before = self.opens_before(id)?;
        let mut dictionaries = Dictionaries::new(&self.db, &mut self.known);
        let mut statement = dictionaries.db.prepare(sql)?;
        let mut rows = statement.query(params![before, id])?;
        let mut sockets = Vec::new();
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>(1)? != id {
                break;
            }
            let event = dictionaries.event(row, 2)?;
            let state: String = row.get(22)?;
            let state = State::parse(&state).ok_or_else(|| anyhow!("no state '{state}'"))?;
            sockets.push(Kept {
                row: Row {
                    event,
                    state,
                    since: number(row, 23)?,
                    recv_queue: number(row, 24)?,
                    send_queue: number(row, 25)?,
                    // Not in sessions.
                    device: None,
                    v6only: row.get(26)?,
                },
                bound: row.get(27)?,
                told: row.get(28)?,
            });
        }
        Ok(Some(Checkpoint {
            event,
            ts: ts.cast_unsigned(),
            sockets,
        }))
    }

    /// Number of the last row of `raw_open` that belongs to an earlier checkpoint.
    pub(super) fn opens_before(&self, checkpoint: i64) -> Result<i64> {
        let mut statement = (self.db).prepare("SELECT checkpoint FROM raw_open WHERE id = ?")?;
        let last = "SELECT ifnull(max(id), 0) FROM raw_open";
        let (mut low, mut high) = (0, self.db.query_row(last, [], |row| row.get(0))?);
        while low < high {
            let middle = low + (high - low + 1) / 2;
            let of_earlier =
                statement.query_row([middle], |row| row.get::<_, i64>(0))? < checkpoint;
            if of_earlier {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }
}
