//! Everything the programs share with each other and with user space.

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use portwatch_common::{ARGS_MAX, Config, Loss, Offsets, PATH_MAX, TextRecord};

use crate::memory::add;

/// Set by the loader, constants to the verifier.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::missing();
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config {
    cookie_helper: 0,
    task_btf_helper: 0,
    task_pt_regs_helper: 0,
    kinds: 0,
    reset_reason: 0,
    uring_cqe: 0,
    standins: 0,
};

/// Reads a constant of the loader so that the compiler does not take the placeholder for its value.
#[inline(always)]
pub fn constant<T: Copy>(place: &T) -> T {
    unsafe { read_volatile(place) }
}

/// The offset of a member.
macro_rules! offset {
    ($field:ident) => {
        crate::maps::constant(&crate::maps::OFFSETS.$field)
    };
}
pub(crate) use offset;

/// A value the loader set.
macro_rules! config {
    ($field:ident) => {
        crate::maps::constant(&crate::maps::CONFIG.$field)
    };
}
pub(crate) use config;

/// Records on their way to user space. One ring for all CPUs, so that order is global.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// How many bytes may wait in the ring before its reader is woken, as the reader sets it in memory that it maps.
#[map]
pub static WAKEUP: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// By CPU, in memory that user space maps: while a map is read by syscall, the kernel skips the
/// programs of kprobes and perf tracepoints on that CPU, and the reader may be preempted in there.
/// The loader makes it as long as there are CPUs.
#[map]
pub static LOSS: Array<Loss> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Room to put together records too large for the stack.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SCRATCHES, 0);

/// As many programs may be in the middle of a record on one CPU.
pub const SCRATCHES: u32 = 3;

#[repr(C)]
pub struct Scratch {
    pub head: TextRecord,
    pub text: [u8; PATH_MAX + ARGS_MAX],
    /// 1 while a program uses it.
    pub busy: u64,
}

/// Counts one more in the account of this CPU.
#[inline(always)]
pub fn count(what: impl FnOnce(&mut Loss) -> &mut u64) {
    if let Some(loss) = LOSS.get_ptr_mut(unsafe { bpf_get_smp_processor_id() }) {
        // Programs do not migrate, but another one may come in the middle.
        add(what(unsafe { &mut *loss }), 1);
    }
}

/// Reads a byte count anew, so that a bound put on it is not optimised away before the verifier sees it.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    constant(&value)
}
