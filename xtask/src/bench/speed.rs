//! How much slower connections become while a tracer watches them: each traced churn is compared
//! with an untraced one made just before, since the speed of a machine drifts.

use std::process::Stdio;

use anyhow::Result;
use serde_json::json;

use super::report::Report;
use super::tracer::{Tracer, churn};
use super::{Scale, median};
use crate::image::Programs;
use crate::shell::say;

/// What bpftrace users type for the same events.
const ONE_LINER: &str = r#"tracepoint:sock:inet_sock_set_state { printf("%d %s %d %d %d %d\n", pid, comm, args->oldstate, args->newstate, args->sport, args->dport); }"#;
const TRACERS: &[(&str, &[&str])] = &[
    ("portwatch", &[]),
    ("tcpstates", &[]),
    ("tcplife", &[]),
    ("bpftrace", &["-e", ONE_LINER]),
];

/// What the rounds of one tracer gave.
#[derive(Default)]
struct Rounds {
    ratios: Vec<f64>,
    error: Option<anyhow::Error>,
}

pub fn measure(programs: &Programs, probes: &str, scale: &Scale, report: &mut Report) {
    let mut untraced = Vec::new();
    let mut all: Vec<Rounds> = TRACERS.iter().map(|_| Rounds::default()).collect();
    for round in 1..=scale.rounds {
        say(format!("speed, round {round} of {}", scale.rounds));
        for ((name, arguments), rounds) in TRACERS.iter().zip(&mut all) {
            if rounds.error.is_some() {
                continue;
            }
            match pair(programs, probes, scale.connections, name, arguments) {
                Ok((before, traced)) => {
                    untraced.push(before);
                    rounds.ratios.push(traced / before);
                }
                Err(error) => rounds.error = Some(error),
            }
        }
    }
    let rate = median(&untraced);
    report.add(
        "churn",
        "untraced",
        format!("{rate:.0} connections/s"),
        "",
        json!({ "per_second": rate }),
    );
    for ((name, _), rounds) in TRACERS.iter().zip(all) {
        if let Some(error) = rounds.error {
            report.cannot("churn", name, &error);
            continue;
        }
        let ratio = median(&rounds.ratios);
        let least = rounds.ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rounds.ratios.iter().copied().fold(0.0, f64::max);
        report.add(
            "churn",
            name,
            format!("{ratio:.3} of untraced ({least:.3} to {most:.3})"),
            if *name == "portwatch" { "≥ 0.90" } else { "" },
            json!({ "ratio": ratio, "ratios": rounds.ratios }),
        );
    }
}

/// Connections a second without and with the tracer.
fn pair(
    programs: &Programs,
    probes: &str,
    connections: u64,
    name: &str,
    arguments: &[&str],
) -> Result<(f64, f64)> {
    let before = churn(programs, connections)?;
    let mut tracer = if name == "portwatch" {
        Tracer::portwatch(programs, &["-o", "json", "--probes", probes], Stdio::null())?
    } else {
        Tracer::other(name, arguments)?
    };
    tracer.wait_ready()?;
    let traced = churn(programs, connections)?;
    tracer.check_alive()?;
    tracer.stop()?;
    Ok((before, traced))
}
