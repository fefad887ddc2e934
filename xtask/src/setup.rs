//! What a fresh Debian machine lacks: installed when we are root, named when we are not.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::shell::{run, say};

/// Makes sure that these Debian packages are there.
///
/// # Errors
/// Names the packages to install when that cannot be done from here.
pub fn packages(wanted: &[&str]) -> Result<()> {
    /// Machines are made side by side, and each asks for what it needs.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().expect("nobody panics in here");
    let missing: Vec<&str> = wanted
        .iter()
        .copied()
        .filter(|name| !installed(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if find_program("apt-get").is_none() {
        bail!(
            "this needs a Debian (12 or later) with the packages {list}; there is no apt-get here"
        );
    }
    if !is_root() {
        bail!("missing packages; as root: apt-get install {list}");
    }
    say(format!("installing {list}"));
    // Package lists may be absent (container images) or too old to fetch from. Someone else may be
    // at it just now: whether that matters, the installation shows.
    if let Err(error) = run(Command::new("apt-get").args(["update", "-qq"])) {
        say(format!("{error:#}"));
    }
    run(Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&missing))
    .with_context(|| format!("cannot install {list}"))
}

/// Whether dpkg has this package, configured.
fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

/// Where a program is, in `PATH` or where Debian keeps those for root.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

pub fn is_root() -> bool {
    // the owner of /proc/self is our effective user
    std::os::unix::fs::MetadataExt::uid(&match Path::new("/proc/self").metadata() {
        Ok(metadata) => metadata,
        Err(_) => return false,
    }) == 0
}

/// Makes sure that the kernel's tracepoints can be listed, which other tracers expect.
///
/// # Errors
/// When they are not and mounting is denied.
pub fn tracefs() -> Result<()> {
    let folder = "/sys/kernel/tracing";
    if Path::new(folder).join("events").exists() {
        return Ok(());
    }
    say(format!("mounting tracefs on {folder}"));
    run(Command::new("mount").args(["-t", "tracefs", "tracefs", folder]))
}
