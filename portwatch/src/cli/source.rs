//! Where events come from, as arguments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use super::trace::parse_duration;
use super::{ProbeArgs, When};
use crate::source::{self, Choice, live, poll};

/// Between two snapshots, unless told otherwise.
const INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(next_help_heading = "Source")]
pub struct SourceArgs {
    /// Where events come from: poll, or the FILE of a session that was recorded [default: the kernel,
    /// or polling where it cannot be traced]
    #[arg(long, value_name = "SOURCE")]
    pub from: Option<SourceChoice>,

    /// When polling, look this often [default: 200ms]; what lives shorter is missed. Not used where
    /// the kernel tells of each event
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    #[arg(allow_negative_numbers = true)]
    pub interval: Option<Duration>,

    /// Poll another /proc, such as the host's that is mounted in a container
    #[arg(long, value_name = "DIR")]
    pub proc_root: Option<PathBuf>,
}

/// A source to be asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    /// Snapshots compared several times a second; needs no eBPF
    Poll,
    /// What was recorded.
    Session(PathBuf),
}

impl From<OsString> for SourceChoice {
    fn from(text: OsString) -> Self {
        match text == "poll" {
            true => Self::Poll,
            false => Self::Session(text.into()),
        }
    }
}

/// A flag and whether it was given.
pub type Given = (&'static str, bool);

impl SourceChoice {
    /// The file of a session, if that is what was asked for. `here`: flags that are about this machine;
    /// `past`: those about a session.
    ///
    /// # Errors
    /// When one was given that does not fit.
    pub fn session<'a>(
        from: Option<&'a Self>,
        here: &[Given],
        past: &[Given],
    ) -> Result<Option<&'a Path>> {
        let first = |flags: &[Given]| flags.iter().find(|x| x.1).map(|x| x.0);
        match from {
            Some(Self::Session(path)) => match first(here) {
                Some(flag) => bail!(
                    "{flag} does not go with --from {}, where nothing happens any more: leave one of them out",
                    path.display()
                ),
                None => Ok(Some(path)),
            },
            _ => match first(past) {
                Some(flag) => bail!("{flag} is about a session: name one with --from FILE"),
                None => Ok(None),
            },
        }
    }
}

impl SourceArgs {
    /// As [`SourceChoice::session`], with the flags of this group.
    ///
    /// # Errors
    /// As there.
    pub fn session(&self, here: &[Given], past: &[Given]) -> Result<Option<&Path>> {
        let own = [
            ("--interval", self.interval.is_some()),
            ("--proc-root", self.proc_root.is_some()),
        ];
        SourceChoice::session(self.from.as_ref(), &[&own, here].concat(), past)
    }

    /// Whether only polling gives what is asked for.
    fn polls(&self) -> bool {
        self.from == Some(SourceChoice::Poll) || self.proc_root.is_some()
    }

    /// The source to start. `ring_bytes`: size of the ring buffer where none was asked for.
    pub fn options(&self, probes: &ProbeArgs, ring_bytes: u32) -> source::Options {
        let tier = probes.tier();
        source::Options {
            live: live::Options {
                tier,
                ring_bytes: probes.ring_size.unwrap_or(ring_bytes),
                ..live::Options::default()
            },
            poll: poll::Options {
                interval: self.interval.unwrap_or(INTERVAL),
                proc_root: self.proc_root.clone(),
            },
            choice: match tier {
                _ if self.polls() => Choice::Poll,
                Some(_) => Choice::Live,
                None => Choice::Best,
            },
            command: false,
        }
    }
}

/// Which moment of a session.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Source")]
pub struct MomentArgs {
    /// Of a session: as it was then, as 03:12, 03:12:07, '2026-11-23 03:12', RFC 3339, -10m (before the
    /// end) or @SECONDS since 1970 [default: its end]
    #[arg(
        long,
        value_name = "TIME",
        requires = "from",
        allow_hyphen_values = true
    )]
    pub at: Option<When>,

    /// Of a session with several recordings: this one [default: the one of --at, or the last]
    #[arg(long, value_name = "N", requires = "from", value_parser = parse_run, allow_negative_numbers = true)]
    pub run: Option<i64>,
}

impl MomentArgs {
    pub fn given(&self) -> [Given; 2] {
        [("--at", self.at.is_some()), ("--run", self.run.is_some())]
    }
}

pub(super) fn parse_run(text: &str) -> Result<i64, String> {
    let run = text.parse().ok().filter(|&run| run > 0);
    run.ok_or_else(|| format!("'{text}' is not a number from 1"))
}

/// Which part of a session.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Source")]
pub struct SpanArgs {
    /// Of a session: from then on, as 03:12, 03:12:07, '2026-11-23 03:12', RFC 3339, -10m (before the
    /// end) or @SECONDS since 1970
    #[arg(
        long,
        value_name = "TIME",
        requires = "from",
        allow_hyphen_values = true
    )]
    pub since: Option<When>,

    /// Of a session: up to then
    #[arg(
        long,
        value_name = "TIME",
        requires = "from",
        allow_hyphen_values = true
    )]
    pub until: Option<When>,
}

impl SpanArgs {
    pub fn given(&self) -> [Given; 2] {
        [
            ("--since", self.since.is_some()),
            ("--until", self.until.is_some()),
        ]
    }
}
