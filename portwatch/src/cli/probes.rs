//! Probes in the kernel, as arguments.

use clap::{Args, ValueEnum};

use super::trace::parse_size;
use crate::probe::Tier;

#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
pub struct ProbeArgs {
    /// Kind of probes to use; with one of them it fails where it cannot serve, rather than poll
    #[arg(
        long,
        value_name = "TIER",
        default_value = "auto",
        conflicts_with_all = ["from", "proc_root"]
    )]
    probes: ProbeChoice,

    /// Size of the kernel's event buffer in bytes, or 512K, 8M: a power of two [default: 8M; of top 4M, of who 1M]
    #[arg(long, value_name = "SIZE", value_parser = parse_ring_size)]
    #[arg(allow_negative_numbers = true, conflicts_with_all = ["from", "proc_root"])]
    pub ring_size: Option<u32>,
}

impl ProbeArgs {
    /// The tier that was asked for.
    pub fn tier(&self) -> Option<Tier> {
        self.probes.tier()
    }
}

/// Which tier of probes to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProbeChoice {
    /// The first that works
    Auto,
    /// fentry and fexit
    Trampoline,
    /// kprobe and kretprobe
    Kprobe,
    /// Tracepoints and cgroup hooks
    Tracepoint,
}

impl ProbeChoice {
    pub fn tier(self) -> Option<Tier> {
        match self {
            ProbeChoice::Auto => None,
            ProbeChoice::Trampoline => Some(Tier::Trampoline),
            ProbeChoice::Kprobe => Some(Tier::Kprobe),
            ProbeChoice::Tracepoint => Some(Tier::Tracepoint),
        }
    }
}

fn parse_ring_size(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text)?;
    // SAFETY: sysconf has no preconditions.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    Some(bytes)
        .filter(|bytes| bytes.is_power_of_two() && *bytes >= page)
        // the kernel takes no ring buffer of 2 GiB or more
        .and_then(|bytes| u32::try_from(bytes).ok().filter(|&bytes| bytes <= 1 << 30))
        .ok_or_else(|| {
            format!(
                "'{text}': the kernel takes powers of two from {}K to 1G, such as 8M",
                page >> 10
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_sizes_are_what_the_kernel_takes() {
        for (text, expected) in [
            ("65536", Some(65536)),
            ("64K", Some(65536)),
            ("8M", Some(8 << 20)),
            ("8MiB", Some(8 << 20)),
            ("1G", Some(1 << 30)),
            ("2G", None),
            ("3M", None),
            ("1K", None),
            ("0", None),
            ("8X", None),
            ("-8M", None),
            ("M", None),
            ("99999999999999999999G", None),
        ] {
            assert_eq!(parse_ring_size(text).ok(), expected, "{text}");
        }
    }
}
