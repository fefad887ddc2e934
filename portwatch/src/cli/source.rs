//! Where events come from, as arguments.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::trace::parse_duration;
use crate::probe::Tier;
use crate::source::{Choice, poll};

/// Between two snapshots, unless told otherwise.
const INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(next_help_heading = "Source")]
pub struct SourceArgs {
    /// Where events come from [default: the kernel, or polling where it cannot be traced]
    #[arg(long, value_name = "SOURCE", conflicts_with = "probes")]
    pub from: Option<SourceChoice>,

    /// When polling, look this often [default: 200ms]; what lives shorter is missed. Not used where
    /// the kernel tells of each event
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    #[arg(allow_negative_numbers = true)]
    pub interval: Option<Duration>,

    /// Poll another /proc, such as the host's that is mounted in a container
    #[arg(long, value_name = "DIR", conflicts_with = "probes")]
    pub proc_root: Option<PathBuf>,
}

/// A source to be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceChoice {
    /// Snapshots compared several times a second; needs no eBPF
    Poll,
}

impl SourceArgs {
    /// Whether only polling gives what is asked for.
    fn polls(&self) -> bool {
        self.from == Some(SourceChoice::Poll) || self.proc_root.is_some()
    }

    /// The source to start, with probes of this tier if one was asked for.
    pub fn choice(&self, tier: Option<Tier>) -> Choice {
        match tier {
            _ if self.polls() => Choice::Poll,
            Some(_) => Choice::Live,
            None => Choice::Best,
        }
    }

    pub fn poll_options(&self) -> poll::Options {
        poll::Options {
            interval: self.interval.unwrap_or(INTERVAL),
            proc_root: self.proc_root.clone(),
        }
    }
}
