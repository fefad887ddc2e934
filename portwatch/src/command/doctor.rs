//! `portwatch doctor`: what this machine offers, what is missing, and what to do about it.

use std::io::Write as _;

use anyhow::{Context as _, Result};

use crate::cli::{DoctorArgs, ReportFormat};
use crate::exit::Exit;
use crate::facts;
use crate::source::live::{Live, Options};
use crate::view::doctor::{Diagnosis, Nothing};

/// Attaches the probes for a moment and reports.
///
/// # Errors
/// When the report cannot be written.
pub fn run(args: &DoctorArgs) -> Result<Exit> {
    let options = Options {
        tier: args.probes.tier(),
        // nothing is read from it
        ring_bytes: 64 << 10,
        thorough: true,
        ..Options::default()
    };
    let live = Live::start(&options);
    let diagnosis = Diagnosis {
        facts: facts::examine(),
        probes: (live.as_ref().map(|live| live.report().clone())).map_err(Nothing::of),
    };
    drop(live);
    let text = match args.output {
        ReportFormat::Text => diagnosis.text(),
        ReportFormat::Json => diagnosis.json(),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            return Err(error).context("writing to stdout");
        }
        _ => {}
    }
    Ok(if diagnosis.probes.is_ok() {
        Exit::Fine
    } else {
        Exit::Failed
    })
}
