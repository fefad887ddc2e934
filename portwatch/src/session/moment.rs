//! The table as it was: the last checkpoint before, and the events since.

use anyhow::{Result, ensure};
use rusqlite::OptionalExtension as _;

use super::read::{Recorded, Session};
use crate::event::{Event, Kind, Origin};
use crate::table::{Limits, Table};

/// Events read in one go.
const BATCH: usize = 4096;

impl Session {
    /// From when until when a run tells, in nanoseconds since the Unix epoch: until its end, or as far as
    /// it got.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn span(&self, run: &Recorded) -> Result<(u64, u64)> {
        let sql = "SELECT min(first_ts), max(last_ts) FROM raw_batch WHERE run = ?1
                   UNION ALL SELECT min(ts), max(ts) FROM raw_checkpoint WHERE run = ?1";
        let mut statement = self.connection().prepare_cached(sql)?;
        let times = statement.query_map([run.id], |row| Ok([row.get(0)?, row.get(1)?]))?;
        let times: Vec<[Option<i64>; 2]> = times.collect::<rusqlite::Result<_>>()?;
        let told = times
            .into_iter()
            .flatten()
            .flatten()
            .map(i64::cast_unsigned);
        let ended = run.finish.as_ref().map(|finish| finish.ended);
        let all = told.chain(ended).chain([run.run.began]);
        Ok(all.fold((u64::MAX, 0), |(first, last), ts| {
            (first.min(ts), last.max(ts))
        }))
    }

    /// When the first checkpoint of a run was taken: earlier, what was open before the run and closed
    /// before the checkpoint is not known.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn known_from(&self, run: &Recorded) -> Result<Option<u64>> {
        let sql = "SELECT ts FROM raw_checkpoint WHERE run = ? ORDER BY id LIMIT 1";
        let ts = (self.connection()).query_row(sql, [run.id], |row| row.get::<_, i64>(0));
        Ok(ts.optional()?.map(i64::cast_unsigned))
    }

    /// The table of a run as it was at `ts`, in nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn table_at(&mut self, run: &Recorded, ts: u64, limits: Limits) -> Result<Table> {
        let last = self.last_until(ts)?.min(run.events.end - 1);
        let mut table = self.rebuild(run, last, ts, ts, limits)?;
        table.tick(ts);
        Ok(table)
    }

    /// The table of a run after this event, with what closed within `limits.closed_ns` before `ts`.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn table_after(
        &mut self,
        run: &Recorded,
        event: i64,
        ts: u64,
        limits: Limits,
    ) -> Result<Table> {
        let from = ts.saturating_sub(limits.closed_ns);
        let mut table = self.rebuild(run, event, from, u64::MAX, limits)?;
        table.tick(ts);
        Ok(table)
    }

    /// From the last checkpoint up to `from` on, with the events up to number `last` that happened up to
    /// `until`.
    fn rebuild(
        &mut self,
        run: &Recorded,
        last: i64,
        from: u64,
        until: u64,
        limits: Limits,
    ) -> Result<Table> {
        let first = self.known_from(run)?.unwrap_or(u64::MAX);
        let (mut table, mut next) = match self.checkpoint(run.id, last, from)? {
            Some(checkpoint) => (
                Table::of_kept(limits, checkpoint.sockets),
                checkpoint.event + 1,
            ),
            // What was open at the start is in the first one only, with what was opened until then.
            None => {
                let checkpoint = self.checkpoint(run.id, i64::MAX, first)?;
                let sockets = checkpoint.into_iter().flat_map(|x| x.sockets);
                let before = sockets.filter(|x| x.row.event.origin == Origin::Seed);
                (Table::of_kept(limits, before), run.events.start)
            }
        };
        let lost = self.lost(run.events.start, next - 1)?;
        if lost > 0 {
            let mut event = Event::new(Kind::Lost, Origin::Live, from);
            event.count = Some(lost);
            table.apply(&event);
        }
        let mut events = Vec::new();
        while next <= last {
            next = self.events_on(next, last, BATCH, run.events.start, &mut events)?;
            for event in events.drain(..).filter(|event| event.ts <= until) {
                table.apply(&event);
            }
        }
        Ok(table)
    }

    /// As [`Session::events`], but nothing read is an error: `from` has to be there.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn events_on(
        &mut self,
        from: i64,
        to: i64,
        most: usize,
        first: i64,
        events: &mut Vec<Event>,
    ) -> Result<i64> {
        let next = self.events(from, to, most, first, events)?;
        ensure!(
            next > from,
            "event {from} is missing: portwatch verify tells what was done to the session"
        );
        Ok(next)
    }

    /// The last event of a run that happened, with all before it, at `ts` or earlier (nanoseconds since the
    /// Unix epoch).
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn reached(&mut self, run: &Recorded, ts: u64) -> Result<i64> {
        let (first, last) = (run.events.start, run.events.end - 1);
        let mut next = self.first_from(ts.saturating_add(1))?.max(first);
        let mut events = Vec::new();
        while next <= last {
            next = self.events_on(next, last, BATCH, first, &mut events)?;
            if let Some(later) = events.iter().find(|event| event.ts > ts) {
                return Ok(first + later.seq.cast_signed() - 2);
            }
            events.clear();
        }
        Ok(last)
    }

    /// How many events the kernel lost between these events.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn lost(&self, from: i64, to: i64) -> Result<u64> {
        let sql = "SELECT count FROM raw_event WHERE kind = 6 AND id BETWEEN ? AND ?";
        let mut statement = self.connection().prepare_cached(sql)?;
        let counts = statement.query_map([from, to], |row| row.get::<_, Option<i64>>(0))?;
        let mut sum = 0u64;
        for count in counts {
            sum = sum.saturating_add(count?.map_or(1, i64::cast_unsigned));
        }
        Ok(sum)
    }
}
