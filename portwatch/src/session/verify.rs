//! Whether a session is as it was written: its chain from the first batch to the last, and what its rows
//! are read through.

use std::ops::Range;
use std::path::Path;

use anyhow::Result;
use blake3::Hash;
use rusqlite::{Connection, OptionalExtension as _};

use super::cell::{Cell, Table};
use super::chain::{Digest, PIECE, Sealed, TABLES};
use super::sign::SecretKey;

/// What is wrong with a session, as far as it is known which batch is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub batch: Option<i64>,
    /// Numbers of the events of that batch, as far as its row can be believed.
    pub events: Option<Range<i64>>,
    /// First and last of their times, likewise; nanoseconds since the Unix epoch.
    pub times: Option<(u64, u64)>,
    /// A sentence without a full stop.
    pub what: String,
}

/// What was found out about a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Batches that are as they were written, from the first on.
    pub batches: i64,
    /// Events in them.
    pub events: i64,
    /// Time of the last of these events; nanoseconds since the Unix epoch.
    pub until: Option<u64>,
    /// Hash of the last batch, which stands for all of the session; `None` when there is a fault, or no batch.
    pub head: Option<Hash>,
    /// Runs in the session; 0 when there is a fault.
    pub runs: i64,
    /// Runs that were not finished: they were killed, or the end was cut off.
    pub unfinished: Vec<i64>,
    /// Batches with a signature; all of them are right when a key was given.
    pub signed: i64,
    /// The first thing that is wrong.
    pub fault: Option<Fault>,
}

/// Whether a signature of a hash is right.
pub type Check<'a> = &'a dyn Fn(&[u8; 32], &[u8]) -> bool;

/// Goes through the whole session. `check`: every batch has to have a signature that is right.
///
/// # Errors
/// When it is no session at all, or of a newer version.
pub fn verify(path: &Path, check: Option<Check<'_>>) -> Result<Verdict> {
    let db = super::file::readable(path)?;
    let mut verdict = Verdict::default();
    // One state of a session that is being written.
    let begun = db.execute_batch("BEGIN").map_err(Fault::from);
    let walked = begun.and_then(|()| walk(&db, check, &mut verdict));
    verdict.fault = walked.and_then(|()| sound(&db)).err();
    verdict.head = verdict.head.filter(|_| verdict.fault.is_none());
    Ok(verdict)
}

fn fault(what: impl Into<String>) -> Fault {
    Fault {
        batch: None,
        events: None,
        times: None,
        what: what.into(),
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        fault(format!("the file is damaged: {error}"))
    }
}

/// All batches in their order, and nothing else.
fn walk(db: &Connection, check: Option<Check<'_>>, verdict: &mut Verdict) -> Result<(), Fault> {
    let mut last = Sealed::default();
    let mut statement = db.prepare("SELECT * FROM raw_batch ORDER BY id")?;
    let mut rows = statement.query([])?;
    loop {
        let of_next = |found: Fault| Fault {
            batch: Some(last.id + 1),
            ..found
        };
        let Some(row) = rows.next().map_err(|x| of_next(x.into()))? else {
            break;
        };
        let batch = Sealed::read(row).map_err(|x| of_next(x.into()))?;
        if batch.id != last.id + 1 {
            return Err(of_next(fault("it is missing")));
        }
        let wrong = |what: String| Fault {
            batch: Some(batch.id),
            events: Some(batch.events(&last.counts)),
            times: batch.times,
            what,
        };
        if !batch
            .follows(db, &last)
            .map_err(|found| wrong(found.what))?
        {
            let what = match in_its_place(db, &last).unwrap_or(None) {
                Some(other) => format!("batch {other} belongs in its place: they were reordered"),
                None => "its rows were altered, or are those of another batch".to_owned(),
            };
            return Err(wrong(what));
        }
        match (check, &batch.signature) {
            (Some(_), None) => return Err(wrong("it is not signed".into())),
            (Some(check), Some(signature)) if !check(&batch.hash, signature) => {
                return Err(wrong("its signature is not by this key".into()));
            }
            (_, signature) => verdict.signed += i64::from(signature.is_some()),
        }
        verdict.batches = batch.id;
        verdict.events = batch.counts[Table::Event as usize];
        verdict.until = batch.times.map(|x| x.1).or(verdict.until);
        last = batch;
    }
    if check.is_some() && last.id == 0 {
        return Err(fault("nothing in it is signed"));
    }
    for table in Table::ALL {
        let name = table.name();
        let more = format!("SELECT count(*) FROM {name} WHERE id > ? OR id < 1");
        let more: i64 = db.query_row(&more, [last.counts[table as usize]], |row| row.get(0))?;
        if more > 0 {
            return Err(fault(format!("{more} rows of {name} belong to no batch")));
        }
    }
    verdict.head = (last.id > 0).then(|| last.hash.into());
    verdict.runs = last.counts[Table::Run as usize];
    let unfinished = "SELECT id FROM raw_run WHERE id NOT IN (SELECT run FROM raw_finish)";
    let mut unfinished = db.prepare(unfinished)?;
    let runs = unfinished.query_map([], |row| row.get(0))?;
    verdict.unfinished = runs.collect::<rusqlite::Result<_>>()?;
    Ok(())
}

