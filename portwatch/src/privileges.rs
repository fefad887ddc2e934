//! Root only as long as needed: once the probes are attached, reading them takes little.

use anyhow::{Context as _, Result, bail};
use caps::{CapSet, Capability, CapsHashSet};

/// What tracing goes on to need: reading maps, and /proc of everybody's processes.
const KEPT: [Capability; 4] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Gives up all capabilities of this thread but those that tracing needs and `also`, for good: no
/// program it starts gets more. Threads started later have no more either.
///
/// # Errors
/// When the kernel refuses.
pub fn give_up(also: &[Capability]) -> Result<()> {
    give_up_all_but(KEPT.iter().chain(also).copied().collect()).context("giving up capabilities")
}

fn give_up_all_but(kept: CapsHashSet) -> Result<()> {
    let held = caps::read(None, CapSet::Permitted)?;
    if held.contains(&Capability::CAP_SETPCAP) {
        let bounding = caps::read(None, CapSet::Bounding)?;
        for one in bounding.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *one)?;
        }
    }
    let kept: CapsHashSet = held.intersection(&kept).copied().collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    // SAFETY: takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        bail!(std::io::Error::last_os_error());
    }
    Ok(())
}
