//! Arguments of `trace`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use clap::Args;

use super::source::parse_run;
use super::{EventFilterArgs, Output, ProbeArgs, SPAN, SourceArgs, SpanArgs, elsewhere};
use crate::event::Field;

/// Show every bind, listen, connect, accept and close as it happens
///
/// Follows every process in every container and network namespace, until Ctrl-C, or until the
/// command given after `--` ends. Needs root; without, or on a kernel that cannot be traced, it polls
/// instead, misses what is short-lived, and says so.
#[derive(Debug, Args)]
#[command(arg(elsewhere("at", SPAN)))]
#[command(after_long_help = "\
Examples:
  portwatch trace -e bind,listen            servers that start
  portwatch trace -P 80,443,8000-8999 -t    these ports, tcp only, at either end
  portwatch trace --failed -d 1m            one minute of failures
  portwatch trace --net 10.0.0.0/8 -o json  as JSON, one event a line
  portwatch trace -u www-data -F ts,event,pid,laddr,lport
  portwatch trace --filter 'event == \"close\" && duration_us > 60000000'
  portwatch trace --filter 'args.exists(a, a == \"--debug\")'
  portwatch trace -o json -- make test > events.json
  portwatch trace --from s.db --since 03:10 --until 03:15 --failed

Fields, keys of JSON, columns of CSV, names for --filter. Absent values are left out:
  ts seq        when the kernel saw it (RFC 3339, UTC); number of the event in
                this run
  event origin  what happened; live, or poll when snapshots were compared
  proto family  tcp, udp, mptcp; ipv4, ipv6
  laddr lport raddr rport
                local and remote end; of a bind that failed, what was asked for
  sock netns    socket cookie, which tells sockets apart; inode number of the
                namespace
  pid tid ppid uid gid user comm exe args parents cgroup container unit
                the process that did it; parents (pid, comm): nearest first
  error         name of the errno, such as EADDRINUSE; absent when it succeeded
  backlog       of a listen
  latency_us    connect: until its outcome; accept: how long it waited in the
                queue
  duration_us   close: since established, listen or bind
  rx_bytes tx_bytes rtt_us retrans
                close of a tcp connection
  accepted      close of a listener: connections it accepted
  cause reason  close: local, remote, reset, timeout, error; reset: sent,
                received, and the kernel's reason
  holders       bind that failed with EADDRINUSE: who has the port (pid, comm,
                sock)
  count         lost: how many events
  service       name of the well-known port

