//! Whether an eBPF object is still there, asked of the kernel by its number.

use std::io;

use anyhow::{Result, bail};

/// `bpf(2)` commands that open an object by its number.
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Program(u32),
    Map(u32),
    Link(u32),
}

impl Object {
    /// From a line of `/proc/PID/fdinfo/FD`.
    pub fn from_fdinfo(line: &str) -> Option<Self> {
        let (name, number) = line.split_once(':')?;
        let number = number.trim().parse().ok()?;
        match name {
            "prog_id" => Some(Self::Program(number)),
            "map_id" => Some(Self::Map(number)),
            "link_id" => Some(Self::Link(number)),
            _ => None,
        }
    }
}

/// # Errors
/// When the kernel answers anything but yes or no.
pub fn exists(object: Object) -> Result<bool> {
    let (command, id) = match object {
        Object::Program(id) => (BPF_PROG_GET_FD_BY_ID, id),
        Object::Map(id) => (BPF_MAP_GET_FD_BY_ID, id),
        Object::Link(id) => (BPF_LINK_GET_FD_BY_ID, id),
    };
    // `union bpf_attr`: the number, then next_id and open_flags, which are 0 here
    let attributes = [id, 0, 0];
    // SAFETY: the kernel reads the attributes, whose size is given, and returns an fd or an error.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if fd >= 0 {
        // SAFETY: the fd was just made, and nobody else has it.
        unsafe { libc::close(fd as libc::c_int) };
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOENT) => Ok(false),
        _ => bail!("{object:?}: {error}"),
    }
}
