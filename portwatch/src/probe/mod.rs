//! From the plan to attached probes: offsets from the kernel's BTF, the plan, and its loading.

pub(crate) mod btf;
pub(crate) mod cgroup2;
mod copies;
mod kernel;
mod links;
mod load;
mod permission;
mod plan;
mod program;
mod report;
mod tracefs;

pub use copies::Skips;
pub use links::Links;
pub use load::{Loaded, Settings, load, untried};
pub use permission::is_in_user_namespace;
pub use report::{Denial, Refusal, Report, Row, Unserved};

use clap::ValueEnum;
use serde::Serialize;

/// A family of probes that serve together. Each sees the same events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// fentry and fexit.
    Trampoline,
    /// kprobe and kretprobe.
    Kprobe,
    /// Tracepoints and cgroup hooks.
    Tracepoint,
}

impl Tier {
    pub const ALL: [Tier; 3] = [Tier::Trampoline, Tier::Kprobe, Tier::Tracepoint];

    pub const fn as_str(self) -> &'static str {
        match self {
            Tier::Trampoline => "trampoline",
            Tier::Kprobe => "kprobe",
            Tier::Tracepoint => "tracepoint",
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
