//! What bpf(2) does for an iterator: load its program, attach it, begin. aya could do it too, but only
//! after it has read all of the kernel's types.

use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::instruction::Instruction;

const PROG_LOAD: i64 = 5;
const LINK_CREATE: i64 = 28;
const ITER_CREATE: i64 = 33;
const PROG_TYPE_TRACING: u32 = 26;
const TRACE_ITER: u32 = 28;

/// Beginnings of `union bpf_attr` of linux/bpf.h for these commands; the kernel takes what is not there
/// as zero.
#[derive(Default)]
#[repr(C)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_kind: u32,
    types: u32,
    functions_size: u32,
    functions: u64,
    functions_count: u32,
    lines_size: u32,
    lines: u64,
    lines_count: u32,
    attach_to: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_kind: u32,
    flags: u32,
}

#[repr(C)]
struct IterCreate {
    link: u32,
    flags: u32,
}

/// Loads a program for the iterator whose function has this number in the kernel's types.
///
/// # Errors
/// When the kernel refuses.
pub fn load(program: &[Instruction], hook: u32) -> std::io::Result<OwnedFd> {
    let load = ProgLoad {
        kind: PROG_TYPE_TRACING,
        count: program.len() as u32,
        instructions: program.as_ptr().addr() as u64,
        license: c"Dual MIT/GPL".as_ptr().addr() as u64,
        name: *b"pw_open_sockets\0",
        attach_kind: TRACE_ITER,
        attach_to: hook,
        ..ProgLoad::default()
    };
    // SAFETY: instructions and license live until after the call.
    unsafe { bpf(PROG_LOAD, &load) }
}

/// An iterator that has not begun. It keeps what it needs for as long as it is open.
///
/// # Errors
/// When the kernel refuses.
pub fn iterate(program: &OwnedFd) -> std::io::Result<File> {
    let link = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        target: 0,
        attach_kind: TRACE_ITER,
        flags: 0,
    };
    // SAFETY: no pointers are passed, here and below.
    let link = unsafe { bpf(LINK_CREATE, &link) }?;
    let iterator = IterCreate {
        link: link.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    Ok(unsafe { bpf(ITER_CREATE, &iterator) }?.into())
}

/// # Safety
/// `attributes` is the beginning of what the command takes, and all pointers in it are good.
unsafe fn bpf<T>(command: i64, attributes: &T) -> std::io::Result<OwnedFd> {
    // SAFETY: see above; the kernel reads no more than the size it is told. A new descriptor is ours.
    unsafe {
        let size = size_of::<T>();
        match libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size) {
            descriptor @ 0.. => Ok(OwnedFd::from_raw_fd(descriptor as i32)),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}
