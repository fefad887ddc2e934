//! The session: a recording in one SQLite file. `schema.sql` says how it is stored, `views.sql` what
//! others read it through, `chain.rs` how it proves that nothing was altered.

mod cell;
mod chain;
mod read;
mod sign;
pub mod survey;
#[cfg(test)]
mod tests;
mod write;

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use rusqlite::{Connection, OpenFlags};

use crate::row::Row;

pub use chain::{Check, Fault, Verdict, verify};
pub use read::{Checkpoint, Recorded, Session};
pub use sign::{PublicKey, SecretKey};
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

/// Creates a session, readable and writable for its owner only.
///
/// # Errors
/// When there is such a file already, or it cannot be written.
pub fn create(path: &Path) -> Result<Connection> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    match options.open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
            "{} is there already: name another file, or add a run to it with --append",
            path.display()
        ),
        Err(error) => return Err(error).with_context(|| format!("creating {}", path.display())),
    }
    let fill = || -> Result<Connection> {
        let db = writable(path)?;
        db.execute_batch("BEGIN")?;
        db.execute_batch(include_str!("schema.sql"))?;
        db.execute_batch(include_str!("views.sql"))?;
        db.pragma_update(None, "application_id", APPLICATION_ID)?;
        db.pragma_update(None, "user_version", VERSION)?;
        db.execute_batch("COMMIT")?;
        Ok(db)
    };
    fill().with_context(|| format!("creating {}", path.display()))
}

/// Opens a session to add a run.
///
/// # Errors
/// When it is none, of another version, or cannot be written.
pub fn append(path: &Path) -> Result<Connection> {
    check(path)?;
    let db = writable(path).with_context(|| format!("opening {}", path.display()))?;
    let version = version(&db, path)?;
    ensure!(
        version == VERSION,
        "{} has version {version} of the format, this portwatch adds to version {VERSION} only: record into a new file",
        path.display()
    );
    Ok(db)
}

fn writable(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    // The journal is given the mode of the file by SQLite.
    db.pragma_update(None, "journal_mode", "wal")?;
    // What is committed survives the end of the process; the file stays whole after a loss of power.
    db.pragma_update(None, "synchronous", "normal")?;
    Ok(db)
}

/// Opens a session to read, also while it is being written.
///
/// # Errors
/// When it is none, or of a newer version.
fn readable(path: &Path) -> Result<Connection> {
    check(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> Result<Connection> {
        let db = Connection::open_with_flags(path, flags)?;
        // A session may be hostile: its schema is not trusted, and nothing of it is changed.
        db.pragma_update(None, "trusted_schema", false)?;
        db.pragma_update(None, "query_only", true)?;
        Ok(db)
    };
    let db = open().with_context(|| format!("opening {}", path.display()))?;
    version(&db, path)?;
    Ok(db)
}

/// Whether the file can be a session at all.
fn check(path: &Path) -> Result<()> {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let name = path.display();
    let mut file = File::open(path).with_context(|| format!("opening {name}"))?;
    ensure!(
        !fs::metadata(path)?.is_dir(),
        "{name} is a directory, not a session"
    );
    let mut head = Vec::new();
    file.by_ref().take(16).read_to_end(&mut head)?;
    ensure!(!head.is_empty(), "{name} is empty: not a session");
    ensure!(
        head == MAGIC,
        "{name} is not a session: portwatch record makes them"
    );
    Ok(())
}

/// Version of the format.
fn version(db: &Connection, path: &Path) -> Result<i32> {
    let name = path.display();
    let number = |pragma: &str| db.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let damaged = || format!("{name} is damaged: portwatch verify tells where");
    let id = number("application_id").with_context(damaged)?;
    ensure!(
        id == APPLICATION_ID,
        "{name} is a database, but not a session: portwatch record makes them"
    );
    let version = number("user_version").with_context(damaged)?;
    ensure!(
        (1..=VERSION).contains(&version),
        "{name} has version {version} of the format, this portwatch reads up to {VERSION}: use a newer one"
    );
    Ok(version)
}
