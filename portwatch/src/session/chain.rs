//! The chain of batches. The hash of a batch is BLAKE3 over the hash and the signature of the one before,
//! its own row in `raw_batch`, and the digest of what it added to each table; so nothing can be altered,
//! taken out or moved without a trace. What was cut off at the end shows in that the run was not finished.
//! Only a signature tells who made a chain: without one, who can write the file can make all of it anew.

use std::ops::Range;

use anyhow::{Context as _, Result};
use blake3::Hash;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use super::cell::{Cell, Table, int};

pub const TABLES: usize = Table::ALL.len();
/// Rows are hashed in pieces of about this size.
pub const PIECE: usize = 64 << 10;

/// A batch that rows are added to.
pub struct Batch {
    id: i64,
    before: Sealed,
    counts: [i64; TABLES],
    contents: [Digest; TABLES],
    times: Option<(u64, u64)>,
}

impl Batch {
    /// The one after this one, or the first.
    pub fn after(last: Option<Sealed>) -> Self {
        let before = last.unwrap_or_default();
        Self {
            id: before.id + 1,
            counts: before.counts,
            before,
            contents: std::array::from_fn(|_| Digest::default()),
            times: None,
        }
    }

    /// Hash of the batch before; zeros for the first.
    pub fn head(&self) -> Hash {
        self.before.hash.into()
    }

    /// Rows of a table so far, those of this batch among them.
    pub fn count(&self, table: Table) -> i64 {
        self.counts[table as usize]
    }

    /// An event of this time is added; nanoseconds since the Unix epoch.
    pub fn at(&mut self, ts: u64) {
        let (first, last) = self.times.unwrap_or((ts, ts));
        self.times = Some((first.min(ts), last.max(ts)));
    }

    /// A row is added, which gets the number returned.
    pub fn row(&mut self, table: Table, cells: &[Cell<'_>]) -> i64 {
        let id = self.counts[table as usize] + 1;
        self.counts[table as usize] = id;
        let content = &mut self.contents[table as usize];
        content.cell(Cell::Int(id));
        cells.iter().for_each(|cell| content.cell(*cell));
        id
    }

    /// Nothing is added any more.
    pub fn seal(&mut self, run: i64) -> Sealed {
        let mut sealed = Sealed {
            id: self.id,
            run,
            times: self.times,
            counts: self.counts,
            ..Sealed::default()
        };
        let contents = self.contents.each_mut().map(Digest::finish);
        sealed.hash = sealed.chained(&self.before.link(), &contents);
        sealed
    }
}

/// A hash of rows.
#[derive(Default)]
pub struct Digest {
    hasher: blake3::Hasher,
    pub pending: Vec<u8>,
}

impl Digest {
    fn cell(&mut self, cell: Cell<'_>) {
        cell.encode(&mut self.pending);
        self.drain(PIECE);
    }

    /// Takes in what is pending when it is at least so much.
    pub fn drain(&mut self, least: usize) {
        if self.pending.len() >= least {
            self.hasher.update(&self.pending);
            self.pending.clear();
        }
    }

    pub fn finish(&mut self) -> [u8; 32] {
        self.drain(0);
        *self.hasher.finalize().as_bytes()
    }
}

/// A row of `raw_batch`. The default stands before the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    pub id: i64,
    pub run: i64,
    /// Of its events, first and last; nanoseconds since the Unix epoch.
    pub times: Option<(u64, u64)>,
    /// Rows of each table, those of the batches before among them.
    pub counts: [i64; TABLES],
    pub hash: [u8; 32],
    pub signature: Option<Vec<u8>>,
}

impl Sealed {
    fn cells(&self) -> Vec<Cell<'static>> {
        let mut cells = vec![
            Cell::Int(self.id),
            Cell::Int(self.run),
            int(self.times.map(|x| x.0)),
            int(self.times.map(|x| x.1)),
        ];
        cells.extend(self.counts.map(Cell::Int));
        cells
    }

    /// What the next one has of it in its hash.
    pub fn link(&self) -> Vec<u8> {
        [&self.hash, self.signature.as_deref().unwrap_or_default()].concat()
    }

    /// Its hash, when the one before has this link and these are the digests of its rows.
    pub fn chained(&self, before: &[u8], contents: &[[u8; 32]; TABLES]) -> [u8; 32] {
        let mut bytes = before.to_vec();
        self.cells().iter().for_each(|cell| cell.encode(&mut bytes));
        bytes.extend(contents.iter().flatten());
        *blake3::hash(&bytes).as_bytes()
    }

    pub fn insert(&self, db: &Connection) -> Result<()> {
        let mut cells = self.cells();
        cells.push(Cell::Blob(&self.hash));
        cells.push(self.signature.as_deref().map_or(Cell::Null, Cell::Blob));
        let marks = vec!["?"; cells.len()].join(",");
        let sql = format!("INSERT INTO raw_batch VALUES ({marks})");
        (db.prepare_cached(&sql)?.execute(params_from_iter(cells)))
            .context("writing the session")?;
        Ok(())
    }

    /// From a row with all columns of `raw_batch`.
    pub fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (first, last): (Option<i64>, Option<i64>) = (row.get(2)?, row.get(3)?);
        let times = first.zip(last);
        let mut counts = [0; TABLES];
        for (at, count) in counts.iter_mut().enumerate() {
            *count = row.get(4 + at)?;
        }
        Ok(Self {
            id: row.get(0)?,
            run: row.get(1)?,
            times: times.map(|(first, last)| (first.cast_unsigned(), last.cast_unsigned())),
            counts,
            hash: row.get(4 + TABLES)?,
            signature: row.get(5 + TABLES)?,
        })
    }

    /// Numbers of the events in it, when the batch before ended there.
    pub fn events(&self, before: &[i64; TABLES]) -> Range<i64> {
        let at = Table::Event as usize;
        before[at].saturating_add(1)..self.counts[at].saturating_add(1)
    }
}

/// The last batch of a session.
///
/// # Errors
/// When it cannot be read.
pub fn last(db: &Connection) -> Result<Option<Sealed>> {
    let sql = "SELECT * FROM raw_batch ORDER BY id DESC LIMIT 1";
    let last = db.prepare(sql)?.query_row([], Sealed::read);
    last.optional().context("reading the last batch")
}
