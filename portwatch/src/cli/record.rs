//! Arguments of `record`.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::trace::{parse_count, parse_duration, parse_size};
use super::{Output, ProbeArgs, SourceArgs};

/// Smallest --max-size: a session without events takes a part of it already.
const LEAST_SIZE: u64 = 1 << 20;

const FROM: &str = "Where events come from: poll records what polling sees [default: the kernel, or \
                    polling where it cannot be traced]";

/// Record everything that happens into a session, one file
///
/// Every bind, listen, connect, accept, close and reset of every process, the sockets that were open
/// before, the processes behind them with their start and end, and what was lost. A session is an
/// SQLite file that is readable while it grows; what is older than a second is in it even when
/// portwatch is killed. Each batch of rows is chained to the one before by a hash.
#[derive(Debug, Args)]
#[command(mut_arg("from", |arg| arg.help(FROM).long_help(FROM)))]
#[command(after_long_help = "\
Examples:
  portwatch record s.db                      until Ctrl-C
  portwatch record s.db -d 10m               ten minutes
  portwatch record s.db -- npm start         only what a command does
  portwatch record s.db --append             another run into the same file
  portwatch record s.db --max-size 1G --max-files 7
  portwatch record s.db -o json | jq .lport  and show it as trace does

With a command, the session holds only what it and its descendants do, and no other sockets; the \
command runs as the user who called sudo, and its exit code is portwatch's. As with trace, what it \
prints goes to stderr when events are printed to a pipe or a file.

--max-size and --max-age go on in s.1.db, s.2.db and so on, in the numbers behind the highest that is \
there. Each is a session of its own: a run with all sockets that were open when it began, an end, and \
the losses of the recording until then. Events are numbered anew in each. --append takes the last of \
these files. --max-files deletes only what this recording made itself.

At the end, and when a file is followed by another, its head is printed: the hash that stands for all \
of it. Written down elsewhere, it lets verify --expect find that something was cut off. --append first \
checks that the end of the session is as it was written; a signed one takes --sign.

A disk that is full, or a file that cannot be written any more, ends the recording; what was recorded \
until then stays whole, and a command runs on.

Exit codes: 0 fine, 1 failed, 2 wrong usage, 4 incomplete with --require-complete. With a command \
its own unless that is 0, 128+N when signal N ended it, 126 or 127 when it could not be started. \
The end of -d or -c ends the recording but not the command, which is waited for.")]
pub struct RecordArgs {
    /// The session to make, readable for its owner only
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Add a run to the session instead of making one
    #[arg(long, help_heading = "File")]
    pub append: bool,

    /// Go on in another file when this one has about so many bytes: 500M, 2G
    #[arg(long, value_name = "SIZE", value_parser = parse_max_size, help_heading = "File")]
    #[arg(allow_negative_numbers = true)]
    pub max_size: Option<u64>,

    /// Go on in another file after this time: 30m, 24h
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "File")]
    #[arg(allow_negative_numbers = true)]
    pub max_age: Option<Duration>,

    /// Keep so many of the files made by this recording, the one being written among them, and delete the
    /// oldest
    #[arg(long, value_name = "N", value_parser = parse_files, help_heading = "File")]
    #[arg(allow_negative_numbers = true)]
    pub max_files: Option<NonZeroUsize>,

    /// Tell the BLAKE3 hash of each executable
    #[arg(long, help_heading = "File")]
    pub hash_exe: bool,

    /// Sign every batch with this ed25519 key of OpenSSH (ssh-keygen -t ed25519 -N '')
    #[arg(long, value_name = "KEY", help_heading = "File")]
    pub sign: Option<PathBuf>,

    /// Print events, too, in this way
    #[arg(short, long, value_name = "FORMAT", help_heading = "Output")]
    pub output: Option<Output>,

    /// In text, no names of users and services, only numbers
    #[arg(short, long, requires = "output", help_heading = "Output")]
    pub numeric: bool,

    /// Stop after this many events
    #[arg(short, long, value_name = "N", value_parser = parse_count)]
    #[arg(allow_negative_numbers = true, help_heading = "Run")]
    pub count: Option<u64>,

    /// Stop after this time: seconds, or 500ms, 10s, 5m, 1h
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, help_heading = "Run")]
    #[arg(allow_negative_numbers = true)]
    pub duration: Option<Duration>,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub probes: ProbeArgs,

    /// Exit with code 4 when anything was lost or not seen, but for what this kernel cannot show at all
    #[arg(long, help_heading = "Run")]
    pub require_complete: bool,

    /// Run this command and record only what it and its descendants do
    #[arg(last = true, value_name = "COMMAND", help_heading = "Run")]
    pub command: Vec<OsString>,
}

fn parse_files(text: &str) -> Result<NonZeroUsize, String> {
    (text.parse()).map_err(|_| format!("'{text}' is not a number of files from 1"))
}

fn parse_max_size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        size if size < LEAST_SIZE => Err(format!("'{text}' is too small: at least 1M")),
        size => Ok(size),
    }
}
