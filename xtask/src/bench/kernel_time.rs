//! How long portwatch's programs run in the kernel for one connection, by the kernel's own count.
//! Separate from the speed, because counting costs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Scale;
use super::report::Report;
use super::tracer::{Tracer, churn};
use crate::image::Programs;
use crate::setup::find_program;
use crate::shell::{read, say};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
const GROUP: &str = "kernel time";

pub fn measure(programs: &Programs, probes: &str, scale: &Scale, report: &mut Report) {
    say("kernel time");
    match statistics(programs, probes, scale.connections) {
        Ok(programs) => add(programs, scale.connections, report),
        Err(error) => report.cannot(GROUP, "all programs", &error),
    }
}

/// What a program did during the churn.
struct Program {
    nanoseconds: u64,
    runs: u64,
}

fn add(programs: BTreeMap<String, Program>, connections: u64, report: &mut Report) {
    let per_connection = |count: u64| count as f64 / connections as f64;
    let total = per_connection(programs.values().map(|program| program.nanoseconds).sum());
    let runs = per_connection(programs.values().map(|program| program.runs).sum());
    report.add(
        GROUP,
        "all programs",
        format!("{total:.0} ns per connection in {runs:.1} runs"),
        "≤ 2000 ns",
        json!({ "ns_per_connection": total, "runs_per_connection": runs }),
    );
    let mut programs: Vec<_> = programs
        .into_iter()
        .filter(|(_, program)| program.runs > 0)
        .collect();
    programs.sort_by_key(|(_, program)| std::cmp::Reverse(program.nanoseconds));
    for (name, program) in programs {
        let share = per_connection(program.nanoseconds);
        let runs = per_connection(program.runs);
        let each = program.nanoseconds as f64 / program.runs as f64;
        report.add(
            GROUP,
            &name,
            format!("{share:.0} ns per connection: {runs:.2} runs of {each:.0} ns"),
            "",
            json!({ "ns_per_connection": share, "runs_per_connection": runs }),
        );
    }
}

/// By program name, what portwatch's programs did during a churn.
fn statistics(
    programs: &Programs,
    probes: &str,
    connections: u64,
) -> Result<BTreeMap<String, Program>> {
    let _enabled = Enabled::set()?;
    let arguments = ["-o", "json", "--probes", probes];
    let mut tracer = Tracer::portwatch(programs, &arguments, Stdio::null())?;
    tracer.wait_ready()?;
    let ids = program_ids(tracer.pid())?;
    ensure!(!ids.is_empty(), "portwatch has no programs attached");
    let before = counts(&ids)?;
    churn(programs, connections)?;
    let mut used: BTreeMap<String, Program> = BTreeMap::new();
    for (id, (name, nanoseconds, runs)) in counts(&ids)? {
        let (_, nanoseconds_before, runs_before) = before.get(&id).context("a new program")?;
        let program = used.entry(name).or_insert(Program {
            nanoseconds: 0,
            runs: 0,
        });
        program.nanoseconds += nanoseconds - nanoseconds_before;
        program.runs += runs - runs_before;
    }
    tracer.stop()?;
    Ok(used)
}

/// Ids of the programs that a process holds, itself or through a link.
fn program_ids(pid: u32) -> Result<BTreeSet<u64>> {
    let mut ids = BTreeSet::new();
    let folder = Path::new("/proc").join(pid.to_string()).join("fdinfo");
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        // an fd may be closed by now
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        ids.extend(
            text.lines()
                .filter_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u64>().ok()),
        );
    }
    Ok(ids)
}

/// Name, nanoseconds and runs of each program since it was loaded, or counting began.
fn counts(ids: &BTreeSet<u64>) -> Result<BTreeMap<u64, (String, u64, u64)>> {
    let bpftool = find_program("bpftool").context("bpftool is not installed")?;
    let list = read(Command::new(bpftool).args(["-j", "prog", "show"]))?;
    let list: Vec<Value> = serde_json::from_str(&list).context("the output of bpftool")?;
    let entry = |program: &Value| {
        let id = program["id"].as_u64().filter(|id| ids.contains(id))?;
        let name = program["name"].as_str().unwrap_or("?").to_string();
        // absent as long as it has not run
        let count = |key: &str| program[key].as_u64().unwrap_or(0);
        Some((id, (name, count("run_time_ns"), count("run_cnt"))))
    };
    Ok(list.iter().filter_map(entry).collect())
}

/// The kernel counts for as long as this lives.
struct Enabled {
    before: String,
}

impl Enabled {
    fn set() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("reading {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("writing {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        // it was writable a moment ago
        let _ = fs::write(SWITCH, &self.before);
    }
}
