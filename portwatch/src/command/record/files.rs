//! The files of a recording: the one named, and those that follow it when it is large or old.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::cli::RecordArgs;
use crate::command::say;
use crate::session::{self, SecretKey, Writable};

/// Which files there are and come.
pub struct Files {
    base: PathBuf,
    /// Those of this recording, but for the ones that were deleted; the last one is being written.
    parts: Vec<Part>,
    most: Option<NonZeroUsize>,
    pub limits: Limits,
    /// Made by us and still without a run.
    fresh: bool,
}

/// A file of this recording.
struct Part {
    number: u64,
    path: PathBuf,
    identity: Identity,
    /// It was not there before.
    made: bool,
}

/// Device and inode of a file.
type Identity = (u64, u64);

/// When a file is to be followed by another one.
#[derive(Clone, Copy)]
pub struct Limits {
    size: Option<u64>,
    age: Option<Duration>,
}

/// An open session, ours alone to write.
pub struct Open {
    pub db: Writable,
    pub path: PathBuf,
    identity: Identity,
    since: Instant,
}

impl Files {
    /// Makes or opens the first file; one that is signed takes a key.
    ///
    /// # Errors
    /// When it is there and not to be appended to, or cannot be had.
    pub fn open(args: &RecordArgs, key: Option<&SecretKey>) -> Result<(Self, Open)> {
        let mut files = Self {
            base: args.file.clone(),
            parts: Vec::new(),
            most: args.max_files,
            limits: Limits {
                size: args.max_size,
                age: args.max_age,
            },
            fresh: false,
        };
        let number = match args.append {
            true => numbered(&files.base)?.last().copied().unwrap_or(0),
            false => 0,
        };
        let path = files.path(number);
        let db = match args.append {
            true => session::append(&path, key)?,
            false => session::create(&path)?,
        };
        let otherwise = key.filter(|_| args.append);
        let otherwise = otherwise.map(|key| session::signed_otherwise(&db, key));
        if let Some(how) = otherwise.transpose()?.flatten() {
            say(&format!(
                "what {} holds already {how}: verify --key will not accept all of it",
                path.display()
            ));
        }
        // Not before: what is there already is none of ours.
        files.fresh = !args.append;
        let open = files.add(number, path, db, files.fresh)?;
        Ok((files, open))
    }

    /// Makes the file that follows all others, and deletes those of this recording that are too many.
    ///
    /// # Errors
    /// When it cannot be made. Those that cannot be deleted stay, which `say` is told.
    pub fn next(&mut self, mut say: impl FnMut(String)) -> Result<Open> {
        let there = numbered(&self.base)?.last().copied();
        let ours = self.parts.last().map(|part| part.number);
        let number = there.max(ours).unwrap_or(0) + 1;
        let path = self.path(number);
        let db = session::create(&path)?;
        let open = self.add(number, path, db, true)?;
        let most = self.most.map_or(usize::MAX, NonZeroUsize::get);
        let mut many = self.parts.iter().filter(|part| part.made).count();
        self.parts.retain(|part| {
            if !part.made || many <= most {
                return true;
            }
            many -= 1;
            let deleted = part.delete();
            if let Err(error) = &deleted {
                say(format!("{} stays: {error:#}", part.path.display()));
            }
            deleted.is_err()
        });
        Ok(open)
    }

    fn add(&mut self, number: u64, path: PathBuf, db: Writable, made: bool) -> Result<Open> {
        let identity = identity(&path)?;
        self.parts.push(Part {
            number,
            path: path.clone(),
            identity,
            made,
        });
        Ok(Open {
            db,
            path,
            identity,
            since: Instant::now(),
        })
    }

    /// Name of the file, or of the first and the last, of those that are there.
    pub fn names(&self) -> String {
        let there: Vec<&Part> = self.parts.iter().filter(|part| part.is_there()).collect();
        match there[..] {
            [] => "files that were removed".to_owned(),
            [one] => one.path.display().to_string(),
            [first, .., last] => format!(
                "{} to {} ({} files)",
                first.path.display(),
                last.path.display(),
                there.len()
            ),
        }
    }

    /// A run begins.
    pub fn taken(&mut self) {
        self.fresh = false;
    }

    fn path(&self, number: u64) -> PathBuf {
        match number {
            0 => self.base.clone(),
            _ => {
                let mut name = self.base.file_stem().unwrap_or_default().to_owned();
                name.push(format!(".{number}"));
                if let Some(extension) = self.base.extension() {
                    name.push(".");
                    name.push(extension);
                }
                self.base.with_file_name(name)
            }
        }
    }
}

