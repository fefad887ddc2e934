//! `cargo xtask bench`: what portwatch costs, and what other tracers cost on the same machine in the
//! same minutes. Says numbers, judges none.

mod delivery;
mod kernel_time;
mod list;
mod record;
mod report;
mod speed;
mod tracer;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::image::Programs;
use crate::paths::Paths;
use crate::setup;
use crate::shell::say;
use report::Report;

#[derive(clap::Args)]
pub struct Args {
    /// A short run with less to go by
    #[arg(long)]
    quick: bool,
    /// Tier of probes that portwatch is to use: auto, trampoline, kprobe, tracepoint
    #[arg(long, default_value = "auto")]
    probes: String,
}

/// How much of everything.
struct Scale {
    /// Pairs of an untraced and a traced churn, for each tracer.
    rounds: u32,
    /// Connections of one churn.
    connections: u64,
    /// Starts of portwatch, runs of `list`, and events waited for while idle.
    repeats: u32,
    idle: Duration,
}

/// # Errors
/// When portwatch cannot be built or the result not be written. What cannot be measured here is in
/// the report with its reason.
pub fn task(paths: &Paths, args: &Args) -> Result<()> {
    let scale = if args.quick {
        Scale {
            rounds: 2,
            connections: 20_000,
            repeats: 5,
            idle: Duration::from_secs(2),
        }
    } else {
        Scale {
            rounds: 5,
            connections: 100_000,
            repeats: 15,
            idle: Duration::from_secs(10),
        }
    };
    let programs = Programs::build(paths)?;
    let mut report = Report::new(&args.probes, &scale);
    if let Err(error) = setup::packages(&["bpftool", "bpftrace", "libbpf-tools"]) {
        say(format!("{error:#}; going on without"));
    }
    if let Err(error) = setup::tracefs() {
        say(format!("{error:#}; going on without"));
    }
    speed::measure(&programs, &args.probes, &scale, &mut report);
    record::measure(paths, &programs, &args.probes, &scale, &mut report);
    kernel_time::measure(&programs, &args.probes, &scale, &mut report);
    delivery::measure(&programs, &args.probes, &scale, &mut report);
    list::measure(&programs, &scale, &mut report);

    let file = paths.target("bench.json");
    fs::write(&file, report.json()?).with_context(|| format!("writing {}", file.display()))?;
    println!("{report}");
    say(format!("written to {}", file.display()));
    Ok(())
}

/// The middle value, 0 of none.
fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The value that `percent` of all do not exceed (nearest rank), 0 of none.
fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 50.0), 50.0);
        assert_eq!(percentile(&values, 99.0), 99.0);
        assert_eq!(percentile(&values, 100.0), 100.0);
        assert_eq!(percentile(&[7.0], 99.0), 7.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[]), 0.0);
    }
}
