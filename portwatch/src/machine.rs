//! Answers from this machine: /proc, the cgroup file system and the user database.

mod process;

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use lru::LruCache;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};

use crate::bind::Refusal;
use crate::device::Device;
use crate::event::{Comm, Proto};
use crate::probe::cgroup2;
use crate::process::{Lookup, Process};
use crate::sanitize;
use crate::user::Users;

use process::{read_cgroup, read_comm, read_process};

pub use process::{Status, read_args, read_exe, read_status, started};

/// Most cgroups remembered. Those of containers come and go for as long as a trace runs.
const CGROUPS: NonZeroUsize = const { NonZeroUsize::new(1 << 16).unwrap() };

/// None of them, and no room taken yet: most machines have few.
fn no_cgroups() -> LruCache<u64, Option<String>> {
    let mut cgroups = LruCache::unbounded();
    cgroups.resize(CGROUPS);
    cgroups
}

/// What this machine knows, remembered where it does not change.
pub struct Machine {
    /// Of the proc file system.
    root: PathBuf,
    /// `None` for another machine: a name here may be someone else there.
    users: Option<Users>,
    /// Paths by id; none of an id that nobody knows.
    cgroups: LruCache<u64, Option<String>>,
    /// Whether there are hierarchies of version 1, whose paths no id tells.
    version_1: bool,
}

impl Machine {
    pub fn new() -> Self {
        Self {
            root: "/proc".into(),
            users: Some(Users::system()),
            cgroups: no_cgroups(),
            version_1: (std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
                .lines()
                .any(|line| !line.starts_with("0:")),
        }
    }

    /// What another proc file system tells of its machine.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            users: None,
            cgroups: no_cgroups(),
            version_1: false,
        }
    }

    /// Without processes: none here has the number that is asked for.
    pub fn without_processes() -> Self {
        Self {
            root: "/dev/null".into(),
            ..Self::new()
        }
    }

    /// A cgroup was made.
    pub fn add_cgroup(&mut self, id: u64, path: String) {
        self.cgroups.put(id, Some(path));
    }

    /// All processes running now.
    pub fn processes(&mut self) -> Vec<(u32, Process)> {
        let Ok(entries) = std::fs::read_dir(&self.root) else {
            return Vec::new();
        };
        (entries.flatten())
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, read_process(&self.root, pid)?)))
            .collect()
    }

    /// Whether there is such a process, whatever can be read of it.
    pub fn has(&self, pid: u32) -> bool {
        self.root.join(pid.to_string()).is_dir()
    }

    /// What the status of a running process tells; nothing when it cannot be read.
    pub fn status(&self, pid: u32) -> Status {
        read_status(&self.root.join(pid.to_string()))
    }

    /// What a process runs, if it still has this name.
    pub fn exe(&self, pid: u32, comm: &Comm) -> Option<String> {
        let directory = self.root.join(pid.to_string());
        let exe = read_exe(&directory);
        exe.filter(|_| read_comm(&directory).is_some_and(|now| now.bytes() == comm.bytes()))
    }

    /// Reads the ids of all cgroups.
    fn scan_cgroups(&mut self) {
        // Those of another machine are not here.
        let Some(root) = cgroup2::root().filter(|_| self.users.is_some()) else {
            return;
        };
        walk(root, root, &mut |id, path| self.add_cgroup(id, path));
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Lookup for Machine {
    fn process(&mut self, pid: u32) -> Option<Process> {
        read_process(&self.root, pid)
    }

    fn cgroup(&mut self, id: u64) -> Option<String> {
        if !self.cgroups.contains(&id) {
            self.scan_cgroups();
        }
        // An id that nobody knows is not worth a second walk.
        self.cgroups.get_or_insert(id, || None).clone()
    }

    fn cgroup_now(&mut self, pid: u32) -> Option<String> {
        let directory = self.root.join(pid.to_string());
        self.version_1.then(|| read_cgroup(&directory)).flatten()
    }

    fn user(&mut self, uid: u32) -> Option<String> {
        self.users.as_mut()?.name(uid).map(str::to_string)
    }
}

fn walk(root: &Path, directory: &Path, found: &mut impl FnMut(u64, String)) {
    let Ok(metadata) = directory.metadata() else {
        return;
    };
    let below = directory.strip_prefix(root).unwrap_or(directory);
    let below = sanitize::utf8(below.as_os_str().as_encoded_bytes());
    found(metadata.ino(), format!("/{below}"));
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(root, &entry.path(), found);
        }
    }
}

