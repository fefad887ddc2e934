//! Whether this process may load eBPF programs at all, told before the kernel says no more than EPERM.

use std::os::unix::fs::MetadataExt as _;

use anyhow::{Result, bail};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

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
    let effective = effective().unwrap_or(u64::MAX);
    let has = |cap: u32| effective >> cap & 1 == 1;
    if has(CAP_SYS_ADMIN) {
        return Ok(());
    }
    let needed = [
        (CAP_BPF, "CAP_BPF"),
        (CAP_PERFMON, "CAP_PERFMON"),
        (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
    ];
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(cap, _)| !has(*cap))
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

/// Effective capabilities of this process, as a bit mask.
fn effective() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}
