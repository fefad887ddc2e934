//! The file of a session: made, added to, read, and told from other files.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read as _};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{APPLICATION_ID, SecretKey, VERSION, verify};

/// A session that only we write.
pub struct Writable {
    db: Connection,
    /// Dropped after the connection: SQLite's own locks end when any descriptor of the file is closed.
    _lock: Lock,
}

/// A lock of flock(2). Given back by hand: a process that was just forked has it, too, until its exec.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Then it ends with the descriptor.
        let _ = self.0.unlock();
    }
}

impl Deref for Writable {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.db
    }
}

/// Creates a session, readable and writable for its owner only.
///
/// # Errors
/// When there is such a file already, or it cannot be written.
pub fn create(path: &Path) -> Result<Writable> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
            "{} is there already: name another file, or add a run to it with --append",
            path.display()
        ),
        Err(error) => return Err(error).with_context(|| format!("creating {}", path.display())),
    };
    let lock = locked(file, path)?;
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
    let db = fill().inspect_err(|_| {
        // Empty, it would only be in the way of the next attempt.
        let _ = fs::remove_file(path);
    });
    let db = db.with_context(|| format!("creating {}", path.display()))?;
    Ok(Writable { db, _lock: lock })
}

/// Opens a session to add a run, whose batches are signed when there is a key.
///
/// # Errors
/// When it is none, of another version, was altered at its end, is signed and there is no key, cannot be
/// written, or is being written by someone else.
pub fn append(path: &Path, key: Option<&SecretKey>) -> Result<Writable> {
    check(path)?;
    let name = path.display();
    let file = File::open(path).with_context(|| format!("opening {name}"))?;
    let lock = locked(file, path)?;
    // Before anything is written: what someone put into it could do anything.
    let (db, version) = read_only(path)?;
    ensure!(
        version == VERSION,
        "{name} has version {version} of the format, this portwatch adds to version {VERSION} only: record into a new file",
    );
    let end = verify::end(&db).map_err(|fault| anyhow!(fault.what));
    let end = end.with_context(|| {
        format!("{name} is not added to (portwatch verify tells more): record into a new file")
    })?;
    ensure!(
        key.is_some() || end.is_none_or(|last| last.signature.is_none()),
        "{name} is signed, and what is added to it has to be: give --sign KEY, or record into a new file"
    );
    drop(db);
    let db = writable(path).with_context(|| format!("opening {name}"))?;
    Ok(Writable { db, _lock: lock })
}

/// Whether this is the file of a session, whatever its state: nothing to be overwritten.
pub fn is_session(path: &Path) -> bool {
    /// Where SQLite keeps the application id, most significant byte first.
    const PLACE: u64 = 68;
    let read = || -> std::io::Result<bool> {
        let mut id = [0; 4];
        File::open(path)?.read_exact_at(&mut id, PLACE)?;
        Ok(id == APPLICATION_ID.to_be_bytes())
    };
    // A file that holds nothing yet has all of it in its journal.
    let journal = journal(path);
    check(path).is_ok() && (read().unwrap_or(false) || journal.exists())
}

/// The file beside a session in which SQLite keeps what was written last.
fn journal(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Keeps others from writing it, whose rows would have the same numbers, and tells readers that it is being written.
fn locked(file: File, path: &Path) -> Result<Lock> {
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => bail!(
            "{} is being recorded into: wait for the end of that, or name another file",
            path.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("locking {}", path.display()))
        }
    }
}

/// Whether someone writes it now. To be asked before it is opened, because of SQLite's own locks.
///
/// # Errors
/// When it cannot be opened.
pub fn is_being_written(path: &Path) -> Result<bool> {
    let file = open(path)?;
    let lock = file.try_lock_shared();
    // A lock that was had is given back.
    drop(Lock(file));
    Ok(matches!(lock, Err(TryLockError::WouldBlock)))
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
pub(super) fn readable(path: &Path) -> Result<Connection> {
    Ok(read_only(path)?.0)
}

/// The same with the version of its format.
fn read_only(path: &Path) -> Result<(Connection, i32)> {
    check(path)?;
    let open = |name: &OsStr, flags: OpenFlags| -> rusqlite::Result<Connection> {
        let flags = flags | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(Path::new(name), flags)?;
        // A session may be hostile: its schema is not trusted, and nothing of it is changed.
        db.pragma_update(None, "trusted_schema", false)?;
        db.pragma_update(None, "query_only", true)?;
        db.pragma_query_value(None, "schema_version", |_| Ok(()))?;
        Ok(db)
    };
    let db = match open(path.as_os_str(), OpenFlags::empty()) {
        // Readers and writers meet in files beside it, which cannot be made on a read-only file
        // system; but nobody writes there.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => {
            let journal = journal(path);
            if fs::metadata(&journal).is_ok_and(|x| x.len() > 0) {
                bail!(
                    "{} holds the last part of {}, and cannot be read where nothing can be written: copy both into a directory of your own",
                    journal.display(),
                    path.display()
                );
            }
            open(&unchanging(path), OpenFlags::SQLITE_OPEN_URI).map_err(|_| error)
        }
        // What else is wrong with it is told below, or found by `verify`.
        result => result,
    };
    let db = db.with_context(|| format!("{} cannot be read, or is damaged", path.display()))?;
    let version = version(&db, path)?;
    Ok((db, version))
}

/// The name by which SQLite opens a file that has no journal and that nobody writes.
fn unchanging(path: &Path) -> OsString {
    let mut name = "file:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                name.push(byte.into());
            }
            byte => name.push_str(&format!("%{byte:02x}")),
        }
    }
    (name + "?immutable=1").into()
}

/// Whether the file can be a session at all.
fn check(path: &Path) -> Result<()> {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let name = path.display();
    let mut file = open(path)?;
    // SQLite takes less than its smallest page for an empty database.
    const LEAST: u64 = 512;
    let mut head = Vec::new();
    file.by_ref().take(16).read_to_end(&mut head)?;
    ensure!(
        !head.is_empty(),
        "{name} is empty: not a session; if a recording was killed as it began, remove it"
    );
    ensure!(
        head == MAGIC,
        "{name} is not a session: portwatch record makes them"
    );
    ensure!(
        file.metadata()?.len() >= LEAST,
        "{name} is damaged: all but its first bytes are gone"
    );
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    let name = path.display();
    // Before it is opened: a pipe would wait for whoever opens its other end.
    let kind = fs::metadata(path).with_context(|| format!("opening {name}"))?;
    ensure!(!kind.is_dir(), "{name} is a directory, not a session");
    ensure!(kind.is_file(), "{name} is no file, and so not a session");
    File::open(path).with_context(|| format!("opening {name}"))
}

/// Version of the format.
fn version(db: &Connection, path: &Path) -> Result<i32> {
    let name = path.display();
    let number = |pragma: &str| db.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let damaged = || format!("{name} is damaged: not even its version can be read");
    let id = number("application_id").with_context(damaged)?;
    ensure!(
        id != 0 || number("page_count").with_context(damaged)? > 1,
        "{name} holds nothing: remove it if its recording was killed as it began; else the file {} belongs beside it",
        journal(path).display()
    );
    ensure!(
        id == APPLICATION_ID,
        "{name} is a database, but not a session: portwatch record makes them"
    );
    let version = number("user_version").with_context(damaged)?;
    ensure!(
        version > 0,
        "{name} is not a session, or is damaged: versions of the format begin with 1, and it has {version}"
    );
    ensure!(
        version <= VERSION,
        "{name} has version {version} of the format, this portwatch reads up to {VERSION}: use a newer one"
    );
    Ok(version)
}
