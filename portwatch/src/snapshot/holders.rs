//! Which processes hold which sockets: one pass over the open files of all processes.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::iterator;
use super::packed::Packed;
use super::read::{needs_root, plural};
use crate::machine::same_numbers;
use crate::threads;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
/// A directory is read in pieces of about 300 entries: few system calls, and yet enough pieces for
/// two threads to share one process.
const ENTRIES: usize = 8 << 10;
/// How many threads read. More than two have not been seen to gain.
const THREADS: usize = 2;

/// Holders of sockets by the sockets' inode numbers.
#[derive(Debug, Default)]
pub struct Holders {
    /// Inode number and pid, in order, each pair once.
    pairs: Vec<(u64, u32)>,
    /// Processes whose open files may not be looked at.
    pub denied: usize,
    /// Processes and files that cannot be told from what is there.
    pub damaged: usize,
    /// Processes of other users are not even there (hidepid in proc(5)).
    hidden: bool,
    /// Told by the kernel, which needs no permission of the processes.
    by_kernel: bool,
    /// Processes outside of this pid namespace are not seen.
    outside: bool,
    /// Sockets of this machine that have an inode and no holder, though the kernel told.
    lonely: usize,
}

impl Holders {
    /// Those of this machine, told by the kernel where this process may ask it, else from /proc.
    ///
    /// # Errors
    /// As [`Holders::read`].
    pub fn of_machine() -> Result<Self> {
        match iterator::pairs() {
            Ok(pairs) => Ok(Self {
                by_kernel: true,
                ..Self::of_pairs(pairs)
            }),
            // Missing permission, an old kernel, a container: /proc does as well.
            Err(_) => Self::read(Path::new("/proc")),
        }
    }

    /// Reads the open files of all processes of a proc file system.
    ///
    /// # Errors
    /// When its root cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let directory = rustix::fs::open(root, DIRECTORY, Mode::empty());
        let directory = directory.with_context(|| format!("reading {}", root.display()))?;
        let walk = Walk {
            path: root,
            root: directory.as_fd(),
            place: Mutex::new(Place {
                pids: pids(root)?.into_iter(),
                current: None,
            }),
        };
        let mut all = Part::default();
        for part in threads::all(THREADS, || walk.run()) {
            all.pairs.extend(part.pairs);
            all.denied.extend(part.denied);
            all.damaged += part.damaged;
        }
        // Two threads may have been denied the files of one process.
        all.denied.sort_unstable();
        all.denied.dedup();
        let here = root == Path::new("/proc");
        Ok(Self {
            denied: all.denied.len(),
            damaged: all.damaged,
            // The first process of a namespace lives as long as that.
            hidden: here && !root.join("1").exists(),
            outside: here && same_numbers().is_err(),
            ..Self::of_pairs(all.pairs)
        })
    }

    /// From pairs of an inode number and a pid.
    pub(crate) fn of_pairs(mut pairs: Vec<(u64, u32)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup();
        Self {
            pairs,
            ..Self::default()
        }
    }

    /// Processes that hold a socket, in order.
    pub fn of(&self, inode: u64) -> impl Iterator<Item = u32> + Clone {
        let from = self.pairs.partition_point(|&(other, _)| other < inode);
        let rest = self.pairs[from..].iter();
        rest.take_while(move |(other, _)| *other == inode)
            .map(|(_, pid)| *pid)
    }

    /// Whether no process is out of sight.
    pub fn all_seen(&self) -> bool {
        self.denied == 0 && !self.hidden && !self.outside
    }

    /// Counts those without a holder where the kernel told: it may hide what nobody may look into.
    pub fn count_lonely(&mut self, sockets: &Packed) {
        if !self.by_kernel {
            return;
        }
        let inodes = sockets.iter().filter_map(|socket| socket.inode);
        self.lonely = inodes.filter(|&x| self.of(x).next().is_none()).count();
    }

    /// What the user should know.
    pub fn limits(&self) -> Vec<String> {
        let mut limits = Vec::new();
        if self.hidden {
            limits.push(format!(
                "/proc hides the processes of other users (hidepid): neither owners of their sockets \
                 nor their network namespaces can be told{}",
                needs_root(false)
            ));
        }
        if self.denied > 0 {
            limits.push(format!(
                "the open files of {} cannot be read{}: owners of their sockets \
                 are not shown",
                plural(self.denied, "process", "processes"),
                needs_root(false)
            ));
        }
        if self.lonely > 0 {
            limits.push(format!(
                "the kernel tells no owner of {}",
                plural(self.lonely, "socket", "sockets")
            ));
        }
        if self.outside {
            limits.push(
                "processes outside of this pid namespace cannot be seen: owners of their sockets are \
                 not shown, and sockets of network namespaces that only they are in are missing"
                    .to_owned(),
            );
        }
        if self.damaged > 0 {
            limits.push(format!(
                "{} of processes could not be understood: owners of some sockets may be missing",
                plural(self.damaged, "list or entry", "lists or entries")
            ));
        }
        limits
    }
}

/// One pass over the open files of all processes, by several threads at once. They share processes as
/// well, since one that has most sockets of the machine would keep a single thread busy.
struct Walk<'a> {
    path: &'a Path,
    root: BorrowedFd<'a>,
    place: Mutex<Place>,
}