Filter expressions are CEL (https://cel.dev) over these names but `seq`. Numbers are int, `ts` is a \
timestamp, `args` a list of strings, `parents` and `holders` lists of maps with `pid` and `comm`. A \
field that an event does not have is null, which ==, != and in take as a value: `error != null` asks for \
presence, `error != \"EACCES\"` and `!(error == \"EACCES\")` match without an error. With <, > and \
functions it matches neither plain nor behind !: not `latency_us > 100`, and not `!(latency_us > 100)`. \
No has() is needed. An expression has at most 4096 bytes and 32 levels. What can never be right (a \
number compared with \"root\", a division by 0, a pattern that is none) is refused at the start. An \
expression that fails on some events (args[9] of fewer words) does not show these, says so at the end, \
and makes the exit code 1.

Output: `trace -- COMMAND` leaves the terminal to both. When the output of portwatch is a pipe or a \
file, it holds events only: what the command prints goes to stderr, unless --write puts the events \
elsewhere. The command runs as the user who called sudo, and its exit code is portwatch's.

With --from FILE events are those of a session, whole and as they were recorded, as fast as they can be \
read; `seq` counts what is shown of each recording. Names in filters (users, namespaces) are those of \
this machine.

Exit codes: 0 fine, 1 failed, 2 wrong usage, 4 incomplete with --require-complete. With a command its \
own unless that is 0, 128+N when signal N ended it, 126 or 127 when it could not be started. The end of \
-d or -c, or of a reader, ends the trace but not the command, which is waited for.")]
pub struct TraceArgs {
    #[command(flatten)]
    pub filter: EventFilterArgs,

    /// How to print events
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Output"
    )]
    pub output: Output,

    /// Fields to print, in this order [default: all, or the usual columns in text]; losses are
    /// shown whole in text and JSON
    #[arg(
        short = 'F',
        long,
        value_name = "LIST",
        value_delimiter = ',',
        help_heading = "Output"
    )]
    pub fields: Vec<Field>,

    /// In text, no names of users and services, only numbers; but for those that -F asks for by name
    #[arg(short, long, help_heading = "Output")]
    pub numeric: bool,

    /// Write events to FILE instead of stdout: a new file, readable for its owner only, or a pipe
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub write: Option<PathBuf>,

    /// Stop after this many events
    #[arg(short, long, value_name = "N", value_parser = parse_count)]
    #[arg(allow_negative_numbers = true, help_heading = "Run")]
    pub count: Option<u64>,

    /// Stop after this time, of a session by its own clock: seconds, or 500ms, 10s, 5m, 1h
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, help_heading = "Run")]
    #[arg(allow_negative_numbers = true)]
    pub duration: Option<Duration>,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub span: SpanArgs,

    /// Of a session with several recordings: only this one [default: all in turn, each numbered from 1]
    #[arg(long, value_name = "N", requires = "from", help_heading = "Source")]
    #[arg(value_parser = parse_run, allow_negative_numbers = true)]
    pub run: Option<i64>,

    #[command(flatten)]
    pub probes: ProbeArgs,

    /// Say on stderr what the probes in the kernel note of their own work
    #[arg(long, conflicts_with_all = ["from", "proc_root"], help_heading = "Run")]
    pub kernel_notes: bool,

    /// Exit with code 4 when anything was lost or not seen, but for what this kernel cannot show at all
    #[arg(long, help_heading = "Run")]
    pub require_complete: bool,

    /// Run this command and show only what it and its descendants do
    #[arg(last = true, value_name = "COMMAND", help_heading = "Run")]
    pub command: Vec<OsString>,
}

pub(super) fn parse_count(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|&count| count > 0);
    count.ok_or_else(|| format!("'{text}' is not a number of events from 1"))
}

/// Seconds, or a number with a unit; none is an error.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a time: write seconds, or 500ms, 10s, 5m, 1h");
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?,
        Err(_) => jiff::SignedDuration::from_str(text)
            .ok()
            .and_then(|x| Duration::try_from(x).ok())
            .ok_or_else(wrong)?,
    };
    if duration.is_zero() {
        return Err("no time at all".to_owned());
    }
    Ok(duration)
}

/// Bytes, or a number with a unit.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        unit => return Err(format!("'{unit}' is not a unit: write bytes, or 512K, 8M")),
    };
    let number: Option<u64> = digits.parse().ok();
    let size = number.and_then(|number| number.checked_mul(factor));
    size.ok_or_else(|| format!("'{text}' is not a size: write bytes, or 512K, 8M"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::event::Kind;

    #[test]
    fn times_have_units() {
        for (text, expected) in [
            ("10", Some(10_000)),
            ("0.5", Some(500)),
            ("500ms", Some(500)),
            ("10s", Some(10_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("1h30m", Some(5_400_000)),
            ("0", None),
            ("-1", None),
            ("1e300", None),
            ("soon", None),
            ("", None),
        ] {
            let got = parse_duration(text).ok().map(|x| x.as_millis());
            assert_eq!(got, expected, "{text}");
        }
    }

    #[test]
    fn lists_ranges_and_a_command_are_read() {
        let line = "portwatch trace -P 80,8000-8999 -p 1 -e bind,close -t -4 --net 10.0.0.0/8,::1 \
                    -F ts,pid -o json -c 3 -d 5m -- curl -o x";
        let Command::Trace(args) = Cli::parse_from(line.split_whitespace()).command else {
            panic!("not trace");
        };
        assert_eq!(
            args.filter.any.port,
            ["80".parse().unwrap(), "8000-8999".parse().unwrap()]
        );
        assert_eq!(args.filter.event, [Kind::Bind, Kind::Close]);
        assert_eq!(args.filter.any.net[1], "::1/128".parse().unwrap());
        assert_eq!(args.fields, [Field::Ts, Field::Pid]);
        assert_eq!(args.output, Output::Json);
        assert_eq!(args.command, ["curl", "-o", "x"]);
        assert_eq!(args.probes.ring_size, None);
    }
}
