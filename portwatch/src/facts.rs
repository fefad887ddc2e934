//! What this machine offers for tracing, as far as /proc, /sys and the kernel tell, and what to do
//! where it is not enough. Nothing here decides what is traced: that is up to real attempts.

use std::path::Path;

use aya::maps::MapType;
use aya::sys::is_map_supported;
use serde::Serialize;

use crate::probe::{cgroup2, is_in_user_namespace};

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    pub name: &'static str,
    pub state: State,
    /// What was found.
    pub value: String,
    /// What to do about it; absent when it is as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// Some things may not be seen.
    Warning,
    /// Nothing can be traced so.
    Problem,
    /// It could not be found out.
    Unknown,
}

/// Capabilities that are used, by number, and what each is for.
const CAPABILITIES: [(u32, &str, &str); 5] = [
    (39, "CAP_BPF", "load eBPF programs"),
    (38, "CAP_PERFMON", "attach them to the kernel"),
    (12, "CAP_NET_ADMIN", "attach them to cgroups"),
    (
        19,
        "CAP_SYS_PTRACE",
        "read exe and args of other users' processes",
    ),
    (2, "CAP_DAC_READ_SEARCH", "the same, and tracefs"),
];
const CAP_SYS_ADMIN: u32 = 21;

/// Looks at this machine.
pub fn examine() -> Vec<Fact> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    vec![
        fact("kernel", State::Ok, kernel()),
        btf(Path::new("/sys/kernel/btf/vmlinux")),
        ring_buffer(),
        capabilities(
            &read("/proc/self/status").unwrap_or_default(),
            is_in_user_namespace(),
        ),
        lockdown(read("/sys/kernel/security/lockdown").as_deref()),
        unprivileged(read("/proc/sys/kernel/unprivileged_bpf_disabled").as_deref()),
        cgroup2(),
        memlock(),
    ]
}

fn fact(name: &'static str, state: State, value: impl Into<String>) -> Fact {
    Fact {
        name,
        state,
        value: value.into(),
        fix: None,
    }
}

impl Fact {
    fn fix(self, fix: &str) -> Self {
        Self {
            fix: Some(fix.to_owned()),
            ..self
        }
    }
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", release.trim(), std::env::consts::ARCH)
}

fn btf(path: &Path) -> Fact {
    match std::fs::metadata(path) {
        Ok(_) => fact("btf", State::Ok, path.display().to_string()),
        Err(error) => fact(
            "btf",
            State::Problem,
            format!("{}: {error}", path.display()),
        )
        .fix(
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as those of current distributions are, \
             and mount /sys",
        ),
    }
}

fn ring_buffer() -> Fact {
    const NAME: &str = "ring buffer";
    match is_map_supported(MapType::RingBuf) {
        Ok(true) => fact(NAME, State::Ok, "supported"),
        Ok(false) => fact(NAME, State::Problem, "not supported").fix("use Linux 5.10 or later"),
        Err(error) => fact(
            NAME,
            State::Unknown,
            format!("cannot be asked for: {error}"),
        )
        .fix("run portwatch as root"),
    }
}

/// From the text of /proc/self/status. Those that are held in a user namespace do not count.
fn capabilities(status: &str, in_user_namespace: bool) -> Fact {
    const NAME: &str = "capabilities";
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(mask) = mask.and_then(|x| u64::from_str_radix(x.trim(), 16).ok()) else {
        return fact(NAME, State::Unknown, "/proc/self/status does not tell").fix("mount /proc");
    };
    if in_user_namespace {
        let text = "held in a user namespace only, where they do not count for eBPF";
        return fact(NAME, State::Problem, text).fix("run portwatch as root outside of it");
    }
    let has = |number: u32| mask >> number & 1 == 1;
    let missing: Vec<_> = CAPABILITIES
        .iter()
        .filter(|&&(number, ..)| !has(number))
        // CAP_SYS_ADMIN stands in for those that were split from it, and only for those
        .filter(|&&(number, ..)| !(has(CAP_SYS_ADMIN) && number >= 38))
        .collect();
    if missing.is_empty() {
        return fact(NAME, State::Ok, "all that are needed");
    }
    let names: Vec<String> = missing
        .iter()
        .map(|(_, name, purpose)| format!("{name} (to {purpose})"))
        .collect();
    let fatal = missing
        .iter()
        .any(|(number, ..)| *number >= 38 || *number == 12);
    let state = if fatal {
        State::Problem
    } else {
        State::Warning
    };
    fact(NAME, state, format!("missing: {}", names.join(", "))).fix(
        "run it as root (sudo portwatch …), or give the binary what it needs: sudo setcap \
         cap_bpf,cap_perfmon,cap_net_admin,cap_sys_ptrace,cap_dac_read_search+ep portwatch",
    )
}

