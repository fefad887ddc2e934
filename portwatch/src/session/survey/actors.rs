//! Who did how much: programs, peers, and what went wrong between them. Grouped by number first, and
//! by name only then, as numbers are sorted faster.

use anyhow::Result;
use rusqlite::{Connection, Row};

use super::{Bytes, LISTED, RANKED, Top, bytes, count};

/// All processes of a name that run the same executable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    pub comm: Option<Bytes>,
    pub exe: Option<Bytes>,
    pub processes: u64,
    pub events: u64,
    pub listens: u64,
    pub out: u64,
    pub accepted: u64,
    pub failed: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

/// An address at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    pub address: Bytes,
    pub out: u64,
    pub accepted: u64,
    pub failed: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

/// What failed in the same way for the same program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    pub error: Bytes,
    pub kind: u8,
    pub comm: Option<Bytes>,
    pub exe: Option<Bytes>,
    pub count: u64,
    pub first: u64,
    /// When it happened last, and where: the local end of a bind, the remote one of a connect.
    pub last: u64,
    pub address: Option<Bytes>,
    pub port: Option<u16>,
}

/// Resets of the same kind at connections of the same program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resets {
    pub cause: Option<Bytes>,
    pub reason: Option<Bytes>,
    pub comm: Option<Bytes>,
    pub exe: Option<Bytes>,
    pub count: u64,
    /// When it happened last, and at which remote end.
    pub last: u64,
    pub address: Option<Bytes>,
    pub port: Option<u16>,
}

/// What is counted of the events of each program and each peer: columns `out` to `tx`.
const SUMS: &str = "
                total(e.kind = 2 AND w.error IS NULL) AS out,
                total(e.kind = 3 AND w.error IS NULL) AS accepted,
                total(w.error IS NOT NULL AND w.error <> 'EINPROGRESS') AS failed,
                total(e.rx_bytes) AS rx, total(e.tx_bytes) AS tx";

pub fn programs(db: &Connection) -> Result<Top<Program>> {
    let sql = format!(
        "
        SELECT count(*) OVER (), o.comm, p.exe, count(DISTINCT o.pid), total(t.events),
               total(t.listens), total(t.out), total(t.accepted), total(t.failed), total(t.rx), total(t.tx)
        FROM (SELECT e.owner, count(*) AS events,
                total(e.kind = 1 AND w.error IS NULL) AS listens, {SUMS}
              FROM raw_event e JOIN raw_what w ON w.id = e.what
              WHERE e.owner IS NOT NULL GROUP BY e.owner) t
        JOIN raw_owner o ON o.id = t.owner
        LEFT JOIN raw_process p ON p.id = o.process
        GROUP BY o.comm, p.exe ORDER BY total(t.events) DESC, o.comm, p.exe LIMIT ?"
    );
    top(db, &sql, RANKED, |row| {
        Ok(Program {
            comm: bytes(row, 1)?,
            exe: bytes(row, 2)?,
            processes: count(row, 3)?,
            events: count(row, 4)?,
            listens: count(row, 5)?,
            out: count(row, 6)?,
            accepted: count(row, 7)?,
            failed: count(row, 8)?,
            rx_bytes: count(row, 9)?,
            tx_bytes: count(row, 10)?,
        })
    })
}

pub fn peers(db: &Connection) -> Result<Top<Peer>> {
    let sql = format!(
        "
        SELECT count(*) OVER (), a.address, total(t.out), total(t.accepted), total(t.failed),
               total(t.rx), total(t.tx)
        FROM (SELECT e.remote, {SUMS}
              FROM raw_event e JOIN raw_what w ON w.id = e.what
              WHERE e.remote IS NOT NULL GROUP BY e.remote) t
        JOIN raw_address a ON a.id = t.remote
        GROUP BY a.address
        ORDER BY total(t.out) + total(t.accepted) + total(t.failed) DESC, a.address LIMIT ?"
    );
    top(db, &sql, RANKED, |row| {
        Ok(Peer {
            address: bytes(row, 1)?.unwrap_or_default(),
            out: count(row, 2)?,
            accepted: count(row, 3)?,
            failed: count(row, 4)?,
            rx_bytes: count(row, 5)?,
            tx_bytes: count(row, 6)?,
        })
    })
}

