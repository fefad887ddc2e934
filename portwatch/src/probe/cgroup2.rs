//! The root of the cgroup v2 hierarchy, wherever it is mounted.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::machine::read_status;

/// Where it is mounted, or where it can be had although it is not mounted here: `ip netns exec` hides it
/// behind a new /sys, but the shell that ran it still has it. (A mount of our own would change the options
/// of the hierarchy for the whole machine.) The same for as long as this program runs.
pub fn root() -> Option<&'static Path> {
    static ROOT: LazyLock<Option<Root>> = LazyLock::new(find);
    Some(ROOT.as_ref()?.path.as_path())
}

struct Root {
    path: PathBuf,
    /// What the path leads to, where others could take it away.
    _kept: Option<File>,
}

fn find() -> Option<Root> {
    if let Some(path) = mounted("self") {
        return Some(Root { path, _kept: None });
    }
    let ancestors = std::iter::successors(parent("self"), |pid| parent(&pid.to_string()));
    ancestors.filter(|&pid| pid != 0).find_map(|pid| {
        let place = mounted(&pid.to_string())?;
        let place = place.strip_prefix("/").ok()?;
        let kept = File::open(Path::new(&format!("/proc/{pid}/root")).join(place)).ok()?;
        Some(Root {
            path: format!("/proc/self/fd/{}", kept.as_raw_fd()).into(),
            _kept: Some(kept),
        })
    })
}

/// Mount point of the hierarchy as a process sees it.
fn mounted(pid: &str) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mounts")).ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| path.replace("\\040", " ").into())
    })
}

fn parent(pid: &str) -> Option<u32> {
    read_status(Path::new(&format!("/proc/{pid}"))).ppid
}

/// The root as cgroup programs are attached to.
///
/// # Errors
/// When there is none to be had.
pub fn open() -> io::Result<File> {
    match root() {
        Some(path) => File::open(path),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no cgroup v2 hierarchy is mounted",
        )),
    }
}
