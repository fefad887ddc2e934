//! `cargo xtask test`: everything that is checked, in one command, ending with one table.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::bpf;
use crate::image::Programs;
use crate::kernels::{LINES, Line};
use crate::paths::Paths;
use crate::scenarios::{self, Selection, TIERS};
use crate::setup;
use crate::shell::say;
use crate::tally::{Row, Tally};

/// The workspace without what is built for the kernel.
const WORKSPACE: &[&str] = &["--workspace", "--exclude", "portwatch-ebpf"];
const CARGO_TIMEOUT: Duration = Duration::from_secs(30 * 60);

#[derive(clap::Args)]
pub struct Args {
    /// Run these parts only
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Run on these kernels only: 5.10, 6.1, 6.12, 6.18, newest
    #[arg(long, value_delimiter = ',')]
    kernel: Vec<String>,
    /// Force these tiers only
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(TIERS))]
    tier: Vec<String>,
    /// Run these scenarios only (names or parts of names)
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Virtual machines at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Formatting of all crates
    Fmt,
    /// Clippy on all crates, the eBPF one included
    Clippy,
    /// Unit, property and integration tests
    Unit,
    /// Scenarios on this kernel
    Live,
    /// Scenarios on other kernels, in virtual machines
    Vm,
    /// The committed object against its source
    Bpf,
}

/// Whether nothing failed.
///
/// # Errors
/// When there is no kernel of a name that was given.
pub fn task(paths: &Paths, args: &Args) -> Result<bool> {
    let lines = if args.kernel.is_empty() {
        LINES.iter().collect()
    } else {
        args.kernel
            .iter()
            .map(|name| Line::named(name))
            .collect::<Result<Vec<_>>>()?
    };
    let wanted = |tier: &&&str| args.tier.is_empty() || args.tier.iter().any(|name| name == **tier);
    let selection = Selection {
        tiers: TIERS.iter().filter(wanted).copied().collect(),
        names: args.scenario.clone(),
    };
    let runs = |part: Part| args.only.is_empty() || args.only.contains(&part);

    let mut tally = Tally::default();
    let rows = &mut tally.rows;
    if runs(Part::Fmt) {
        rows.push(step("fmt", || checked(paths, &["fmt", "--all", "--check"])));
    }
    if runs(Part::Clippy) {
        let clippy = |features: &[&'static str]| {
            let lints = ["--all-targets", "--", "-D", "warnings"];
            let words = [&["clippy", "--quiet"], WORKSPACE, features, &lints].concat();
            checked(paths, &words)
        };
        rows.push(step("clippy", || clippy(&[])));
        rows.push(step("clippy parquet", || {
            clippy(&["--features", "portwatch/parquet"])
        }));
        rows.push(step("clippy eBPF", || bpf::Build::prepare(paths)?.lint()));
    }
    if runs(Part::Unit) {
        rows.push(unit(paths));
    }
    if runs(Part::Live) || runs(Part::Vm) {
        match Programs::build(paths) {
            Ok(programs) => {
                if runs(Part::Live) {
                    rows.extend(scenarios::here(&programs, &selection));
                }
                if runs(Part::Vm) {
                    rows.extend(scenarios::in_machines(
                        paths, &programs, &selection, &lines, args.jobs,
                    ));
                }
            }
            Err(error) => rows.push(step("static build", || Err(error))),
        }
    }
    if runs(Part::Bpf) {
        rows.push(step("bpf --check", || bpf::Build::prepare(paths)?.check()));
    }
    println!("{tally}");
    Ok(tally.failed() == 0)
}

/// A part that passes or fails as one.
fn step(what: &'static str, work: impl FnOnce() -> Result<()>) -> Row {
    say(what);
    let mut row = Row::new(what, "here", "");
    let start = Instant::now();
    match work() {
        Ok(()) => row.pass(),
        Err(error) => row.fail(format!("{error:#}")),
    }
    row.took = start.elapsed();
    row
}

/// `cargo test`, each test counted.
fn unit(paths: &Paths) -> Row {
    say("cargo test");
    let mut row = Row::new("cargo test", "here", "");
    // Reports are looked at in it. Some machines cannot have it, and the tests say then what they leave out.
    if let Err(error) = setup::packages(&["chromium"]) {
        row.skip(format!("install chromium: {error:#}"));
    }
    let start = Instant::now();
    let words = [&["test", "--no-fail-fast"], WORKSPACE].concat();
    let code = cargo(paths, &words, |line| count_test(&mut row, line));
    match code {
        Ok(0) => {}
        // a crate that does not compile has no tests to fail
        Ok(code) if row.failed == 0 => row.fail(format!("cargo test exited with {code}")),
        Ok(_) => {}
        Err(error) => row.fail(format!("{error:#}")),
    }
    row.took = start.elapsed();
    row
}

/// Reads a line of the test harness: `test NAME ... ok`.
fn count_test(row: &mut Row, line: &str) {
    let Some((name, result)) = line
        .strip_prefix("test ")
        .and_then(|rest| rest.split_once(" ... "))
    else {
        return;
    };
    match result.split([' ', ',']).next() {
        Some("ok") => row.pass(),
        Some("FAILED") => row.fail(name),
        Some("ignored") => row.skip(format!("run {name}: {result}")),
        _ => {}
    }
}

fn checked(paths: &Paths, words: &[&str]) -> Result<()> {
    match cargo(paths, words, |_| {})? {
        0 => Ok(()),
        code => bail!("cargo {} exited with {code}", words.join(" ")),
    }
}

/// Runs cargo to the end, or until its time is up, showing what it prints on stderr.
fn cargo(paths: &Paths, words: &[&str], mut line: impl FnMut(&str)) -> Result<i32> {
    // the last two make traffic for the tests of the command line and the README
    setup::packages(&["gcc", "libc6-dev", "curl", "python3"])?;
    let mut child = Command::new("timeout")
        .args([
            "--kill-after=10",
            &CARGO_TIMEOUT.as_secs().to_string(),
            env!("CARGO"),
        ])
        .args(words)
        .current_dir(&paths.root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("running cargo")?;
    let output = child.stdout.take().context("cargo has no stdout")?;
    for text in BufReader::new(output).split(b'\n') {
        let text = text?;
        let text = String::from_utf8_lossy(&text);
        eprintln!("{text}");
        line(&text);
    }
    let status = child.wait()?;
    status
        .code()
        .with_context(|| format!("cargo ended with {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_of_the_test_harness_is_counted() {
        let mut row = Row::new("cargo test", "here", "");
        for line in [
            "running 4 tests",
            "test a::b ... ok",
            "test c - should panic ... ok",
            "test d ... FAILED",
            "test e ... ignored, needs root",
            "test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out",
        ] {
            count_test(&mut row, line);
        }
        assert_eq!((row.passed, row.failed, row.skipped), (2, 1, 1));
        assert_eq!(
            row.notes,
            ["FAILED d", "could not run e: ignored, needs root"]
        );
    }
}
