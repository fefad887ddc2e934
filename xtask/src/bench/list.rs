//! How fast `list` is beside `ss`, when one process has very many sockets: each run of one is compared
//! with a run of the other just before, since the speed of a machine drifts.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::report::Report;
use super::{Scale, median};
use crate::image::Programs;
use crate::shell::say;

const SOCKETS: &str = "15000";

pub fn measure(programs: &Programs, scale: &Scale, report: &mut Report) {
    say("list");
    if let Err(error) = pairs(programs, scale, report) {
        report.cannot("list", "portwatch", &error);
    }
}

fn pairs(programs: &Programs, scale: &Scale, report: &mut Report) -> Result<()> {
    let _listeners = Listeners::open(programs)?;
    let (mut own, mut others, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..scale.repeats {
        let other = milliseconds(Command::new("ss").arg("-tanp"))?;
        let list = milliseconds(Command::new(&programs.portwatch).args(["list", "-atn"]))?;
        ratios.push(other / list);
        others.push(other);
        own.push(list);
    }
    for (name, times) in [("ss -tanp", &others), ("portwatch", &own)] {
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let middle = median(times);
        report.add(
            "list",
            name,
            format!("{middle:.1} ms, at best {least:.1} ms, at {SOCKETS} sockets"),
            "",
            json!({ "median_ms": middle, "least_ms": least }),
        );
    }
    let ratio = median(&ratios);
    report.add(
        "list",
        "ss over portwatch",
        format!("{ratio:.1} times as fast as ss"),
        "≥ 10",
        json!({ "ratio": ratio, "ratios": ratios }),
    );
    Ok(())
}

/// How long a program runs, with nobody to read what it prints.
fn milliseconds(command: &mut Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.stderr(Stdio::null()).status();
    let status = status.with_context(|| format!("running {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{:?} failed: {status}", command.get_program());
    }
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

/// A process with the sockets.
struct Listeners(Child);

impl Listeners {
    fn open(programs: &Programs) -> Result<Self> {
        let mut child = Command::new(&programs.scenarios)
            .args(["--listeners", SOCKETS])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the listeners")?;
        let stdout = child.stdout.take();
        let listeners = Self(child);
        let mut line = String::new();
        BufReader::new(stdout.context("no stdout")?).read_line(&mut line)?;
        match line.as_str() {
            "ready\n" => Ok(listeners),
            _ => bail!("{SOCKETS} listeners could not be opened"),
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        // It ends with its stdin.
        self.0.stdin = None;
        let _ = self.0.wait();
    }
}
