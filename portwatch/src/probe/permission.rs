//! Whether this process may load eBPF programs at all, told before the kernel says no more than EPERM.

use std::os::unix::fs::MetadataExt as _;

use anyhow::{Result, bail};
use rustix::thread::{CapabilitySet, capabilities};

/// Number of the first user namespace, on every machine (`USER_NS_INIT_INO`).
const FIRST_USER_NAMESPACE: u64 = 0xeffffffd;

/// Whether this process is in another user namespace than the first, whose capabilities eBPF does not heed.
pub fn is_in_user_namespace() -> bool {
    let own = std::fs::metadata("/proc/self/ns/user");
    own.is_ok_and(|own| own.ino() != FIRST_USER_NAMESPACE)
}

/// # Errors
/// When capabilities are missing; names them and the remedy.
pub fn check() -> Result<()> {
    if is_in_user_namespace() {
        bail!(
            "no permission to load eBPF programs: capabilities that are held in a user namespace do \
             not count for that. Run portwatch as root outside of it"
        );
    }
    let effective = capabilities(None).map_or(CapabilitySet::all(), |own| own.effective);
    if effective.contains(CapabilitySet::SYS_ADMIN) {
        return Ok(());
    }
    let needed = [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    ];
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(cap, _)| !effective.contains(*cap))
        .map(|(_, n)| *n)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "no permission to load eBPF programs: {} missing. Run portwatch as root (sudo portwatch …), \
         or give the binary the capabilities: setcap cap_bpf,cap_perfmon,cap_net_admin,\
         cap_sys_ptrace,cap_dac_read_search+ep",
        missing.join(", ")
    )
}