/// How far it has come.
struct Place {
    pids: std::vec::IntoIter<u32>,
    /// The process whose directory is being read.
    current: Option<(u32, Arc<OwnedFd>)>,
}

/// What one thread found.
#[derive(Default)]
struct Part {
    pairs: Vec<(u64, u32)>,
    denied: Vec<u32>,
    damaged: usize,
}

impl Walk<'_> {
    fn run(&self) -> Part {
        let mut part = Part::default();
        let mut entries = Box::new_uninit_slice(ENTRIES);
        while let Some((pid, result)) = self.piece(&mut entries, &mut part) {
            match result {
                Ok(()) => {}
                Err(Errno::ACCESS | Errno::PERM) => part.denied.push(pid),
                // It ended meanwhile, or the tree is not whole.
                Err(_) => part.damaged += usize::from(self.path.join(pid.to_string()).exists()),
            }
        }
        part
    }

    /// Reads the next piece of a directory; of which process, and how that went. `None` at the end.
    fn piece(
        &self,
        entries: &mut [MaybeUninit<u8>],
        part: &mut Part,
    ) -> Option<(u32, Result<(), Errno>)> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let (pid, directory) = match &place.current {
            Some(current) => current.clone(),
            None => {
                let pid = place.pids.next()?;
                let path = format!("{pid}/fd");
                match rustix::fs::openat(self.root, path, DIRECTORY, Mode::empty()) {
                    Ok(directory) => (pid, Arc::new(directory)),
                    Err(error) => return Some((pid, Err(error))),
                }
            }
        };
        let mut entries = RawDir::new(&*directory, entries);
        let mut next = entries.next();
        place.current = match next {
            Some(Ok(_)) => Some((pid, directory.clone())),
            _ => None,
        };
        // The piece is ours; the next one is for whoever comes first.
        drop(place);
        let mut none = true;
        while let Some(entry) = next {
            let result = match entry {
                Ok(entry) if entry.file_name().to_bytes().starts_with(b".") => Ok(()),
                Ok(entry) => {
                    none = false;
                    part.add(pid, directory.as_fd(), entry.file_name())
                }
                // A process that ends has no files any more.
                Err(Errno::NOENT | Errno::SRCH) => Ok(()),
                Err(error) => Err(error),
            };
            if result.is_err() {
                return Some((pid, result));
            }
            next = match entries.is_buffer_empty() {
                true => None,
                false => entries.next(),
            };
        }
        if none {
            return Some((pid, self.other_threads(pid, part)));
        }
        Some((pid, Ok(())))
    }

    /// Where the first thread of a process has ended, only the others have its files.
    fn other_threads(&self, pid: u32, part: &mut Part) -> Result<(), Errno> {
        let path = self.path.join(format!("{pid}/task"));
        // Most that have no files are threads of the kernel: one each.
        if (path.metadata()).is_ok_and(|directory| directory.nlink() == 3) {
            return Ok(());
        }
        for tid in pids(&path).unwrap_or_default() {
            let path = format!("{pid}/task/{tid}/fd");
            let Ok(files) = rustix::fs::openat(self.root, path, DIRECTORY, Mode::empty()) else {
                continue;
            };
            let mut entries = Vec::with_capacity(ENTRIES);
            let mut entries = RawDir::new(&files, entries.spare_capacity_mut());
            while let Some(Ok(entry)) = entries.next() {
                if !entry.file_name().to_bytes().starts_with(b".") {
                    part.add(pid, files.as_fd(), entry.file_name())?;
                }
            }
        }
        Ok(())
    }
}

impl Part {
    /// Looks at one open file.
    fn add(&mut self, pid: u32, directory: BorrowedFd, name: &CStr) -> Result<(), Errno> {
        match socket(directory, name) {
            Ok(Some(inode)) => self.pairs.push((inode, pid)),
            Ok(None) => {}
            // closed meanwhile
            Err(Errno::NOENT) => {}
            Err(error @ (Errno::ACCESS | Errno::PERM)) => return Err(error),
            Err(_) => self.damaged += 1,
        }
        Ok(())
    }
}

/// Inode number of the socket that an open file is; `None` when it is something else.
///
/// # Errors
/// `INVAL` when it is no link, or says that it is a socket and not which.
fn socket(directory: BorrowedFd, name: &CStr) -> Result<Option<u64>, Errno> {
    let mut target = [MaybeUninit::uninit(); 64];
    let (target, _) = rustix::fs::readlinkat_raw(directory, name, &mut target)?;
    let Some(rest) = target.strip_prefix(b"socket:[") else {
        return Ok(None);
    };
    let digits = rest.strip_suffix(b"]").ok_or(Errno::INVAL)?;
    let digits = std::str::from_utf8(digits).map_err(|_| Errno::INVAL)?;
    digits.parse().map(Some).map_err(|_| Errno::INVAL)
}

/// Numbers of all processes of a proc file system, in order.
///
/// # Errors
/// When its root cannot be read.
pub fn pids(root: &Path) -> Result<Vec<u32>> {
    let entries = std::fs::read_dir(root);
    let entries = entries.with_context(|| format!("reading {}", root.display()))?;
    let mut pids: Vec<u32> = (entries.flatten())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}
