//! Arguments of `export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{EventFilterArgs, SPAN, When, elsewhere};

/// Write the events of a session in a format that other tools take
#[derive(Debug, Args)]
#[command(arg(elsewhere("at", SPAN)))]
#[command(after_long_help = "\
Formats:
  jsonl     an object a line, the same as trace -o json
  csv       all fields, the same as trace -o csv
  parquet   all fields as columns; ts is a timestamp with nanoseconds, lists are
            JSON
  ecs       Elastic Common Schema 8.11, a document a line; what it has no field
            for is under portwatch
  ocsf      OCSF 1.5 Network Activity, an event a line; what it has no attribute
            for is under unmapped

Examples:
  portwatch export s.db > events.jsonl
  portwatch export s.db --format ecs -e connect --failed --write e.ndjson
  portwatch export s.db --since 03:10 --until 03:15 -P 443
  portwatch export s.db --format parquet --write events.parquet

seq is the number that the event has in its recording, so filters leave gaps; trace --from numbers anew \
what it shows.

In ecs and ocsf the end that connected is the source, where the session tells which that was: from a \
connection's connect or accept on. Else the source is the local end. mptcp is counted as tcp.")]
pub struct ExportArgs {
    /// The session
    #[arg(value_name = "FILE.db")]
    pub file: PathBuf,

    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    pub format: ExportFormat,

    /// Write to this new file, readable for its owner only, rather than to stdout
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,

    /// From then on, as 03:12, 03:12:07, '2026-11-23 03:12', RFC 3339, -10m (before the end) or
    /// @SECONDS since 1970
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<When>,

    /// Up to then
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<When>,

    #[command(flatten)]
    pub filter: EventFilterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    Jsonl,
    Csv,
    Parquet,
    Ecs,
    Ocsf,
}
