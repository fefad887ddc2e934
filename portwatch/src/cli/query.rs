//! Arguments of `query`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::Output;

/// Ask a session in SQL
///
/// One statement that reads: the session cannot be changed through it. Ask the views: events,
/// listeners, connections, failures, short_lived, processes, runs; --schema shows their columns.
#[derive(Debug, Args)]
// clap would put the group before the file.
#[command(override_usage = "portwatch query [OPTIONS] <FILE.db> <SQL|--schema>")]
#[command(group(ArgGroup::new("question").args(["sql", "schema"]).required(true)))]
#[command(after_long_help = "\
Examples:
  portwatch query s.db --schema
  portwatch query s.db 'SELECT comm, count(*) FROM events GROUP BY comm'
  portwatch query s.db 'SELECT listened, comm, lport FROM short_lived'
  portwatch query s.db \"SELECT * FROM failures WHERE error = 'EACCES'\" -o json
  portwatch query s.db \"SELECT * FROM events WHERE ts > '2026-11-23T03:12'\"
  portwatch query s.db \"SELECT ts, comm FROM events, json_each(args)
                        WHERE value = '--debug'\"
  portwatch query s.db - < question.sql

Columns of `events` are the fields of events. Times are text in RFC 3339 and compare as such; in \
`events` the column `time` has them as nanoseconds. `sock` is signed here: a cookie above 2^63 is \
negative. JSON has a row a line, with `args`, `parents` and `holders` as lists; CSV is as from trace. \
Text is as wide as the first 1,000 rows need.

Exit codes: 0 fine, 1 failed or interrupted, 2 wrong usage, also of SQL.")]
pub struct QueryArgs {
    /// The session
    #[arg(value_name = "FILE.db")]
    pub file: PathBuf,

    /// One statement, or - to read it from stdin
    #[arg(value_name = "SQL")]
    pub sql: Option<String>,

    /// List the views with their columns
    #[arg(long)]
    pub schema: bool,

    /// How to print rows
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}
