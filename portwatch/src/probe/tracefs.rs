//! The tracing file system, which tells the numbers of tracepoints. Where nobody has mounted it,
//! it is mounted for as long as it takes to read them, in a mount namespace of our own.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::panic::resume_unwind;
use std::path::Path;

use anyhow::{Context, Result};

const PLACES: [&CStr; 2] = [c"/sys/kernel/tracing", c"/sys/kernel/debug/tracing"];

/// Runs `read` with the tracing file system in its place.
///
/// # Errors
/// When it is not mounted and cannot be, or may not be read.
pub fn with<T: Send>(read: impl FnOnce() -> T + Send) -> Result<T> {
    if let Some(place) = PLACES.iter().find(|place| is_tracefs(place)) {
        let events = Path::new(OsStr::from_bytes(place.to_bytes())).join("events");
        (events.metadata())
            .with_context(|| format!("{} needs root or CAP_DAC_READ_SEARCH", events.display()))?;
        return Ok(read());
    }
    // A thread of its own: on the way back to a namespace the current directory would be lost.
    let inside = || {
        mount().context("tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing")?;
        Ok(read())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, inside);
        let thread = thread.context("starting a thread")?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn is_tracefs(place: &CStr) -> bool {
    // SAFETY: all zeroes are a statfs, and it is written before it is read.
    unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        libc::statfs(place.as_ptr(), &mut found) == 0 && found.f_type == libc::TRACEFS_MAGIC
    }
}

/// Mounts in a new namespace, from which nothing spreads.
fn mount() -> io::Result<()> {
    // SAFETY: system calls with strings that end with NUL.
    unsafe {
        // The current directory and root are kept apart from those of other threads first.
        check(libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS))?;
        let none = std::ptr::null();
        // The mount that it will be on has to be private: of these, the first that is one. In a chroot / is none.
        let parents = [PLACES[0], c"/sys/kernel", c"/sys", c"/"];
        let made_private =
            |x: &CStr| libc::mount(none, x.as_ptr(), none, libc::MS_PRIVATE, none.cast()) == 0;
        if !parents.into_iter().any(made_private) {
            return Err(io::Error::last_os_error());
        }
        let kind = c"tracefs".as_ptr();
        check(libc::mount(kind, PLACES[0].as_ptr(), kind, 0, none.cast()))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
