//! Files that are made for what was recorded: only their owner may read them, as with a session, and
//! none with something in it is written over.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Error, Result, anyhow, bail};

use crate::session;

/// What becomes of a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Kept,
    /// The same, where there is --force.
    KeptWithoutForce,
    /// --force was given. Its mode stays as it is.
    Overwritten,
}

/// Whether a file can be made there, as far as is known without trying.
///
/// # Errors
/// When there is one that has to stay.
pub fn is_free(path: &Path, existing: Existing) -> Result<()> {
    match fs::metadata(path) {
        Ok(there) if there.is_file() && there.len() > 0 && !is_descriptor(path) => match existing {
            Existing::Overwritten if session::is_session(path) => {
                bail!("{} is a session: name another file", path.display())
            }
            Existing::Overwritten => Ok(()),
            kept => Err(kept.refusal(path)),
        },
        // What else is wrong is told by the attempt.
        _ => Ok(()),
    }
}

/// Makes a file, or opens what is no file but takes what is written: a pipe, /dev/stdout, /dev/null.
///
/// # Errors
/// When there is one that has to stay, or it cannot be made.
pub fn create(path: &Path, existing: Existing) -> Result<File> {
    is_free(path, existing)?;
    let mut options = File::options();
    options.write(true).mode(0o600);
    match existing {
        // Behind a descriptor may be a file with something in it. One of mktemp has nothing.
        _ if is_no_file(path) || is_empty(path) => options.append(true),
        Existing::Overwritten => options.create(true).truncate(true),
        _ => options.create_new(true),
    };
    options.open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => existing.refusal(path),
        _ => Error::new(error).context(format!("creating {}", path.display())),
    })
}

/// Takes away a file that could only be written in part.
///
/// # Errors
/// When it stays.
pub fn remove(path: &Path) -> Result<()> {
    match is_no_file(path) {
        true => Ok(()),
        false => fs::remove_file(path).with_context(|| format!("removing {}", path.display())),
    }
}

impl Existing {
    fn refusal(self, path: &Path) -> Error {
        let remedy = match self {
            Existing::KeptWithoutForce => "overwrite it with --force",
            _ => "remove it first",
        };
        let name = path.display();
        anyhow!("{name} is there already: name another file, or {remedy}")
    }
}

fn is_empty(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|there| there.is_file() && there.len() == 0)
}

fn is_no_file(path: &Path) -> bool {
    is_descriptor(path) || fs::metadata(path).is_ok_and(|there| !there.is_file())
}

/// Whether this names what is open already, even if that is a file, as after `> FILE`.
fn is_descriptor(path: &Path) -> bool {
    let places = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"];
    places.iter().any(|place| path.starts_with(place))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.json");
        create(&path, Existing::Kept)
            .unwrap()
            .write_all(b"1")
            .unwrap();
        assert_eq!(mode(&path), 0o600);
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        let dangling = folder.path().join("dangling");
        symlink(folder.path().join("nothing"), &dangling).unwrap();
        for there in [&path, &link, &dangling] {
            let error = create(there, Existing::Kept).unwrap_err().to_string();
            let name = there.to_str().unwrap();
            assert!(
                error.starts_with(name) && error.contains("is there already"),
                "{error}"
            );
        }
        assert_eq!(fs::read(&path).unwrap(), b"1");
        drop(create(&path, Existing::Overwritten).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn an_empty_file_takes_what_is_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        is_free(file.path(), Existing::Kept).unwrap();
        let mut made = create(file.path(), Existing::Kept).unwrap();
        made.write_all(b"1").unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), b"1");
        is_free(file.path(), Existing::Kept).unwrap_err();
    }

    #[test]
    fn a_session_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        drop(session::create(&path).unwrap());
        let error = create(&path, Existing::Overwritten).unwrap_err();
        assert!(error.to_string().contains("is a session"), "{error}");
    }

    #[test]
    fn what_is_no_file_takes_what_is_written() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before ").unwrap();
        let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        for name in ["/dev/null", &descriptor] {
            let path = Path::new(name);
            create(path, Existing::Kept)
                .unwrap()
                .write_all(b"x")
                .unwrap();
            remove(path).unwrap();
        }
        assert_eq!(fs::read(&descriptor).unwrap(), b"before x");
    }
}
