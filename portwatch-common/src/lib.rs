//! What crosses the border between the eBPF programs and user space: ring buffer records,
//! map values, and the constants set at load time. No dependencies, no allocation.

#![no_std]

mod offsets;
mod process;
mod socket;

pub use offsets::*;
pub use process::*;
pub use socket::*;

/// First byte of every record in the ring buffer.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bind = 1,
    Listen = 2,
    Connect = 3,
    Accept = 4,
    Close = 5,
    Reset = 6,
    Fork = 7,
    Exec = 8,
    Exit = 9,
    Cgroup = 10,
}

impl Kind {
    pub const ALL: [Kind; 10] = [
        Kind::Bind,
        Kind::Listen,
        Kind::Connect,
        Kind::Accept,
        Kind::Close,
        Kind::Reset,
        Kind::Fork,
        Kind::Exec,
        Kind::Exit,
        Kind::Cgroup,
    ];

    /// The kind with this number; `None` for one this version does not know.
    pub fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    /// Whether it is an event a user sees, rather than news for the process cache.
    pub fn is_socket(self) -> bool {
        (self as u8) <= Kind::Reset as u8
    }
}

/// What went wrong in the kernel, one per CPU: value of the map `LOSS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Records the ring buffer had no room for, indexed by [`Kind`].
    pub full: [u64; 16],
    /// Sockets that the map of sockets had no room for: their owner is not remembered.
    pub sockets: u64,
    /// Calls whose entry was seen, by kprobe tier only.
    pub entered: u64,
    /// Calls whose return was seen, by kprobe tier only.
    pub returned: u64,
    /// Events that a program was skipped for and its twin handled.
    pub left: u64,
}

const _: () = assert!(size_of::<Loss>() == 160);

/// How many stand-ins a program has, on kernels where it can be preempted.
pub const STANDINS: u32 = 8;

/// Room for events on their way past stand-ins: more than there are tasks amid them.
pub const PASSING_EVENTS: u32 = 16384;

/// Tasks in the midst of a program and its stand-ins, one per CPU: value of the map `CROWDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crowd {
    pub inside: u64,
    /// 1 once almost all of them were taken (one may be taken and not have come to say so): the next
    /// event may have had none.
    pub full: u64,
}

const _: () = assert!(size_of::<Crowd>() == 16);

/// By which a twin knows what its program has handled, one per hook and CPU: value of the map `TOKENS`.
#[repr(C)]
pub struct Tokens {
    pub slots: [Token; Tokens::SLOTS],
    /// Which slot makes room next when none is free.
    pub next: u64,
}

impl Tokens {
    pub const SLOTS: usize = 8;
}

/// An event that a program has taken on, and of which its twin has not been told yet.
#[repr(C)]
pub struct Token {
    /// What happened; 0: no token.
    pub change: u64,
    /// Address of the socket, process, … it happened to.
    pub object: u64,
}