/// From the text of /sys/kernel/security/lockdown: `none [integrity] confidentiality`.
fn lockdown(text: Option<&str>) -> Fact {
    const NAME: &str = "lockdown";
    let Some(text) = text else {
        return fact(
            NAME,
            State::Ok,
            "not in this kernel, or securityfs is not mounted",
        );
    };
    let mode = text.split(['[', ']']).nth(1).unwrap_or("none");
    match mode {
        "confidentiality" => fact(NAME, State::Problem, mode).fix(
            "this mode keeps eBPF from reading kernel memory: boot with lockdown=integrity or none",
        ),
        mode => fact(NAME, State::Ok, mode),
    }
}

/// From the sysctl kernel.unprivileged_bpf_disabled.
fn unprivileged(text: Option<&str>) -> Fact {
    const NAME: &str = "unprivileged bpf";
    match text.map(str::trim) {
        Some("0") => fact(NAME, State::Ok, "allowed (portwatch does not need it)"),
        Some(_) => fact(NAME, State::Ok, "disabled, as it should be"),
        None => fact(NAME, State::Ok, "not in this kernel"),
    }
}

fn cgroup2() -> Fact {
    match cgroup2::root() {
        Some(path) if path.starts_with("/proc") => {
            fact("cgroup2", State::Ok, "mounted where this was run from")
        }
        Some(path) => fact("cgroup2", State::Ok, path.display().to_string()),
        None => fact("cgroup2", State::Warning, "not mounted").fix(
            "mount -t cgroup2 none /sys/fs/cgroup: without it containers and units are not \
             known, and the tracepoint tier cannot serve",
        ),
    }
}

fn memlock() -> Fact {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: writes a rlimit, which lives until after the call.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    match (result, limit.rlim_cur) {
        (0, libc::RLIM_INFINITY) => fact("memlock", State::Ok, "unlimited"),
        (0, bytes) => fact(
            "memlock",
            State::Ok,
            format!("{bytes} bytes (only counts before Linux 5.11)"),
        ),
        _ => fact(
            "memlock",
            State::Unknown,
            std::io::Error::last_os_error().to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named_with_their_purpose() {
        for (mask, state, named) in [
            ("000001ffffffffff", State::Ok, "all that are needed"),
            // CAP_SYS_ADMIN, before CAP_BPF and CAP_PERFMON were split from it
            ("0000000000281004", State::Ok, "all that are needed"),
            (
                "0000000000200000",
                State::Problem,
                "CAP_NET_ADMIN (to attach them to cgroups)",
            ),
            ("000000c000001000", State::Warning, "CAP_SYS_PTRACE"),
            (
                "0000000000000000",
                State::Problem,
                "CAP_BPF (to load eBPF programs)",
            ),
        ] {
            let fact = capabilities(&format!("Name:\tx\nCapEff:\t{mask}\n"), false);
            assert_eq!(fact.state, state, "{mask}");
            assert!(fact.value.contains(named), "{mask}: {}", fact.value);
            assert_eq!(fact.fix.is_some(), state != State::Ok, "{mask}");
        }
        assert_eq!(capabilities("", false).state, State::Unknown);
        let all = capabilities("CapEff:\t000001ffffffffff\n", true);
        assert_eq!(all.state, State::Problem);
    }

    #[test]
    fn only_the_strictest_lockdown_is_a_problem() {
        for (text, state, value) in [
            (
                Some("[none] integrity confidentiality\n"),
                State::Ok,
                "none",
            ),
            (
                Some("none [integrity] confidentiality\n"),
                State::Ok,
                "integrity",
            ),
            (
                Some("none integrity [confidentiality]\n"),
                State::Problem,
                "confidentiality",
            ),
            (
                None,
                State::Ok,
                "not in this kernel, or securityfs is not mounted",
            ),
        ] {
            let fact = lockdown(text);
            assert_eq!((fact.state, fact.value.as_str()), (state, value));
            assert_eq!(fact.fix.is_some(), state == State::Problem);
        }
    }

    #[test]
    fn a_kernel_without_btf_is_a_problem_with_a_remedy() {
        let fact = btf(Path::new("/nonexistent/btf"));
        assert_eq!(fact.state, State::Problem);
        assert!(
            fact.fix
                .is_some_and(|fix| fix.contains("CONFIG_DEBUG_INFO_BTF=y"))
        );
    }
}
