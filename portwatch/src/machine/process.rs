//! A running process, as a proc file system tells of it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::Clock;
use crate::event::Comm;
use crate::process::Process;
use crate::sanitize;
use crate::snapshot::file;

/// Of proc_pid_status(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub comm: Option<Comm>,
    pub ppid: Option<u32>,
    /// Real user and group.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// What the status in the directory of a running process tells; nothing when it cannot be read.
pub fn read_status(directory: &Path) -> Status {
    let text = file::read(&directory.join("status")).unwrap_or_default();
    let text = sanitize::utf8(&text);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let number = |name| field(name)?.split_ascii_whitespace().next()?.parse().ok();
    Status {
        comm: field("Name:").map(|name| name.trim_start().into()),
        ppid: number("PPid:"),
        uid: number("Uid:"),
        gid: number("Gid:"),
    }
}

/// A running process, from PID/{stat,exe,cmdline,cgroup} of a proc file system; what stat does not tell,
/// as in a tree that is not whole, from comm and status. `None` when nothing tells its name.
pub(super) fn read_process(root: &Path, pid: u32) -> Option<Process> {
    let directory = root.join(pid.to_string());
    let Stat {
        comm, ended, ppid, ..
    } = read_stat(&directory).or_else(|| {
        let status = read_status(&directory);
        Some(Stat {
            comm: read_comm(&directory).or(status.comm)?,
            ended: false,
            ppid: status.ppid.unwrap_or_default(),
            started: None,
        })
    })?;
    let other = ended.then(|| running_thread(&directory)).flatten();
    let directory = other.unwrap_or(directory);
    Some(Process {
        ppid,
        comm,
        exe: read_exe(&directory),
        args: args_in(&directory).map(Arc::from),
        cgroup: read_cgroup(&directory),
    })
}

/// Of proc_pid_stat(5).
struct Stat {
    comm: Comm,
    /// The process, or only its first thread: then what it runs is told by the others.
    ended: bool,
    ppid: u32,
    /// Clock ticks from the start of the machine to its own.
    started: Option<u64>,
}

fn read_stat(directory: &Path) -> Option<Stat> {
    let stat = file::read(&directory.join("stat")).ok()?;
    // pid (comm) state ppid …; comm may hold anything, parentheses too.
    let open = stat.iter().position(|&b| b == b'(')?;
    let close = stat.iter().rposition(|&b| b == b')')?;
    let comm = stat.get(open + 1..close)?.into();
    let rest = std::str::from_utf8(stat.get(close + 2..)?).ok()?;
    let mut rest = rest.split(' ');
    Some(Stat {
        comm,
        ended: rest.next() == Some("Z"),
        ppid: rest.next()?.parse().ok()?,
        // Field 22; the one behind the name is the third.
        started: rest.nth(17).and_then(|ticks| ticks.parse().ok()),
    })
}

/// The directory of a thread of a process that has not ended.
fn running_thread(directory: &Path) -> Option<PathBuf> {
    let threads = std::fs::read_dir(directory.join("task")).ok()?;
    let mut threads = threads.flatten().map(|thread| thread.path());
    threads.find(|thread| read_stat(thread).is_some_and(|stat| !stat.ended))
}

/// Path of the file that a process runs, below its root. Of a deleted one the path that it had.
pub fn read_exe(directory: &Path) -> Option<String> {
    const DELETED: &str = " (deleted)";
    let link = directory.join("exe");
    let path = std::fs::read_link(&link).ok()?;
    let text = sanitize::utf8(path.as_os_str().as_encoded_bytes());
    let Some(before) = text.strip_suffix(DELETED) else {
        return Some(text.into_owned());
    };
    // The kernel says so behind the path; but a name may end in it.
    let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    let named = directory.join("root").join(path.strip_prefix("/").ok()?);
    let file = identity(&link);
    let is_name = file.is_some() && file == identity(&named);
    Some(if is_name { &text } else { before }.to_owned())
}

pub(super) fn read_comm(directory: &Path) -> Option<Comm> {
    let text = file::read(&directory.join("comm")).ok()?;
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    (!text.is_empty()).then(|| text.into())
}

/// Arguments of a running process, as far as it has some.
pub fn read_args(pid: u32) -> Option<Vec<String>> {
    args_in(Path::new(&format!("/proc/{pid}")))
}

fn args_in(directory: &Path) -> Option<Vec<String>> {
    let text = file::read(&directory.join("cmdline")).ok()?;
    Some(crate::decode::args(&text)).filter(|args| !args.is_empty())
}

/// The version 2 path, or the one of the version 1 hierarchy that tells most.
pub(super) fn read_cgroup(directory: &Path) -> Option<String> {
    let text = file::read(&directory.join("cgroup")).ok()?;
    let text = std::str::from_utf8(&text).ok()?;
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.max_by_key(|path| path.len()).map(str::to_string)
}

/// When a running process was started: nanoseconds since the Unix epoch, as exact as the kernel's
/// clock ticks. With the root of another proc file system as that tells it, which is to the second.
pub fn started(root: Option<&Path>, pid: u32) -> Option<u64> {
    let directory = root.unwrap_or(Path::new("/proc")).join(pid.to_string());
    let ticks = read_stat(&directory)?.started?;
    // SAFETY: sysconf has no preconditions.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok()?;
    let boot = u128::from(ticks) * 1_000_000_000 / u128::from(per_second);
    let boot = u64::try_from(boot).ok()?;
    match root {
        None => Some(Clock::new().wall(boot)),
        Some(root) => boot_time(root)?.checked_add(boot),
    }
}

/// When the machine of a proc file system was started, from its stat: nanoseconds since the Unix epoch.
fn boot_time(root: &Path) -> Option<u64> {
    let text = file::read(&root.join("stat")).ok()?;
    let text = std::str::from_utf8(&text).ok()?;
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    seconds
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_file_is_told_from_one_of_that_name() {
        let folder = tempfile::tempdir().unwrap();
        for (name, expected) in [("app (deleted)", "app (deleted)"), ("app", "app")] {
            let path = folder.path().join(name);
            // By another process: one that is forked here meanwhile would have it open for writing.
            let mut copy = std::process::Command::new("cp");
            let copied = copy.arg("/bin/sleep").arg(&path).status();
            assert!(copied.unwrap().success());
            let mut child = std::process::Command::new(&path).arg("60").spawn().unwrap();
            if name == "app" {
                std::fs::remove_file(&path).unwrap();
            }
            let exe = read_exe(Path::new(&format!("/proc/{}", child.id())));
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(exe.as_deref(), folder.path().join(expected).to_str());
        }
    }

    #[test]
    fn a_recorded_tree_tells_when_its_processes_were_started() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("7")).unwrap();
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 1050 1000 100\n";
        std::fs::write(root.join("7/stat"), stat).unwrap();
        assert_eq!(started(Some(root), 7), None);
        std::fs::write(root.join("stat"), "cpu 1 2 3\nbtime 1700000000\n").unwrap();
        assert_eq!(started(Some(root), 7), Some(1_700_000_010_500_000_000));
        assert_eq!(started(Some(root), 8), None);
    }
}
