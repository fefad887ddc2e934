//! `portwatch verify FILE.db`: whether sessions are as they were recorded.

use anyhow::Result;

use super::output::{Output, is_closed_pipe};
use super::{say, wrong_usage};
use crate::cli::{ReportFormat, VerifyArgs};
use crate::exit::Exit;
use crate::session::{self, PublicKey};
use crate::view::verdict;

/// Says of each file what was found; fails when one of them is not whole.
///
/// # Errors
/// When the key cannot be used, or nothing can be written.
pub fn run(args: &VerifyArgs) -> Result<Exit> {
    let key = args.key.as_deref().map(PublicKey::load);
    let key = key.transpose().map_err(wrong_usage)?;
    let check = |hash: &[u8; 32], signature: &[u8]| {
        key.as_ref().is_some_and(|key| key.check(hash, signature))
    };
    let check = key.is_some().then_some(&check as session::Check<'_>);
    let fingerprint = key.as_ref().map(PublicKey::fingerprint);
    let mut output = Output::open(None)?;
    let mut exit = Exit::Fine;
    for file in &args.files {
        let found = session::verify(file, check);
        if !found.as_ref().is_ok_and(|verdict| verdict.fault.is_none()) {
            exit = Exit::Failed;
        }
        match (args.output, &found) {
            (ReportFormat::Json, _) => {
                verdict::json(&mut output.buffer, file, &found, fingerprint);
            }
            (ReportFormat::Text, Ok(found)) => {
                verdict::text(&mut output.buffer, file, found, fingerprint);
            }
            (ReportFormat::Text, Err(error)) => say(&format!("{error:#}")),
        }
        match output.flush() {
            Err(error) if is_closed_pipe(&error) => return Ok(exit),
            result => result?,
        }
    }
    Ok(exit)
}
