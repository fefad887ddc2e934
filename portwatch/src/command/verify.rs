//! `portwatch verify FILE.db`: whether sessions are as they were recorded.

use anyhow::{Result, anyhow};

use super::output::{Output, is_closed_pipe};
use super::{say, wrong_usage};
use crate::cli::{ReportFormat, VerifyArgs};
use crate::exit::Exit;
use crate::session::{self, PublicKey};
use crate::view::verdict::{self, Asked};

/// Says of each file what was found; fails when one of them is not whole.
///
/// # Errors
/// When the key cannot be used, or nothing can be written.
pub fn run(args: &VerifyArgs) -> Result<Exit> {
    if args.expect.is_some() && args.files.len() > 1 {
        return Err(wrong_usage(anyhow!(
            "--expect is about one session, and there are {}",
            args.files.len()
        )));
    }
    let key = args.key.as_deref().map(PublicKey::load);
    let key = key.transpose().map_err(wrong_usage)?;
    let check = |hash: &[u8; 32], signature: &[u8]| {
        key.as_ref().is_some_and(|key| key.check(hash, signature))
    };
    let check = key.is_some().then_some(&check as session::Check<'_>);
    let asked = Asked {
        key: key.as_ref().map(PublicKey::fingerprint),
        head: args.expect,
    };
    let mut output = Output::open(None)?;
    let mut exit = Exit::Fine;
    for file in &args.files {
        let found = session::verify(file, check);
        if !found.as_ref().is_ok_and(|verdict| asked.is_met(verdict)) {
            exit = Exit::Failed;
        }
        match (args.output, &found) {
            (ReportFormat::Json, _) => {
                verdict::json(&mut output.buffer, file, &found, &asked);
            }
            (ReportFormat::Text, Ok(found)) => {
                verdict::text(&mut output.buffer, file, found, &asked);
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
