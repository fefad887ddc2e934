//! Hashes of executables, each made once for as long as the file does not change.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use lru::LruCache;

use crate::event::Context;
use crate::machine::read_exe;

/// Most executables remembered.
const REMEMBERED: NonZeroUsize = const { NonZeroUsize::new(4096).unwrap() };

/// Device, inode, size, and the time of the last change of the contents.
type Identity = (u64, u64, u64, i64, i64);

pub struct Executables(LruCache<Identity, Option<String>>);

impl Default for Executables {
    fn default() -> Self {
        Self(LruCache::new(REMEMBERED))
    }
}

impl Executables {
    /// BLAKE3 of the executable of a process that runs it since `started` (nanoseconds since the Unix
    /// epoch), hexadecimal; `None` when it is gone, was changed since, or cannot be read.
    pub fn blake3(
        &mut self,
        pid: Option<u32>,
        context: &Context,
        started: Option<u64>,
    ) -> Option<String> {
        let file = open(pid, context, started)?;
        let metadata = file.metadata().ok().filter(|x| x.is_file())?;
        let identity = (
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        );
        let hash = || {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(file).ok()?;
            Some(hasher.finalize().to_hex().to_string())
        };
        self.0.get_or_insert(identity, hash).clone()
    }
}

/// The file that the process runs, also when it has no name any more; else the one of that name, unless
/// names mean something else where the process is, or the file may be another one: its name was given
/// to it, or it was written, after the start.
fn open(pid: Option<u32>, context: &Context, started: Option<u64>) -> Option<File> {
    let name = context.exe.as_deref()?;
    if let Some(pid) = pid {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        // It may run another program by now, and its number may have been given away.
        if read_exe(&directory).as_deref() == Some(name) {
            return File::open(directory.join("exe")).ok();
        }
    }
    let path = Path::new(name);
    let mut options = File::options();
    // Whatever has that name now must not make us wait.
    options.read(true).custom_flags(libc::O_NONBLOCK);
    if context.container.is_some() || !path.is_absolute() {
        return None;
    }
    let file = options.open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
    (changed <= i128::from(started?)).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(exe: &Path) -> Context {
        Context {
            exe: Some(exe.to_str().unwrap().to_owned()),
            ..Context::default()
        }
    }

    #[test]
    fn a_hash_is_that_of_the_file_and_new_when_the_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let mut executables = Executables::default();
        assert_eq!(
            executables.blake3(None, &running(&path), Some(u64::MAX)),
            None
        );
        for text in ["one", "another"] {
            std::fs::write(&path, text).unwrap();
            let expected = blake3::hash(text.as_bytes()).to_hex().to_string();
            assert_eq!(
                executables.blake3(None, &running(&path), Some(u64::MAX)),
                Some(expected)
            );
            // It may have been another one when the process began.
            assert_eq!(executables.blake3(None, &running(&path), Some(1)), None);
            assert_eq!(executables.blake3(None, &running(&path), None), None);
        }
    }

    #[test]
    fn what_a_process_runs_is_found_though_its_file_was_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sleeper");
        // By another process: one that is forked here meanwhile would have it open for writing.
        let mut copy = std::process::Command::new("cp");
        let copied = copy.arg("/bin/sleep").arg(&path).status();
        assert!(copied.unwrap().success());
        let expected = blake3::hash(&std::fs::read(&path).unwrap()).to_hex();
        let mut child = std::process::Command::new(&path).arg("60").spawn().unwrap();
        std::fs::remove_file(&path).unwrap();
        let hash = Executables::default().blake3(Some(child.id()), &running(&path), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(hash.as_deref(), Some(expected.as_str()));
    }

    #[test]
    fn a_name_in_a_container_is_not_looked_up_here() {
        let mut context = running(Path::new("/bin/sh"));
        assert!(
            Executables::default()
                .blake3(None, &context, Some(u64::MAX))
                .is_some()
        );
        context.container = Some("0123456789ab".into());
        assert_eq!(
            Executables::default().blake3(None, &context, Some(u64::MAX)),
            None
        );
    }
}
