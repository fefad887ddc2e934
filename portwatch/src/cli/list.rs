//! Arguments of `list`.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::trace::parse_duration;
use super::{FilterArgs, MOMENT, MomentArgs, Output, ProbeArgs, SourceArgs, elsewhere};
use crate::row::{Column, State};

/// Show what is in use now: listening tcp and bound udp sockets, and whose they are
///
/// Every network namespace and container, as far as the kernel lets you see them: as root all, as an
/// ordinary user your own processes and what is not hidden. `portwatch` alone is the same. Sockets
/// that serve one address together (SO_REUSEPORT) are one line with all their processes.
#[derive(Debug, Args)]
#[command(args(["since", "until"].map(|name| elsewhere(name, MOMENT))))]
// One look at what is there follows no events.
#[command(mut_arg("interval", |arg| arg.requires("duration")))]
#[command(mut_arg("probes", |arg| arg.requires("duration")))]
#[command(mut_arg("ring_size", |arg| arg.requires("duration")))]
#[command(after_long_help = "\
Examples:
  portwatch                                 who listens where
  portwatch -a -P 443                       sockets with port 443 at either end
  portwatch list --state close-wait,time-wait
  portwatch list -a --sort -recv_queue      the longest queue first
  portwatch list --filter 'note != null'    what is unusual
  portwatch list -a -d 10s                  after 10 s of following events
  portwatch list -a --filter 'state == \"ESTAB\" && !(raddr.startsWith(\"127.\"))'
  portwatch list --from s.db --at 03:12     of a session, as it was then
  portwatch list -o json | jq -r 'select(.user == \"root\") | .exe'

Columns of the table: QUEUE is what waits to be read, or of a listener the connections that wait to be \
accepted and its backlog. WHERE is the container, or the namespace when it is not this one. SERVICE is \
the name of the port, then +PIDS of other processes that have the socket open, then what is unusual, as \
!REMARK: a known program on another port, or another program on a known port.

Keys of JSON, columns of CSV, names for --fields, --sort and --filter. Absent values are left out:
  proto state family laddr lport raddr rport
                     the socket; state as in ss
  device             network interface that it is bound to; in text as in ss,
                     127.0.0.53%lo:53
  sock netns inode   socket cookie, network namespace, inode in
                     /proc/PID/fd
  pid ppid uid user comm exe args parents cgroup container unit
                     the process that has it open; of several the one with the
                     lowest pid; with -d and --from the one that opened it,
                     where that is known
  holders            all processes that have it open: pid, comm, sock
  since              bound, listening or established since (RFC 3339, UTC)
  backlog recv_queue send_queue
                     recv_queue: bytes not read yet, of a listener connections
                     that wait; send_queue: bytes not acknowledged yet, of a
                     listener its backlog
  rtt_us retrans rx_bytes tx_bytes accepted
                     of a tcp connection; accepted: of a listener
  service note       name of the port; what is unusual

A row of several sockets that serve one address has no sock and no inode, its holders have; it has the \
sums of their queues, backlogs and accepted connections, and the owner with the lowest pid.

A value that a row does not have is null in --filter: `note != null` asks for presence. ==, != and in \
take it as a value; with <, > and functions it matches neither plain nor behind !. More on \
expressions: portwatch trace --help

Exit codes: 0 fine, also when there is nothing to show; 1 failed, also when --filter could not be \
evaluated on some rows; 2 wrong usage.")]
pub struct ListArgs {
    /// All states, not only listening tcp and bound udp
    #[arg(short, long, help_heading = "Filters")]
    pub all: bool,

