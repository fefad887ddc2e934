//! The lives of listeners: those that events tell of, and those that were there before.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, params};

use super::super::{Recorded, Session};
use super::{Bytes, Top, bytes};

/// Divisions of the whole time that bars are measured in.
pub const TICKS: u16 = 1000;
/// Most listeners shown, and short lives listed.
const SHOWN: usize = 200;
const SHORT: usize = 200;
/// Most listeners remembered; when there are more, those that lived least are dropped.
const REMEMBERED: usize = 10 * SHOWN;
/// Below this a life is short, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// A life on the way from one tick to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    pub from: u16,
    pub to: u16,
    pub short: bool,
}

/// One program that listens on one address, maybe several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    pub proto: Option<Bytes>,
    pub address: Option<Bytes>,
    pub port: Option<u16>,
    pub comm: Option<Bytes>,
    pub exe: Option<Bytes>,
    pub user: Option<Bytes>,
    pub container: Option<Bytes>,
    pub netns: Option<i64>,
    /// Of the last life.
    pub pid: Option<i64>,
    pub lives: u64,
    pub short_lives: u64,
    /// Whether it was there before the recording, and whether nothing tells of its end.
    pub seeded: bool,
    pub open: bool,
    pub first: u64,
    /// Time that it lived in all, nanoseconds.
    pub lived: u64,
    pub accepted: u64,
    pub bars: Vec<Bar>,
}

/// A short life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    pub listener: Listener,
    pub args: Option<Bytes>,
    pub lifetime_us: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// Those that lived longest, in the order in which they came.
    pub shown: Top<Listener>,
    /// Lives in all, and the short ones of them, the latest last.
    pub lives: u64,
    pub short: Top<Life>,
}

/// The key: what makes two lives those of the same listener.
type Key = (
    Option<Bytes>,
    Option<Bytes>,
    Option<u16>,
    Option<i64>,
    Option<Bytes>,
    Option<Bytes>,
);

struct Gathering {
    span: Range<u64>,
    /// When each run began, and the last that is known of it.
    runs: Vec<Range<u64>>,
    /// Sockets that listened when a run began, and until when they are known to have.
    seeded: HashMap<i64, Vec<Range<u64>>>,
    found: HashMap<Key, Listener>,
    dropped: u64,
    lives: u64,
    short: VecDeque<Life>,
    of_short: u64,
}

/// `lasted`: from when to when each run is known to have lasted.
pub fn gather(
    session: &Session,
    runs: &[Recorded],
    lasted: &[Range<u64>],
    span: Range<u64>,
) -> Result<Listeners> {
    let mut gathering = Gathering {
        runs: lasted.to_vec(),
        span,
        seeded: HashMap::new(),
        found: HashMap::new(),
        dropped: 0,
        lives: 0,
        short: VecDeque::new(),
        of_short: 0,
    };
    for (run, lasted) in runs.iter().zip(lasted) {
        gathering.seeds(session, run, lasted.end)?;
    }
    gathering.events(session)?;
    Ok(gathering.finish())
}

