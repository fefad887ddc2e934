//! The network namespaces of the machine: those of its processes and their threads, and those that are
//! only kept by a bind mount, as `ip netns` makes them. One that is kept by nothing but an open file, a
//! socket or a mount in another mount namespace is not found.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::holders::pids;

/// A network namespace and where it can be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Processes in it, in order.
    pids: Vec<u32>,
    /// Threads in it whose process is elsewhere, behind the number of that.
    threads: Vec<(u32, u32)>,
    /// Where it is mounted.
    mounts: Vec<PathBuf>,
}

/// By inode number.
#[derive(Debug, Default)]
pub struct Namespaces {
    pub known: BTreeMap<u32, Namespace>,
    /// Processes whose namespace may not be looked at.
    pub denied: usize,
    /// Processes whose namespace cannot be told from what is there.
    pub damaged: usize,
}

impl Namespaces {
    /// Those of this machine, whose proc file system is there.
    ///
    /// # Errors
    /// As [`Namespaces::of_processes`].
    pub fn of_machine(root: &Path) -> Result<Self> {
        let mut all = Self::of_processes(root)?;
        all.add_mounted();
        Ok(all)
    }

    /// Those of all processes of a proc file system, and of their threads.
    ///
    /// # Errors
    /// When its root cannot be read.
    pub fn of_processes(root: &Path) -> Result<Self> {
        let mut found = Self::default();
        for pid in pids(root)? {
            let link = root.join(format!("{pid}/ns/net"));
            match std::fs::read_link(&link) {
                Ok(target) => match inode(target.as_os_str().as_encoded_bytes()) {
                    Some(inode) => {
                        found.known.entry(inode).or_default().pids.push(pid);
                        found.add_threads(root, pid, Some(inode));
                    }
                    None => found.damaged += 1,
                },
                Err(error) => match error.kind() {
                    ErrorKind::PermissionDenied => found.denied += 1,
                    ErrorKind::InvalidInput => found.damaged += 1,
                    // It ended, and its parent does not know yet; or its first thread did, and others go on.
                    _ if link.symlink_metadata().is_ok() => found.add_threads(root, pid, None),
                    // It is gone, or the tree is not whole.
                    _ => found.damaged += usize::from(root.join(pid.to_string()).exists()),
                },
            }
        }
        Ok(found)
    }

    /// Adds those of the threads of a process that are not where its first one is.
    fn add_threads(&mut self, root: &Path, pid: u32, first: Option<u32>) {
        let path = root.join(format!("{pid}/task"));
        // Most have one thread: the directory's own two links and one more.
        if (path.metadata()).is_ok_and(|directory| directory.nlink() == 3) {
            return;
        }
        let Ok(tids) = pids(&path) else { return };
        for tid in tids {
            let link = path.join(format!("{tid}/ns/net"));
            // It may have ended meanwhile.
            let Ok(target) = link.read_link() else {
                continue;
            };
            let inode = inode(target.as_os_str().as_encoded_bytes());
            if let Some(inode) = inode.filter(|&inode| Some(inode) != first) {
                let threads = &mut self.known.entry(inode).or_default().threads;
                threads.push((pid, tid));
            }
        }
    }

    /// Adds those that are mounted where this process sees it.
    fn add_mounted(&mut self) {
        let Ok(mounts) = std::fs::read("/proc/self/mountinfo") else {
            return;
        };
        for (inode, path) in mounts.split(|&b| b == b'\n').filter_map(mounted) {
            self.known.entry(inode).or_default().mounts.push(path);
        }
    }
}

impl Namespace {
    /// Directories of the tasks in it.
    pub fn tasks(&self, root: &Path) -> impl Iterator<Item = PathBuf> {
        let processes = self.pids.iter().map(|pid| pid.to_string());
        let threads = (self.threads.iter()).map(|(pid, tid)| format!("{pid}/task/{tid}"));
        processes.chain(threads).map(|task| root.join(task))
    }

    /// Whether one of its tasks is still in a proc file system.
    pub fn is_in(&self, root: &Path) -> bool {
        (self.tasks(root)).any(|task| task.join("ns/net").read_link().is_ok())
    }

    /// Moves this thread into it. Only for threads made for that: whatever runs on it later opens
    /// its sockets in there.
    pub fn enter(&self, inode: u32) -> Entry {
        let tasks = self.tasks(Path::new("/proc"));
        let tasks = tasks.map(|task| task.join("ns/net"));
        let mut entry = Entry::Gone;
        for path in self.mounts.iter().cloned().chain(tasks) {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) => {
                    if error.kind() == ErrorKind::PermissionDenied {
                        entry = Entry::Denied;
                    }
                    continue;
                }
            };
            // The process may have ended and its number been given to another.
            if !(file.metadata()).is_ok_and(|file| file.ino() == u64::from(inode)) {
                continue;
            }
            match move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)) {
                Ok(()) => return Entry::Inside,
                Err(_) => return Entry::Denied,
            }
        }
        entry
    }
}

/// What became of entering a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Inside,
    /// The thread is where it was.
    Gone,
    /// The thread is where it was.
    Denied,
}

/// Inode number of the namespace that this process is in.
///
/// # Errors
/// When /proc is not there.
pub fn own() -> Result<u32> {
    let target = std::fs::read_link("/proc/self/ns/net")
        .context("reading /proc/self/ns/net: is /proc mounted?")?;
    inode(target.as_os_str().as_encoded_bytes()).context("/proc/self/ns/net is no namespace")
}

/// The same of the first process of a proc file system, as far as that tells.
pub fn first_netns(root: &Path) -> Option<u32> {
    let target = std::fs::read_link(root.join("1/ns/net")).ok()?;
    inode(target.as_os_str().as_encoded_bytes())
}

/// From `net:[4026531840]`.
fn inode(link: &[u8]) -> Option<u32> {
    let digits = link.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A network namespace and its place, from a line of proc_pid_mountinfo(5):
/// `37 23 0:4 net:[4026532177] /run/netns/blue rw shared:5 - nsfs nsfs rw`.
fn mounted(line: &[u8]) -> Option<(u32, PathBuf)> {
    let mut fields = line.split(|&b| b == b' ').skip(3);
    let inode = inode(fields.next()?)?;
    Some((inode, OsString::from_vec(unescape(fields.next()?)).into()))
}

/// Spaces and the like are written as `\040`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, others)) = rest.split_first() {
        let digits = others.get(..3).filter(|_| first == b'\\');
        let byte =
            digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(byte.unwrap_or(first));
        rest = &others[if byte.is_some() { 3 } else { 0 }..];
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mounts_of_network_namespaces_are_told_from_others() {
        let line = br"37 23 0:4 net:[4026532177] /run/netns/a\040b\134c rw shared:5 - nsfs nsfs rw";
        let expected = (4026532177, PathBuf::from(r"/run/netns/a b\c"));
        assert_eq!(mounted(line), Some(expected));
        for other in [
            "24 1 0:4 mnt:[4026531841] /run/snapd/ns/x rw - nsfs nsfs rw",
            "24 1 0:4 / /proc rw - proc proc rw",
            "24 1 0:4 net:[many] /x rw - nsfs nsfs rw",
            "",
        ] {
            assert_eq!(mounted(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (mounted(&line), inode(&line), unescape(&line));
        }
    }
}
