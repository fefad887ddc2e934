//! The kprobe tier's bridge from a function's entry, which has the arguments, to its return.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::map, maps::HashMap};

use crate::maps::count;

/// The functions whose returns are observed. They nest, so each has calls of its own.
#[derive(Clone, Copy)]
pub enum Call {
    Bind = 1,
    Listen = 2,
    Connect4 = 3,
    Connect6 = 4,
    UdpPort = 5,
    UdpConnect4 = 6,
    UdpConnect6 = 7,
    MptcpBind = 8,
    MptcpListen = 9,
    SysBind = 10,
}

/// Arguments of calls that have not returned yet, by function and thread.
#[map]
static CALLS: HashMap<u64, [usize; 2]> = HashMap::with_max_entries(16384, 0);

#[inline(always)]
fn key(call: Call) -> u64 {
    (call as u64) << 32 | bpf_get_current_pid_tgid() & 0xffff_ffff
}

#[inline(always)]
pub fn enter(call: Call, first: Option<usize>, second: Option<usize>) -> u32 {
    let arguments = [first.unwrap_or(0), second.unwrap_or(0)];
    count(|loss| &mut loss.entered);
    // A call that does not fit shows as one whose return was missed.
    let _ = CALLS.insert(key(call), arguments, 0);
    0
}

/// The arguments of the call that returns now. `None` when it began before the probes were there.
#[inline(always)]
pub fn leave(call: Call) -> Option<[usize; 2]> {
    let key = key(call);
    let arguments = unsafe { *CALLS.get_ptr(key)? };
    let _ = CALLS.remove(key);
    count(|loss| &mut loss.returned);
    Some(arguments)
}
