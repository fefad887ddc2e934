//! Arguments of `report`.

use std::path::PathBuf;

use clap::Args;

/// Make an HTML page of a session: one file, which needs no network
///
/// It shows what was recorded and whether it is complete, activity over time, the life of each
/// listener, the busiest ports, programs and peers, failures, resets, and a table of events to search.
/// Opens in any browser, also without JavaScript, but for searching.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  portwatch report s.db                    makes s.html beside it
  portwatch report s.db -o - | gzip > s.html.gz
  portwatch report s.db --force            over the report of before
  portwatch report s.db --verify           says also whether it was altered
  portwatch report s.db --events 100000    a larger table, a larger page

All events count, however many there are; the table shows at most --events of them, evenly spread, and \
says so. Only you can read the file, as with the session. A session that is being recorded may be \
reported on: what is there by now counts.

Exit codes: 0 fine, 1 failed, also when --verify found that the session was altered, 2 wrong usage.")]
pub struct ReportArgs {
    /// The session, as portwatch record made it
    #[arg(value_name = "FILE.db")]
    pub session: PathBuf,

    /// Where the page goes; - for stdout. Default: beside the session, with .html
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,

    /// Overwrite the page that is there
    #[arg(long, help_heading = "Output")]
    pub force: bool,

    /// Most events in the table, up to 1000000
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20_000,
        help_heading = "Output"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    #[arg(allow_negative_numbers = true)]
    pub events: u32,

    /// Also check that nothing was altered, as portwatch verify does
    #[arg(long, help_heading = "Run")]
    pub verify: bool,
}
