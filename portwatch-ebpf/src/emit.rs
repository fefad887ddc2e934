//! Handing records to user space, and counting those for which there is no room.

use core::ptr::read_volatile;

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use portwatch_common::{Kind, Socket, SocketRecord};

use crate::maps::{EVENTS, WAKEUP, config, count};

const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;
const BPF_RB_AVAIL_DATA: u64 = 0;

/// Nanoseconds of `CLOCK_BOOTTIME`.
#[inline(always)]
pub fn now() -> u64 {
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Time since a start; 0 where that is not known.
#[inline(always)]
pub fn elapsed(ts: u64, start: u64) -> u64 {
    if start == 0 {
        0
    } else {
        ts.saturating_sub(start)
    }
}

/// While records come the reader looks every few milliseconds by itself, and is woken only when the ring fills
/// faster; once none come it asks to be woken by the next one.
#[inline(always)]
pub fn wakeup() -> u64 {
    let most = (WAKEUP.get(0)).map_or(0, |most| unsafe { read_volatile(most) });
    if EVENTS.query(BPF_RB_AVAIL_DATA) > most {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    }
}

/// What is told besides the socket itself.
#[derive(Default)]
pub struct Details {
    pub cause: u8,
    pub error: u16,
    pub reason: u32,
    /// Nanoseconds; 0 when not known.
    pub elapsed: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// 32 bits, as the next: in a word each, which the verifier tells from no other number.
    pub rtt: u64,
    pub retrans: u64,
}

/// Reports something that happened to a socket at `ts`.
#[inline(always)]
pub fn emit(kind: Kind, ts: u64, socket: &Socket, details: Details) {
    submit(kind, ts, socket, &details);
}

/// One copy for all places that report: the programs stay small, and load fast.
#[inline(never)]
fn submit(kind: Kind, ts: u64, socket: &Socket, details: &Details) {
    if config!(kinds) & (1 << kind as u32) == 0 {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<SocketRecord>(0) else {
        return lost(kind);
    };
    let record = entry.as_mut_ptr();
    unsafe {
        (*record).kind = kind as u8;
        (*record).cause = details.cause;
        (*record).error = details.error;
        (*record).reason = details.reason;
        (*record).ts = ts;
        (*record).elapsed = details.elapsed;
        (*record).rx_bytes = details.rx_bytes;
        (*record).tx_bytes = details.tx_bytes;
        (*record).rtt = details.rtt as u32;
        (*record).retrans = details.retrans as u32;
        copy(socket, &raw mut (*record).socket);
    }
    entry.submit(wakeup());
}

/// Copies word by word: a call of memcpy is more than the kernel's programs have.
#[inline(always)]
unsafe fn copy(from: &Socket, to: *mut Socket) {
    let from = (&raw const *from).cast::<u64>();
    let to = to.cast::<u64>();
    for word in 0..size_of::<Socket>() / 8 {
        unsafe { *to.add(word) = *from.add(word) };
    }
}

#[inline(always)]
pub fn lost(kind: Kind) {
    count(|loss| &mut loss.full[kind as usize & 15]);
}