    /// Only these states, also with -a, as ss prints them, small or capital: listen, estab, close-wait,
    /// time-wait, unconn, …
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_state)]
    #[arg(help_heading = "Filters")]
    pub state: Vec<State>,

    #[command(flatten)]
    pub filter: FilterArgs,

    /// How to print the table
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Output"
    )]
    pub output: Output,

    /// Columns to print, in this order [default: all, or the usual ones in text]
    #[arg(short = 'F', long, value_name = "LIST", value_delimiter = ',')]
    #[arg(help_heading = "Output", value_parser = parse_column)]
    pub fields: Vec<Column>,

    /// Order of rows: a column, with - in front the greatest first
    #[arg(
        long,
        value_name = "[-]FIELD",
        default_value = "lport",
        allow_hyphen_values = true
    )]
    #[arg(help_heading = "Output")]
    pub sort: Sort,

    /// Follow events for this long before the table is printed: seconds, or 500ms, 10s, 5m, 1h. It
    /// then also tells since when, by whom a socket was opened, and how many were accepted. --interval,
    /// --probes and --ring-size are about these events
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, help_heading = "Source")]
    #[arg(allow_negative_numbers = true)]
    pub duration: Option<Duration>,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub moment: MomentArgs,

    #[command(flatten)]
    pub probes: ProbeArgs,

    /// In text, no names of users and services, only numbers; but for those that -F asks for by name
    #[arg(short, long, help_heading = "Output")]
    pub numeric: bool,
}

/// By what rows are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    pub column: Column,
    pub descending: bool,
}

impl Default for Sort {
    /// By port, as rows come.
    fn default() -> Self {
        Self {
            column: Column::Event(crate::event::Field::Lport),
            descending: false,
        }
    }
}

impl FromStr for Sort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, descending) = match text.strip_prefix('-') {
            Some(name) => (name, true),
            None => (text, false),
        };
        Ok(Self {
            column: parse_column(name)?,
            descending,
        })
    }
}

fn parse_column(text: &str) -> Result<Column, String> {
    let names = || {
        let names: Vec<&str> = Column::ALL.iter().map(|x| x.as_str()).collect();
        names.join(", ")
    };
    Column::parse(text).ok_or_else(|| format!("no column '{text}'; there are: {}", names()))
}

fn parse_state(text: &str) -> Result<State, String> {
    State::parse(&text.to_ascii_uppercase()).ok_or_else(|| {
        let names: Vec<&str> = State::ALL.iter().map(|x| x.as_str()).collect();
        let names = names.join(", ").to_ascii_lowercase();
        format!("no state '{text}'; there are: {names}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::event::Field;

    fn parse(line: &str) -> ListArgs {
        let words = line.split_whitespace().map(Into::into);
        match Cli::parse_words(words).expect(line).command {
            Command::List(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_command_it_is_list() {
        for line in [
            "portwatch",
            "portwatch list",
            "portwatch -n",
            "portwatch list -n",
        ] {
            let args = parse(line);
            assert!(!args.all && args.state.is_empty());
            assert_eq!(args.sort, "lport".parse().unwrap());
            assert_eq!(args.numeric, line.ends_with("-n"));
        }
    }

    #[test]
    fn states_are_asked_for_with_and_without_all() {
        assert_eq!(parse("portwatch -a --state listen").state, [State::Listen]);
    }

    #[test]
    fn numbers_below_zero_are_values_and_families_stay_flags() {
        let args = parse("portwatch -u -1 -p 1 -4 -6");
        assert_eq!(args.filter.uid, ["-1"]);
        assert!(args.filter.ipv4 && args.filter.ipv6);
    }

    #[test]
    fn an_expression_may_begin_with_a_hyphen() {
        let args = parse("portwatch --filter -lport<0 -4");
        assert_eq!(args.filter.filter.as_deref(), Some("-lport<0"));
        assert!(args.filter.ipv4);
    }

    #[test]
    fn states_columns_and_orders_are_read() {
        let args = parse("portwatch --state close-wait,TIME-WAIT --sort -recv_queue -F lport,note");
        assert_eq!(args.state, [State::CloseWait, State::TimeWait]);
        assert!(args.sort.descending && args.sort.column == Column::RecvQueue);
        assert_eq!(args.fields, [Column::Event(Field::Lport), Column::Note]);
        assert!(!"pid".parse::<Sort>().unwrap().descending);
    }
}
