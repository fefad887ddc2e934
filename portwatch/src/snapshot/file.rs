//! Files of a proc file system. A tree that only looks like one may have anything in their place: what
//! blocks, what never ends, devices.

use std::fs::{File, OpenOptions};
use std::io::{Error, Read as _, Result};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Largest file that is read at once. The kernel lets arguments of a process have 6 MiB.
const LARGEST: u64 = 8 << 20;

/// Opens a file to read it, if it is a regular one, as all those of the kernel are.
///
/// # Errors
/// When it cannot be opened, or is something else.
pub fn open(path: &Path) -> Result<File> {
    // Asked before: some devices do something when they are opened.
    if !path.metadata()?.is_file() {
        return Err(Error::other("not a regular file"));
    }
    // Whatever it is by now, nobody waits for it.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// All that is in a file.
///
/// # Errors
/// As [`open`], when it cannot be read, and when it is larger than any of the kernel's.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(too_large(LARGEST)),
        false => Ok(bytes),
    }
}

/// That a file has more bytes than are read.
pub fn too_large(most: u64) -> Error {
    Error::other(format!("more than {} MiB", most >> 20))
}
