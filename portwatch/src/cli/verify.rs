//! Arguments of `verify`.

use std::path::PathBuf;

use clap::Args;

use super::ReportFormat;

/// Tell whether a session is as it was recorded: altered, missing and reordered batches, damage
///
/// Each batch of a session is chained to the one before it by a BLAKE3 hash over all of its rows. The
/// first batch that does not fit is named, and up to where the session can be trusted. A run that was
/// not finished is told, and is no fault.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  portwatch verify s.db
  portwatch verify s.db --key recorder.pub        signed by the other half of this key
  portwatch verify -o json *.db                   an object for each file

Without --key this finds damage and what was changed by hand. Who can write the file can also make all
of it anew; that only a signature shows, made by `record --sign` with a key that is kept elsewhere.

JSON is an object a file with these keys:
  file whole         whether all of it is as it was recorded
  batches events     that can be trusted, from the first on
  until              time of the last event of these
  runs unfinished    how many runs, and the numbers of those that were not finished
  signed key         batches with a signature; fingerprint of the key that they were checked by
  fault              the first one: what, and as far as they are known batch, first_event, last_event,
                     first_ts, last_ts

Exit codes: 0 whole, 1 a fault or no session at all, 2 wrong usage.")]
pub struct VerifyArgs {
    /// Sessions
    #[arg(value_name = "FILE.db", required = true)]
    pub files: Vec<PathBuf>,

    /// Every batch has to be signed by this: the .pub file of ssh-keygen, or its text
    #[arg(long, value_name = "PUBKEY")]
    pub key: Option<String>,

    /// How to print the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: ReportFormat,
}