pub fn failures(db: &Connection) -> Result<Top<Failures>> {
    // With a lone max(), the other columns are those of its row.
    let sql = "
        SELECT g.of, g.error, g.kind, g.comm, g.exe, g.count, g.first, e.ts,
               ifnull(m.address, l.address), iif(e.remote IS NULL, e.lport, e.rport)
        FROM (
          SELECT count(*) OVER () AS of, w.error, t.kind, o.comm, p.exe, total(t.count) AS count,
                 min(t.first) AS first, max(t.last) AS last
          FROM (SELECT what, kind, owner, count(*) AS count, min(ts) AS first, max(id) AS last
                FROM raw_event
                WHERE what IN (SELECT id FROM raw_what WHERE error IS NOT NULL AND error <> 'EINPROGRESS')
                GROUP BY what, kind, owner) t
          JOIN raw_what w ON w.id = t.what
          LEFT JOIN raw_owner o ON o.id = t.owner
          LEFT JOIN raw_process p ON p.id = o.process
          GROUP BY w.error, t.kind, o.comm, p.exe
          ORDER BY total(t.count) DESC, w.error, o.comm LIMIT ?) g
        JOIN raw_event e ON e.id = g.last
        LEFT JOIN raw_address l ON l.id = e.local
        LEFT JOIN raw_address m ON m.id = e.remote
        ORDER BY g.count DESC, g.error, g.comm";
    top(db, sql, LISTED, |row| {
        Ok(Failures {
            error: bytes(row, 1)?.unwrap_or_default(),
            kind: row.get(2)?,
            comm: bytes(row, 3)?,
            exe: bytes(row, 4)?,
            count: count(row, 5)?,
            first: row.get::<_, i64>(6)?.cast_unsigned(),
            last: row.get::<_, i64>(7)?.cast_unsigned(),
            address: bytes(row, 8)?,
            port: row.get(9)?,
        })
    })
}

pub fn resets(db: &Connection) -> Result<Top<Resets>> {
    let sql = "
        SELECT g.of, g.cause, g.reason, g.comm, g.exe, g.count, e.ts, m.address, e.rport
        FROM (
          SELECT count(*) OVER () AS of, w.cause, w.reason, o.comm, p.exe, total(t.count) AS count,
                 max(t.last) AS last
          FROM (SELECT what, owner, count(*) AS count, max(id) AS last
                FROM raw_event WHERE kind = 5 GROUP BY what, owner) t
          JOIN raw_what w ON w.id = t.what
          LEFT JOIN raw_owner o ON o.id = t.owner
          LEFT JOIN raw_process p ON p.id = o.process
          GROUP BY w.cause, w.reason, o.comm, p.exe
          ORDER BY total(t.count) DESC, w.cause, o.comm LIMIT ?) g
        JOIN raw_event e ON e.id = g.last
        LEFT JOIN raw_address m ON m.id = e.remote
        ORDER BY g.count DESC, g.cause, g.comm";
    top(db, sql, LISTED, |row| {
        Ok(Resets {
            cause: bytes(row, 1)?,
            reason: bytes(row, 2)?,
            comm: bytes(row, 3)?,
            exe: bytes(row, 4)?,
            count: count(row, 5)?,
            last: row.get::<_, i64>(6)?.cast_unsigned(),
            address: bytes(row, 7)?,
            port: row.get(8)?,
        })
    })
}

/// Rows of a question whose first column says how many there are in all.
fn top<T>(
    db: &Connection,
    sql: &str,
    most: i64,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Top<T>> {
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map([most], |row| Ok((count(row, 0)?, read(row)?)))?;
    let (of, rows): (Vec<u64>, Vec<T>) = rows
        .collect::<rusqlite::Result<Vec<_>>>()?
        .into_iter()
        .unzip();
    let of = of.first().copied().unwrap_or(0);
    Ok(Top { rows, of })
}
