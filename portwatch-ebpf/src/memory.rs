//! Two ways to read kernel memory, so that one body serves all kinds of programs, and the way to add
//! to shared memory.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use portwatch_common::MISSING;

pub trait Memory {
    /// Reads a member at a structure's address. Zero when the kernel has no such member.
    ///
    /// # Safety
    /// `T` is an integer or an array of them.
    unsafe fn read<T: Copy + Default>(base: usize, offset: u32) -> T;

    /// Whether pointers read this way keep their type, so that helpers accept them.
    const TYPED: bool;
}

/// For pointers whose type the verifier knows by BTF: full speed. Not to be used to read a pointer from what a
/// program is given: whether that may be trusted, too, kernels since 6.4 look up by name in all of their
/// types, each time the verifier gets there. With [`Probe`] portwatch starts in two thirds of the time.
pub struct Direct;

impl Memory for Direct {
    #[inline(always)]
    unsafe fn read<T: Copy + Default>(base: usize, offset: u32) -> T {
        if offset == MISSING {
            return T::default();
        }
        unsafe { core::ptr::read_volatile((base + offset as usize) as *const T) }
    }

    const TYPED: bool = true;
}

/// For plain addresses, as kprobes have them.
pub struct Probe;

impl Memory for Probe {
    #[inline(always)]
    unsafe fn read<T: Copy + Default>(base: usize, offset: u32) -> T {
        if offset == MISSING {
            return T::default();
        }
        let mut value = T::default();
        // What cannot be read is filled with zeroes by the kernel: no need for a branch, which
        // would double the verifier's work with every read.
        unsafe {
            bpf_probe_read_kernel(
                (&raw mut value).cast(),
                size_of::<T>() as u32,
                (base + offset as usize) as *const _,
            );
        }
        value
    }

    const TYPED: bool = false;
}

/// Adds atomically, without the result: that is what all kernels since 5.8 can do.
#[inline(always)]
pub fn add(to: *mut u64, value: u64) {
    unsafe { asm!("lock *(u64 *)({to} + 0) += {value}", to = in(reg) to, value = in(reg) value) };
}