impl Gathering {
    /// What listened when a run began that is known to have lasted until then.
    fn seeds(&mut self, session: &Session, run: &Recorded, until: u64) -> Result<()> {
        let sql = "SELECT id, event FROM raw_checkpoint WHERE run = ? ORDER BY id LIMIT 1";
        let db = session.connection();
        let first = db.query_row(sql, [run.id], |row| Ok((row.get(0)?, row.get(1)?)));
        let Some((checkpoint, event)): Option<(i64, i64)> = first.optional()? else {
            return Ok(());
        };
        let sql = "
            SELECT w.proto, a.address, s.lport, w.netns, o.pid, o.comm, p.exe, p.user, p.container,
                   c.ts, c.accepted, s.checkpoint, s.state, s.sock
            FROM raw_open s
            JOIN raw_what w ON w.id = s.what
            LEFT JOIN raw_address a ON a.id = s.local
            LEFT JOIN raw_owner o ON o.id = s.owner
            LEFT JOIN raw_process p ON p.id = o.process
            LEFT JOIN raw_event c ON s.state = 'LISTEN' AND c.id = (
              SELECT min(x.id) FROM raw_event x WHERE x.kind = 4 AND x.sock = s.sock AND x.id > ?)
            WHERE s.id > ? ORDER BY s.id";
        let mut statement = db.prepare(sql)?;
        let mut rows = statement.query(params![event, session.opens_before(checkpoint)?])?;
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>(11)? != checkpoint {
                break;
            }
            if row
                .get_ref(12)?
                .as_bytes()
                .is_ok_and(|state| state == b"LISTEN")
            {
                let closed: Option<u64> = row.get::<_, Option<i64>>(9)?.map(i64::cast_unsigned);
                if let Some(sock) = row.get(13)? {
                    let life =
                        run.run.began..closed.unwrap_or(u64::MAX).min(until.saturating_add(1));
                    self.seeded.entry(sock).or_default().push(life);
                }
                let mut listener = listener(row)?;
                listener.seeded = true;
                listener.accepted = row.get::<_, Option<u32>>(10)?.unwrap_or(0).into();
                self.live(listener, run.run.began, closed);
            }
        }
        Ok(())
    }

    /// What began to listen while it was recorded.
    fn events(&mut self, session: &Session) -> Result<()> {
        let sql = "SELECT proto, laddr, lport, netns, pid, comm, exe, user, container,
                          listened, accepted, lifetime_us, args, sock FROM listeners ORDER BY listened";
        let mut statement = session.connection().prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            // The view has no text for what comes after the year 2262, which nobody recorded.
            let began: String = row.get(9)?;
            let began = began.parse().ok().map(Timestamp::as_nanosecond);
            let began = began
                .and_then(|x| x.try_into().ok())
                .unwrap_or(self.span.end);
            let sock: Option<i64> = row.get(13)?;
            let seeded = sock.and_then(|sock| self.seeded.get(&sock));
            if seeded.is_some_and(|lives| lives.iter().any(|life| life.contains(&began))) {
                continue;
            }
            let lifetime_us: Option<i64> = row.get(11)?;
            let lifetime_us = lifetime_us.map(|x| u64::try_from(x).unwrap_or(0));
            let mut listener = listener(row)?;
            listener.accepted = row.get::<_, Option<u32>>(10)?.unwrap_or(0).into();
            listener.first = began;
            if let Some(lifetime_us) = lifetime_us.filter(|x| *x < SECOND / 1000) {
                if self.short.len() == SHORT {
                    self.short.pop_front();
                }
                self.of_short += 1;
                self.short.push_back(Life {
                    listener: listener.clone(),
                    args: bytes(row, 12)?,
                    lifetime_us,
                });
            }
            let ended = lifetime_us.map(|x| began.saturating_add(x.saturating_mul(1000)));
            self.live(listener, began, ended);
        }
        Ok(())
    }

    /// Adds a life.
    fn live(&mut self, new: Listener, began: u64, ended: Option<u64>) {
        // It was in the run that began last before it, and was not seen to end there.
        let of_run = || {
            self.runs
                .iter()
                .rfind(|run| run.start <= began)
                .map(|run| run.end)
        };
        let until = ended.or_else(of_run).unwrap_or(self.span.end).max(began);
        let lived = until - began;
        let short = ended.is_some() && lived < SECOND && !new.seeded;
        let bar = Bar {
            from: self.tick(began),
            to: self.tick(until),
            short,
        };
        let key = (
            new.proto.clone(),
            new.address.clone(),
            new.port,
            new.netns,
            new.comm.clone(),
            new.exe.clone(),
        );
        self.lives += 1;
        let known = self.found.entry(key).or_insert_with(|| Listener {
            first: began,
            ..new.clone()
        });
        if known.lives > 0 {
            known.accepted += new.accepted;
            known.seeded |= new.seeded;
        }
        known.pid = new.pid;
        known.lives += 1;
        known.short_lives += u64::from(short);
        known.open = ended.is_none();
        known.first = known.first.min(began);
        known.lived = known.lived.saturating_add(lived);
        match known.bars.last_mut() {
            Some(last) if last.from <= bar.from && bar.from <= last.to && last.short == short => {
                last.to = last.to.max(bar.to);
            }
            _ => known.bars.push(bar),
        }
        if self.found.len() > 2 * REMEMBERED {
            let mut all: Vec<(Key, Listener)> = self.found.drain().collect();
            all.sort_by_key(|(_, x)| std::cmp::Reverse(x.lived));
            self.dropped += (all.len() - REMEMBERED) as u64;
            all.truncate(REMEMBERED);
            self.found.extend(all);
        }
    }

    fn tick(&self, ts: u64) -> u16 {
        let length = u128::from(self.span.end.saturating_sub(self.span.start).max(1));
        let place = u128::from(ts.saturating_sub(self.span.start)) * u128::from(TICKS) / length;
        u16::try_from(place).unwrap_or(TICKS).min(TICKS)
    }

    fn finish(self) -> Listeners {
        let mut rows: Vec<Listener> = self.found.into_values().collect();
        let of = rows.len() as u64 + self.dropped;
        rows.sort_by_key(|x| (std::cmp::Reverse(x.lived), x.first, x.port));
        rows.truncate(SHOWN);
        rows.sort_by(|a, b| (a.first, a.port, &a.address).cmp(&(b.first, b.port, &b.address)));
        Listeners {
            shown: Top { rows, of },
            lives: self.lives,
            short: Top {
                rows: self.short.into(),
                of: self.of_short,
            },
        }
    }
}

/// From the columns that both questions begin with.
fn listener(row: &Row<'_>) -> rusqlite::Result<Listener> {
    Ok(Listener {
        proto: bytes(row, 0)?,
        address: bytes(row, 1)?,
        port: row.get(2)?,
        netns: row.get(3)?,
        pid: row.get(4)?,
        comm: bytes(row, 5)?,
        exe: bytes(row, 6)?,
        user: bytes(row, 7)?,
        container: bytes(row, 8)?,
        ..Listener::default()
    })
}
