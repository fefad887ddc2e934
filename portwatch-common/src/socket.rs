//! A socket as the kernel side remembers it, and the record of something that happened to one.

/// 16 bytes in memory order, copied as two words.
pub type Bytes16 = [u64; 2];

/// Who acts: read from the current task at the moment it calls.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Thread group id: the process. 0 when nobody is known.
    pub tgid: u32,
    pub tid: u32,
    pub ppid: u32,
    pub uid: u32,
    pub gid: u32,
    pub _reserved: u32,
    /// Id (inode number) of the cgroup v2 directory.
    pub cgroup: u64,
    /// Of the thread group leader, NUL padded.
    pub comm: Bytes16,
}

/// Whether this is the address of a socket rather than its cookie. Cookies count up from 1; when the
/// kernel is interrupted in the middle of making one, others count down from the highest number
/// (`gen_cookie_next` in include/linux/cookie.h), where no sockets are kept.
pub const fn is_address(key: u64) -> bool {
    key >> 63 == 1 && key >> 32 != 0xffff_ffff
}

/// One socket: value of the map `SOCKETS`, and body of every [`SocketRecord`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// Host byte order, like `rport`.
    pub lport: u16,
    pub rport: u16,
    /// `flag::*`.
    pub flags: u16,
    /// errno of the last reported outcome of a connect attempt, or of the end in the accept queue.
    pub outcome: u16,
    /// Network byte order; an IPv4 address fills the first four bytes.
    pub laddr: Bytes16,
    pub raddr: Bytes16,
    pub owner: Owner,
    /// Bound, listening or established since: nanoseconds of `CLOCK_BOOTTIME`, 0 when not known.
    pub since: u64,
    /// Start of the connect attempt; end of a connection that still waits to be accepted. Same clock.
    pub started: u64,
    /// Connections accepted from this listener.
    pub accepted: u64,
    /// `handover::*`, added atomically, each once.
    pub handover: u64,
    pub backlog: u32,
    pub _reserved: u32,
}

/// Bits of [`Socket::flags`].
pub mod flag {
    /// A bind was reported.
    pub const BOUND: u16 = 1;
    /// A listen, connect or accept was reported: a close has to follow.
    pub const LIVE: u16 = 2;
    /// A connect attempt is under way.
    pub const CONNECTING: u16 = 4;
    /// The attempt failed inside the call: its return tells why.
    pub const FAILED_IN_CALL: u16 = 8;
    /// The outcome of the attempt was reported, and the call that made it may still return it.
    pub const OUTCOME_REPORTED: u16 = 16;
    /// `EINPROGRESS` was announced.
    pub const ANNOUNCED: u16 = 32;
    /// Came from a listener: `handover` tells whether it was accepted.
    pub const PASSIVE: u16 = 64;
    /// Accepted with data in its SYN, before it had a cookie; kept under its address.
    pub const EARLY: u16 = 128;
    /// In the listen call, whose return tells whether it succeeded.
    pub const LISTENING: u16 = 256;
    /// The close was reported; a reset that was part of it may follow.
    pub const CLOSED: u16 = 512;
    /// Listened: its close tells how many it accepted.
    pub const LISTENER: u16 = 1024;
    /// The bind that failed named no address that sockets of this family have.
    pub const NAMELESS: u16 = 2048;
    /// Came from a listener as one path of an MPTCP connection, which at its end cannot be told any more.
    pub const SUBFLOW: u16 = 4096;
}

/// Steps of a connection on its way from the queue of its listener to the process that accepts
/// it. It may end on another CPU at the same moment, and must then be reported accepted first and
/// closed once: each side adds its step, then looks how far the other is.
pub mod handover {
    /// The accept was reported.
    pub const TOLD: u64 = 1;
    /// The accepting side saw no end: whoever ends the connection reports that alone.
    pub const SETTLED: u64 = 2;
    /// The connection ended.
    pub const ENDED: u64 = 4;
    /// Its end was left to the accepting side to report.
    pub const LEFT: u64 = 8;
}

/// How a connection ended, or which way a reset went.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Local = 1,
    Remote = 2,
    Reset = 3,
    Timeout = 4,
    Error = 5,
    Sent = 6,
    Received = 7,
}

impl Cause {
    /// The cause with this number; `None` for 0 (not told) and unknown ones.
    pub fn from_wire(byte: u8) -> Option<Self> {
        use Cause::*;
        [Local, Remote, Reset, Timeout, Error, Sent, Received]
            .get(usize::from(byte).checked_sub(1)?)
            .copied()
    }
}

/// Something that happened to a socket, as it lies in the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketRecord {
    /// [`crate::Kind`].
    pub kind: u8,
    /// [`Cause`], 0 when absent.
    pub cause: u8,
    /// errno, 0 for success.
    pub error: u16,
    /// The kernel's `enum sk_rst_reason`, 0 when it does not give one.
    pub reason: u32,
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub ts: u64,
    /// Latency (connect, accept) or duration (close) in nanoseconds, 0 when not known.
    pub elapsed: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Smoothed round trip time in microseconds.
    pub rtt: u32,
    pub retrans: u32,
    pub socket: Socket,
}

const _: () = assert!(size_of::<Owner>() == 48);
const _: () = assert!(size_of::<Socket>() == 8 + 16 + 32 + 48 + 40);
const _: () = assert!(size_of::<SocketRecord>() == 48 + size_of::<Socket>());