impl Part {
    fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|there| there == self.identity)
    }

    /// Deletes it with its journal, but nothing else that has its name by now.
    fn delete(&self) -> Result<()> {
        if !self.is_there() {
            return Ok(());
        }
        ensure!(
            !session::is_being_written(&self.path)?,
            "it is being recorded into"
        );
        fs::remove_file(&self.path)?;
        for suffix in ["-wal", "-shm"] {
            let mut journal = self.path.clone().into_os_string();
            journal.push(suffix);
            match fs::remove_file(journal) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Files {
    /// When nothing could be recorded after all, the file that was made for it goes away.
    fn drop(&mut self) {
        if let Some(part) = self.parts.last().filter(|_| self.fresh) {
            // What stays is an empty session.
            let _ = part.delete();
        }
    }
}

impl Limits {
    /// Why this file has to be followed by another one; `seed`: its bytes when the run had just begun.
    pub fn reached(&self, open: &Open, bytes: u64, seed: u64) -> Option<&'static str> {
        // Where many sockets are open, much of a small file were about them.
        if self.size.is_some_and(|most| bytes >= most.max(2 * seed)) {
            return Some("the file is large enough");
        }
        let age = open.since.elapsed();
        (self.age.is_some_and(|most| age >= most)).then_some("the file is old enough")
    }
}

impl Open {
    /// Bytes of the session, what is still in the journal counted in.
    pub fn bytes(&self) -> Result<u64> {
        let number =
            |pragma| (self.db).pragma_query_value(None, pragma, |row| row.get::<_, u32>(0));
        Ok(u64::from(number("page_count")?) * u64::from(number("page_size")?))
    }

    /// Whether the file is where it was made.
    ///
    /// # Errors
    /// When it is not: what is recorded would go nowhere.
    pub fn is_there(&self) -> Result<()> {
        let there = identity(&self.path).is_ok_and(|there| there == self.identity);
        ensure!(there, "the file was removed or renamed");
        Ok(())
    }

    /// Leaves a single file. While someone reads it, the journal stays beside it, until he ends.
    pub fn close(self) -> Result<()> {
        let alone = (self.db).pragma_update(None, "journal_mode", "delete");
        if alone.is_err() {
            self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        }
        Ok(())
    }
}

fn identity(path: &Path) -> std::io::Result<Identity> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Numbers of the files there are, rising; 0 is the one without.
fn numbered(base: &Path) -> Result<Vec<u64>> {
    let directory = directory(base);
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut numbers: Vec<u64> = names
        .filter_map(|name| number(base, Path::new(&name)))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn number(base: &Path, name: &Path) -> Option<u64> {
    if Some(name.as_os_str()) == base.file_name() {
        return Some(0);
    }
    let stem = match base.extension() {
        Some(extension) if name.extension() == Some(extension) => Path::new(name.file_stem()?),
        Some(_) => return None,
        None => name,
    };
    let digits = stem.extension()?.to_str()?;
    let number: u64 = digits.parse().ok().filter(|&number| number > 0)?;
    // As we write it: no sign, no zeros in front.
    (stem.file_stem() == base.file_stem() && number.to_string() == digits).then_some(number)
}

pub fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}

/// Whether files can be made and deleted in a directory without any capability.
pub fn is_ours(directory: &Path) -> bool {
    // SAFETY: geteuid has no preconditions.
    let own = unsafe { libc::geteuid() };
    fs::metadata(directory).is_ok_and(|x| x.uid() == own && x.mode() & 0o300 == 0o300)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_would_give_have_a_number() {
        for (base, name, expected) in [
            ("d/s.db", "s.db", Some(0)),
            ("d/s.db", "s.1.db", Some(1)),
            ("s.db", "s.12.db", Some(12)),
            ("s.db", "s.012.db", None),
            ("s.db", "s.+1.db", None),
            ("s.db", "s.0.db", None),
            ("s.db", "s.x.db", None),
            ("s.db", "t.1.db", None),
            ("s.db", "s.1.db-wal", None),
            ("s.db", "s.1", None),
            ("s", "s", Some(0)),
            ("s", "s.3", Some(3)),
            ("s", "s.3.db", None),
            ("a.b.db", "a.b.2.db", Some(2)),
        ] {
            let found = number(Path::new(base), Path::new(name));
            assert_eq!(found, expected, "{base} {name}");
        }
    }
}