/// The last batch of a session to which something may be added: what its rows are read through is as it
/// was made, this batch follows the one before, and nothing follows it. What comes earlier is not looked at.
pub fn end(db: &Connection) -> Result<Option<Sealed>, Fault> {
    if !has_our_schema(db)? {
        return Err(fault(OTHER_SCHEMA));
    }
    let mut statement = db.prepare("SELECT * FROM raw_batch ORDER BY id DESC LIMIT 2")?;
    let batches = statement.query_map([], Sealed::read)?;
    let mut batches = batches.collect::<rusqlite::Result<Vec<_>>>()?.into_iter();
    let last = batches.next();
    let before = batches.next().unwrap_or_default();
    if let Some(last) = &last {
        let id = last.id;
        if id != before.id + 1 {
            return Err(fault(format!("batch {} is missing", id - 1)));
        }
        if !last.follows(db, &before)? {
            return Err(fault(format!(
                "the rows of its last batch, {id}, were altered"
            )));
        }
    }
    let counts = last.as_ref().map_or([0; TABLES], |last| last.counts);
    for table in Table::ALL {
        let name = table.name();
        let highest = format!("SELECT ifnull(max(id), 0) FROM {name}");
        let highest: i64 = db.query_row(&highest, [], |row| row.get(0))?;
        if highest > counts[table as usize] {
            return Err(fault(format!("rows of {name} belong to no batch")));
        }
    }
    Ok(last)
}

/// Why `verify` with the public half of this key will not accept all of a session to which something is
/// added, as far as its last batch tells.
///
/// # Errors
/// When it cannot be read.
pub fn signed_otherwise(db: &Connection, key: &SecretKey) -> Result<Option<&'static str>> {
    let sql = "SELECT * FROM raw_batch ORDER BY id DESC LIMIT 1";
    let last = db.query_row(sql, [], Sealed::read).optional()?;
    Ok(last.and_then(|last| match last.signature {
        None => Some("is not signed"),
        Some(signature) if !key.made(&last.hash, &signature) => Some("is signed by another key"),
        Some(_) => None,
    }))
}

impl Sealed {
    /// Whether its hash is that of its rows, and of this one before it.
    fn follows(&self, db: &Connection, last: &Sealed) -> Result<bool, Fault> {
        if (self.counts.iter().zip(&last.counts)).any(|(now, before)| now < before) {
            return Ok(false);
        }
        let contents = contents(db, &last.counts, &self.counts)?;
        Ok(self.chained(&last.link(), &contents) == self.hash)
    }
}

/// Number of a later batch that would follow this one, had it the number for that: of those that have
/// more rows the one with the fewest.
fn in_its_place(db: &Connection, last: &Sealed) -> Result<Option<i64>, Fault> {
    let sum = "runs + finishes + addresses + whats + processes + owners + exits + events
               + checkpoints + opens";
    let sql = format!("SELECT * FROM raw_batch WHERE id > ? AND {sum} > ? ORDER BY {sum} LIMIT 1");
    let rows = last
        .counts
        .iter()
        .fold(0_i64, |sum, x| sum.saturating_add(*x));
    let mut statement = db.prepare(&sql)?;
    let found = statement.query_row([last.id + 1, rows], Sealed::read);
    let Some(mut batch) = found.optional()? else {
        return Ok(None);
    };
    let id = std::mem::replace(&mut batch.id, last.id + 1);
    Ok(batch.follows(db, last).unwrap_or(false).then_some(id))
}

/// Digests of what a batch added to each table.
fn contents(
    db: &Connection,
    from: &[i64; TABLES],
    to: &[i64; TABLES],
) -> Result<[[u8; 32]; TABLES], Fault> {
    let mut digests = [[0; 32]; TABLES];
    for table in Table::ALL {
        let (name, at) = (table.name(), table as usize);
        let sql = format!("SELECT * FROM {name} WHERE id > ? AND id <= ? ORDER BY id");
        let mut digest = Digest::default();
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query([from[at], to[at]])?;
        let mut expected = from[at];
        while let Some(row) = rows.next()? {
            for column in 0..table.width() {
                Cell::encode_read(row.get_ref(column)?, &mut digest.pending);
            }
            digest.drain(PIECE);
            expected += 1;
            if row.get::<_, i64>(0)? != expected {
                return Err(fault(format!("row {expected} of {name} is missing")));
            }
        }
        if expected != to[at] {
            return Err(fault(format!("row {} of {name} is missing", expected + 1)));
        }
        digests[at] = digest.finish();
    }
    Ok(digests)
}

/// Whether what the rows are found and shown by is as it was made: the schema, and indexes.
fn sound(db: &Connection) -> Result<(), Fault> {
    if !has_our_schema(db)? {
        return Err(fault(OTHER_SCHEMA));
    }
    let found: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    match found.as_str() {
        "ok" => Ok(()),
        found => Err(fault(format!("the file is damaged: {found}"))),
    }
}

const OTHER_SCHEMA: &str = "its tables or views are not those of a session";

/// Whether there are the tables, indexes and views of a session, and no triggers or anything else.
fn has_our_schema(db: &Connection) -> rusqlite::Result<bool> {
    let schema = |db: &Connection| -> rusqlite::Result<Vec<[Option<String>; 4]>> {
        let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name";
        let mut statement = db.prepare(sql)?;
        let rows = statement.query_map([], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
        })?;
        rows.collect()
    };
    let fresh = Connection::open_in_memory()?;
    fresh.execute_batch(include_str!("schema.sql"))?;
    fresh.execute_batch(include_str!("views.sql"))?;
    Ok(schema(db)? == schema(&fresh)?)
}
