//! What is remembered of sockets, from the first event until their end.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{BPF_EXIST, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap},
};
use portwatch_common::{Socket, is_address};

use crate::maps::count;

/// What an insert returns when there is one already.
pub const EEXIST: i32 = -17;

/// Sockets by cookie (by address where they have none), from the first event until their end.
/// Its memory is there from the start: taking and giving back some for each socket is what would
/// cost most of all. Small, for the sake of the CPU's caches.
#[map]
static SOCKETS: HashMap<u64, Socket> = HashMap::with_max_entries(1 << 14, 0);

/// Sockets for which there is no room in `SOCKETS`.
#[map]
static MORE_SOCKETS: HashMap<u64, Socket> = HashMap::with_max_entries(1 << 18, BPF_F_NO_PREALLOC);

/// 1 once there was no room in `SOCKETS`. Before, nobody needs to look into the other.
#[unsafe(no_mangle)]
static mut SOCKETS_FULL: u64 = 0;

/// 1 once all probes are attached. What is seen before may end unseen, and would then be taken for
/// another socket at the same address; so it is left to the walk over open files.
#[map]
static WATCHING: Array<u32> = Array::with_max_entries(1, 0);

/// 1 once a socket was remembered by its address, for want of a cookie of its own. Mostly none is,
/// and then nobody needs to look there.
#[unsafe(no_mangle)]
static mut WITHOUT_COOKIE: u64 = 0;

/// What is remembered of a socket, which may be from before it had a cookie.
#[inline(always)]
pub fn find(sk: usize, key: u64) -> Option<*mut Socket> {
    let found = look_up(key);
    if found.is_none() && maybe_by_address() {
        return look_up(sk as u64);
    }
    found
}

/// What is remembered under exactly this key.
#[inline(always)]
pub fn look_up(key: u64) -> Option<*mut Socket> {
    let found = SOCKETS.get_ptr_mut(key);
    if found.is_none() && were_full() {
        return MORE_SOCKETS.get_ptr_mut(key);
    }
    found
}

#[inline(always)]
fn were_full() -> bool {
    unsafe { read_volatile(&raw const SOCKETS_FULL) != 0 }
}

#[inline(always)]
fn maybe_by_address() -> bool {
    unsafe { read_volatile(&raw const WITHOUT_COOKIE) != 0 }
}

/// Whether sockets are remembered already; takes note of those that are by their address.
#[inline(always)]
fn watching(key: u64) -> bool {
    if WATCHING.get(0) != Some(&1) {
        return false;
    }
    if is_address(key) {
        unsafe { write_volatile(&raw mut WITHOUT_COOKIE, 1) };
    }
    true
}

/// Remembers a socket, from when all probes are there. One that does not fit is counted.
#[inline(always)]
pub fn remember(key: u64, socket: &Socket) {
    if !watching(key) {
        return;
    }
    // One that is there already stays where it is.
    let elsewhere = were_full() && MORE_SOCKETS.insert(key, socket, BPF_EXIST as u64).is_ok();
    if !elsewhere && SOCKETS.insert(key, socket, 0).is_err() {
        remember_elsewhere(key, socket, 0);
    }
}

/// The same for one that was not found, unless another CPU remembers it by now: then false.
#[inline(always)]
pub fn remember_first(key: u64, socket: &Socket) -> bool {
    if !watching(key) {
        return true;
    }
    match SOCKETS.insert(key, socket, BPF_NOEXIST as u64) {
        Ok(()) => true,
        Err(EEXIST) => false,
        Err(_) => remember_elsewhere(key, socket, BPF_NOEXIST as u64),
    }
}

/// False when it is there already.
#[inline(always)]
fn remember_elsewhere(key: u64, socket: &Socket, flags: u64) -> bool {
    if !were_full() {
        note_full();
        unsafe { write_volatile(&raw mut SOCKETS_FULL, 1) };
    }
    match MORE_SOCKETS.insert(key, socket, flags) {
        Ok(()) => {}
        Err(EEXIST) => return false,
        Err(_) => count(|loss| &mut loss.sockets),
    }
    true
}

/// Forgets a socket under all its keys: the next one at its address must not be taken for it.
#[inline(always)]
pub fn forget(sk: usize, key: u64) {
    take_out(key);
    if maybe_by_address() {
        take_out(sk as u64);
    }
}

/// Forgets what is remembered under exactly this key; false when that is nothing.
#[inline(always)]
pub fn take_out(key: u64) -> bool {
    SOCKETS.remove(key).is_ok() || were_full() && MORE_SOCKETS.remove(key).is_ok()
}

/// Apart, for the sake of the stack.
#[inline(never)]
fn note_full() {
    aya_log_ebpf::debug!(
        &(),
        "there are more sockets than there is room for in the first map"
    );
}
