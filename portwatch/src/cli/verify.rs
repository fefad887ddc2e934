//! Arguments of `verify`.

use std::path::PathBuf;

use blake3::Hash;
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
  portwatch verify s.db --key recorder.pub signed by the other half of this key
  portwatch verify s.db --expect 3f0e…     ends as record said at its end
  portwatch verify -o json *.db            an object for each file

Without --key and --expect this finds damage and what was changed by hand. Who can write the file can \
also make all of it anew, which a signature shows, made by record --sign with a key that is kept \
elsewhere; and can take away what came last, which --expect shows. The head is the hash of the last \
batch and stands for the whole session: record prints it at its end, to be written down elsewhere.

Space that SQLite leaves unused is no part of a session: a bit that was changed there is not found.

JSON is an object a file with these keys:
  file whole             whether all of it is as it was recorded
  batches events         that can be trusted, from the first on
  until                  time of the last event of these
  head as_expected       of a whole session: its last hash; whether that is the
                         one of --expect
  runs unfinished        how many runs, and the numbers of those that were not
                         finished
  signed key             batches with a signature; fingerprint of the key that
                         they were checked by
  fault                  the first one: what, and as far as they are known
                         batch, first_event, last_event, first_ts, last_ts

Exit codes: 0 whole, 1 a fault, another head than expected, or no session at all, 2 wrong usage.")]
pub struct VerifyArgs {
    /// Sessions
    #[arg(value_name = "FILE.db", required = true)]
    pub files: Vec<PathBuf>,

    /// Every batch has to be signed by this: the .pub file of ssh-keygen, or its text
    #[arg(long, value_name = "PUBKEY")]
    pub key: Option<String>,

    /// The session has to end with this head: nothing was cut off, nothing was added
    #[arg(long, value_name = "HEAD", value_parser = parse_head)]
    pub expect: Option<Hash>,

    /// How to print the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: ReportFormat,
}

fn parse_head(text: &str) -> Result<Hash, String> {
    Hash::from_hex(text).map_err(|_| {
        let digits = 2 * blake3::OUT_LEN;
        format!("'{text}' is not a head: write the {digits} hexadecimal digits that record or verify printed")
    })
}
