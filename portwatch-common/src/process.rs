//! News of processes and cgroups, so that user space knows those that are gone when it looks.

/// A process was forked or ended, as it lies in the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessRecord {
    /// [`crate::Kind`]: `Fork` or `Exit`.
    pub kind: u8,
    pub _reserved: [u8; 3],
    /// `Exit`: as wait(2) gives it, or [`NO_STATUS`]; 0 for `Fork`.
    pub status: u32,
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub ts: u64,
    /// Thread group id: the new process, or the one that ended.
    pub tgid: u32,
    /// Thread group id of the parent; 0 for `Exit`.
    pub ppid: u32,
    /// `Fork`: of the parent's thread group leader, NUL padded. It may have changed since its exec.
    pub comm: crate::Bytes16,
}

/// This kernel does not tell how a process ended.
pub const NO_STATUS: u32 = u32::MAX;

/// Head of an exec or cgroup record; `exe_len + args_len` bytes of text follow it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextRecord {
    /// [`crate::Kind`]: `Exec` or `Cgroup`.
    pub kind: u8,
    /// 1 when the arguments were longer than [`ARGS_MAX`].
    pub truncated: u8,
    /// Exec: path components of the executable, each ended by NUL, last one first.
    /// Cgroup: its path.
    pub exe_len: u16,
    /// Exec: the arguments as they lie in memory, each ended by NUL.
    pub args_len: u32,
    pub ts: u64,
    pub tgid: u32,
    pub ppid: u32,
    /// Id of the cgroup v2 directory: of the process, or the one that was made.
    pub cgroup: u64,
    pub uid: u32,
    pub gid: u32,
    pub comm: crate::Bytes16,
}

/// Most bytes of arguments taken in the kernel; longer ones are read from /proc if there is time.
pub const ARGS_MAX: usize = 4096;
/// Most bytes of an executable's or cgroup's path.
pub const PATH_MAX: usize = 4096;

const _: () = assert!(size_of::<ProcessRecord>() == 40);
const _: () = assert!(size_of::<TextRecord>() == 56);
