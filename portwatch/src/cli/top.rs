//! Arguments of `portwatch top`.

use std::time::Duration;

use clap::Args;

use super::trace::parse_duration;
use super::{FilterArgs, MomentArgs, ProbeArgs, SourceArgs, SpanArgs};

/// Show all sockets as they come and go, full-screen
///
/// Listeners, connections and the latest events, live, in every network namespace and container.
/// Sockets that closed stay in sight, dimmed, for some seconds. Press ? for the keys. Without root
/// it polls, and misses what lives shorter than the interval.
#[derive(Debug, Args)]
#[command(mut_arg("since", |arg| arg.conflicts_with("at")))]
#[command(after_long_help = "\
Examples:
  portwatch top                     everything
  portwatch top -P 80,443           these ports, at either end
  portwatch top --keep 1m           what closed stays for a minute
  portwatch top --comm 'nginx*'     sockets of these processes
  portwatch top --from s.db --since 03:10   a session, played from then on
  portwatch top --from s.db --at 03:12      the same, standing still there

Filters only hide rows and events. Expressions of --filter may use the names that rows and events \
share, such as lport or comm.

A session is played by its own clock: Space stops and goes on, + and - change the speed, . goes to the \
next event, Left and Right go 10 s (with Shift a minute), Home and End to its ends.

Exit codes: 0 fine; 1 failed, also when --filter could not be evaluated on some; 2 wrong usage, also \
when stdout is no terminal.")]
pub struct TopArgs {
    #[command(flatten)]
    pub filter: FilterArgs,

    /// No names of users and services, only numbers
    #[arg(short, long, help_heading = "Output")]
    pub numeric: bool,

    /// How long closed sockets stay in sight (the last 5,000): seconds, or 500ms, 10s, 5m, 1h
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    #[arg(allow_negative_numbers = true)]
    #[arg(help_heading = "Output")]
    pub keep: Duration,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub moment: MomentArgs,

    #[command(flatten)]
    pub span: SpanArgs,

    #[command(flatten)]
    pub probes: ProbeArgs,
}