/// `PROC_PID_INIT_INO`: the namespace of processes whose numbers the kernel itself uses.
const FIRST_PID_NAMESPACE: u64 = 0xeffffffc;

/// # Errors
/// When processes have other numbers here than eBPF tells, as in a container.
pub fn same_numbers() -> Result<()> {
    let namespace = std::fs::metadata("/proc/self/ns/pid").context("reading /proc/self/ns/pid")?;
    ensure!(
        namespace.ino() == FIRST_PID_NAMESPACE,
        "processes have other numbers here than in the kernel (a container's pid namespace; docker \
         run --pid=host shares the machine's)"
    );
    Ok(())
}

/// Whether the kernel refuses to bind to an address on a device, and why. The kernel itself is asked, by a bind that
/// takes no port: lists of addresses say nothing of local routes, of net.ipv4.ip_nonlocal_bind and
/// its like, and of multicast.
pub fn refusal(proto: Proto, addr: IpAddr, device: Option<Device>) -> Option<Refusal> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
    let family = match addr {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match proto {
        Proto::Udp => SocketType::DGRAM,
        _ => SocketType::STREAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).ok()?;
    if let Some(device) = device {
        let name = device.bytes();
        // SAFETY: the descriptor is open, and there are as many bytes as told.
        let refused = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                name.as_ptr().cast(),
                name.len() as libc::socklen_t,
            )
        };
        if refused != 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENODEV) {
            return Some(Refusal::NoDevice);
        }
    }
    let (on, size) = (1_i32, size_of::<i32>() as libc::socklen_t);
    // Where this is refused, the kernel picks a port for the moment, which does no harm.
    // SAFETY: the descriptor is open, and the value is of the size told.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size,
        );
    }
    match bind(&socket, &SocketAddr::new(addr, 0)) {
        Err(Errno::ADDRNOTAVAIL) => Some(Refusal::Foreign),
        Err(Errno::INVAL) => Some(Refusal::Invalid),
        _ => None,
    }
}

/// Whether a capability that this thread has in effect counts in the network namespace that it is in: only
/// where it is held in the user namespace that owns that, or in one above (user_namespaces(7)).
pub fn has_network_capability(capability: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|own| own.effective.contains(capability)) && network_is_within()
}

/// Whether the network namespace belongs to this user namespace or to one below it.
fn network_is_within() -> bool {
    let Ok(network) = File::open("/proc/thread-self/ns/net") else {
        return true;
    };
    // SAFETY: the descriptor is open, and the request takes nothing else.
    let owner = unsafe { libc::ioctl(network.as_raw_fd(), libc::NS_GET_USERNS) };
    if owner < 0 {
        return std::io::Error::last_os_error().raw_os_error() != Some(libc::EPERM);
    }
    // SAFETY: it is open, and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(owner) });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_runs_is_read_while_it_has_the_name() {
        let machine = Machine::new();
        let pid = std::process::id();
        let comm = read_comm(Path::new("/proc/self")).unwrap();
        let own = std::env::current_exe().unwrap();
        assert_eq!(machine.exe(pid, &comm).as_deref(), own.to_str());
        assert_eq!(machine.exe(pid, &"another".into()), None);
    }

    #[test]
    fn cgroups_that_came_and_went_are_forgotten() {
        let mut machine = Machine::at(Path::new("/dev/null"));
        let most = CGROUPS.get() as u64;
        for id in 0..most + 10 {
            machine.add_cgroup(id, format!("/docker/{id}"));
        }
        assert_eq!(machine.cgroups.len(), CGROUPS.get());
        assert_eq!(machine.cgroup(0), None);
        let last = most + 9;
        assert_eq!(machine.cgroup(last), Some(format!("/docker/{last}")));
    }
}
