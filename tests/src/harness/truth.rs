//! What really happened, as the traffic makers know it from their own system calls: each process
//! keeps its part and writes it to a file of its own at its end.

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::event::{Cause, Family, Kind, Proto};

/// An event that portwatch has to show. `None` leaves a field open, except in `error`: there it
/// stands for success.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Expected {
    pub event: Kind,
    pub pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub laddr: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raddr: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sock: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Between which times (nanoseconds since the Unix epoch) the kernel must have seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Span>,
    /// Bounds in microseconds of the latency of a connect or accept, or the duration of a close.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<Span>,
    /// A tcp connection's close: round trip time and retransmits have to be there.
    #[serde(default)]
    pub measured: bool,
    /// Of a socket that was never connected: no peer and no counters.
    #[serde(default)]
    pub unconnected: bool,
    /// Of a bind that named no address of its family.
    #[serde(default)]
    pub nameless: bool,
    /// Nobody can know whether it is due: a reset that may have come before the accept.
    #[serde(default)]
    pub optional: bool,
}

/// From, to; both included.
pub type Span = (u64, u64);

impl Expected {
    /// An event of which nothing is known but its kind and whose it is.
    pub fn new(event: Kind, pid: u32) -> Self {
        Self {
            event,
            pid,
            tid: None,
            proto: None,
            family: None,
            laddr: None,
            lport: None,
            raddr: None,
            rport: None,
            sock: None,
            netns: None,
            error: None,
            backlog: None,
            rx_bytes: None,
            tx_bytes: None,
            accepted: None,
            cause: None,
            at: None,
            elapsed_us: None,
            measured: false,
            unconnected: false,
            nameless: false,
            optional: false,
        }
    }
}

/// A process that made traffic: every event of it has to be expected, and to describe it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub ppid: u32,
    pub uid: u32,
    pub gid: u32,
    pub comm: String,
    pub exe: String,
    pub args: Vec<String>,
}

/// Bytes as they are to arrive: what is not UTF-8 as `\xff`.
pub fn text(bytes: &[u8]) -> String {
    let chunks = bytes.utf8_chunks().flat_map(|chunk| {
        let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
        std::iter::once(chunk.valid().to_owned()).chain(invalid)
    });
    chunks.collect()
}

impl Process {
    /// The calling process.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn current() -> Result<Self> {
        let cmdline = fs::read("/proc/self/cmdline").context("reading /proc/self/cmdline")?;
        let comm = fs::read("/proc/self/comm").context("reading /proc/self/comm")?;
        let exe = fs::read_link("/proc/self/exe").context("reading /proc/self/exe")?;
        Ok(Self {
            pid: std::process::id(),
            ppid: std::os::unix::process::parent_id(),
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
            comm: text(comm.strip_suffix(b"\n").unwrap_or(&comm)),
            exe: exe.to_string_lossy().into_owned(),
            args: cmdline
                .strip_suffix(b"\0")
                .unwrap_or(&cmdline)
                .split(|&byte| byte == 0)
                .map(text)
                .collect(),
        })
    }
}

/// One line of a truth file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Record {
    Process(Process),
    Expected(Expected),
    /// The kernel lacks what the traffic needs.
    Cannot(String),
    /// The traffic maker itself went wrong.
    Failed(String),
}

static DIRECTORY: Mutex<Option<PathBuf>> = Mutex::new(None);
static LOG: Mutex<Vec<Record>> = Mutex::new(Vec::new());

thread_local! {
    static NETNS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Where this process and its children put their truth from now on.
pub fn set_directory(path: &Path) {
    *lock(&DIRECTORY) = Some(path.to_owned());
}

/// To be called first in a new process: what the parent knows is not the child's to tell.
pub fn begin() {
    lock(&LOG).clear();
}

/// Adds to what this process knows.
pub fn tell(record: Record) {
    lock(&LOG).push(record);
}

/// Declares the calling process, as it is now. The last declaration counts.
pub fn declare() -> Result<()> {
    tell(Record::Process(Process::current()?));
    Ok(())
}

/// Writes down what this process knows, once.
///
/// # Errors
/// When the directory is not set or not writable.
pub fn save() -> Result<()> {
    let records = std::mem::take(&mut *lock(&LOG));
    let directory = lock(&DIRECTORY)
        .clone()
        .context("no directory for the truth")?;
    let mut text = Vec::new();
    for record in &records {
        serde_json::to_writer(&mut text, record)?;
        text.push(b'\n');
    }
    let path = directory.join(std::process::id().to_string());
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(&text))
        .with_context(|| format!("writing {}", path.display()))
}

/// Everything that was written to a directory, in the order of each process.
///
/// # Errors
/// When a file cannot be read or is not whole.
pub fn load(directory: &Path) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for entry in fs::read_dir(directory).context("reading the truth")? {
        let text = fs::read(entry?.path())?;
        for line in text
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            records.push(serde_json::from_slice(line)?);
        }
    }
    Ok(records)
}

/// Nanoseconds since the Unix epoch.
pub fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_nanos() as u64
}

/// Inode number of the calling thread's network namespace; remembered until
/// [`forget_netns`], because a traffic maker at full speed asks for every socket.
pub fn netns() -> u64 {
    NETNS.with(|known| {
        known.get().unwrap_or_else(|| {
            let inode = fs::metadata("/proc/thread-self/ns/net").map_or(0, |meta| meta.ino());
            known.set(Some(inode));
            inode
        })
    })
}

/// To be called after the thread has entered another network namespace.
pub fn forget_netns() {
    NETNS.with(|known| known.set(None));
}

/// A panic while one of these was held has already failed the scenario.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
