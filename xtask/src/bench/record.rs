//! What a recording costs: how much slower connections become, how many bytes an event takes, and
//! whether it keeps up. Each churn is compared with an untraced one made just before.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::report::Report;
use super::tracer::{Tracer, churn};
use super::{Scale, median};
use crate::image::Programs;
use crate::paths::Paths;
use crate::shell::say;

/// What one churn gave.
struct Round {
    ratio: f64,
    events: u64,
    bytes: u64,
    /// The verdict, when it is not that nothing was lost.
    incomplete: Option<String>,
}

pub fn measure(
    paths: &Paths,
    programs: &Programs,
    probes: &str,
    scale: &Scale,
    report: &mut Report,
) {
    say("recording");
    let rounds: Result<Vec<Round>> = (0..scale.rounds)
        .map(|_| round(paths, programs, probes, scale.connections))
        .collect();
    let rounds = match rounds {
        Ok(rounds) => rounds,
        Err(error) => return report.cannot("recording", "churn", &error),
    };
    let ratios: Vec<f64> = rounds.iter().map(|round| round.ratio).collect();
    let ratio = median(&ratios);
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    report.add(
        "recording",
        "churn",
        format!("{ratio:.3} of untraced ({least:.3} to {most:.3})"),
        "",
        json!({ "ratio": ratio, "ratios": ratios }),
    );
    let sum = |of: fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>();
    let bytes = sum(|round| round.bytes) as f64 / sum(|round| round.events) as f64;
    report.add(
        "recording",
        "size",
        format!("{bytes:.1} bytes an event"),
        "≤ 60",
        json!({ "bytes_per_event": bytes }),
    );
    let incomplete: Vec<&str> = (rounds.iter())
        .filter_map(|round| round.incomplete.as_deref())
        .collect();
    report.add(
        "recording",
        "lost",
        match incomplete.first() {
            None => "0".to_owned(),
            Some(first) => format!("{} of {} runs: {first}", incomplete.len(), rounds.len()),
        },
        "0",
        json!({ "incomplete": incomplete }),
    );
}

fn round(paths: &Paths, programs: &Programs, probes: &str, connections: u64) -> Result<Round> {
    let file = paths.target("bench.db");
    if file.exists() {
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    }
    let name = file.to_str().context("the path is not UTF-8")?;
    let before = churn(programs, connections)?;
    let mut tracer = Tracer::record(programs, name, &["--probes", probes])?;
    tracer.wait_ready()?;
    let recorded = churn(programs, connections)?;
    tracer.check_alive()?;
    let (code, said) = tracer.stop()?;
    ensure!(code == Some(0), "it ended with {code:?}: {said}");
    let line = |end: &str| {
        let lines = said.lines().filter_map(|x| x.strip_prefix("portwatch: "));
        let mut lines = lines.filter_map(|x| x.split_once(end));
        lines.next().context("its summary is not understood")
    };
    let (events, kinds) = line(" events in ")?;
    // Each connection has a connect, an accept and two closes.
    for kind in ["connect", "accept"] {
        let count = kinds
            .split([',', ':'])
            .find_map(|x| x.trim().strip_suffix(kind)?.trim().parse::<u64>().ok());
        ensure!(
            count.is_some_and(|count| count >= connections),
            "{count:?} {kind} of {connections}"
        );
    }
    let verdict = said.lines().last().unwrap_or_default();
    Ok(Round {
        ratio: recorded / before,
        events: events.parse().context("its count of events")?,
        bytes: fs::metadata(&file)?.len(),
        incomplete: (!verdict.contains(": complete: nothing lost")).then(|| verdict.to_owned()),
    })
}
