//! How soon events arrive and whether all do: start-up, delay from the kernel to the reader, loss,
//! and what portwatch uses while nothing happens.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::json;

use super::report::Report;
use super::tracer::{Tracer, churn};
use super::{Scale, median, percentile};
use crate::image::Programs;
use crate::shell::say;

/// Of `USER_HZ`, the unit of times in /proc/PID/stat, on every architecture that matters here.
const TICKS_PER_SECOND: f64 = 100.0;

pub fn measure(programs: &Programs, probes: &str, scale: &Scale, report: &mut Report) {
    let text = ["--probes", probes];
    let json = ["-o", "json", "--probes", probes];
    say("start");
    start(
        programs,
        &text,
        "to first header",
        false,
        scale.repeats,
        report,
    );
    start(
        programs,
        &json,
        "to first event",
        true,
        scale.repeats,
        report,
    );
    say("delivery");
    if let Err(error) = idle(programs, &json, scale, report) {
        report.cannot("delivery", "idle", &error);
    }
    if let Err(error) = busy(programs, &json, scale, report) {
        report.cannot("delivery", "busy", &error);
    }
    if let Err(error) = resting(programs, &json, scale.idle, report) {
        report.cannot("footprint", "idle", &error);
    }
}

fn start(
    programs: &Programs,
    arguments: &[&str],
    name: &str,
    traffic: bool,
    repeats: u32,
    report: &mut Report,
) {
    let times: Result<Vec<f64>> = (0..repeats)
        .map(|_| first_byte(programs, arguments, traffic))
        .collect();
    match times {
        Ok(times) => {
            let (middle, worst) = (median(&times), percentile(&times, 100.0));
            report.add(
                "start",
                name,
                format!("{middle:.0} ms (worst {worst:.0} ms)"),
                "≤ 150 ms",
                json!({ "median_ms": middle, "ms": times }),
            );
        }
        Err(error) => report.cannot("start", name, &error),
    }
}

/// Milliseconds from starting portwatch to the first byte it prints, with or without connections going on.
fn first_byte(programs: &Programs, arguments: &[&str], traffic: bool) -> Result<f64> {
    let stop = AtomicBool::new(!traffic);
    thread::scope(|scope| {
        let connections = scope
            .spawn(|| connect_every(Duration::from_millis(1), || !stop.load(Ordering::Relaxed)));
        let measured = (|| {
            let begin = Instant::now();
            let mut tracer = Tracer::portwatch(programs, arguments, Stdio::piped())?;
            let mut stdout = tracer.stdout()?;
            let length = stdout.read(&mut [0])?;
            let took = begin.elapsed();
            if length == 0 {
                let (_, said) = tracer.stop()?;
                return Err(anyhow!("it printed nothing: {}", said.trim()));
            }
            drop(stdout);
            Ok(took.as_secs_f64() * 1000.0)
        })();
        stop.store(true, Ordering::Relaxed);
        connections
            .join()
            .map_err(|_| anyhow!("the traffic maker panicked"))??;
        measured
    })
}

fn idle(programs: &Programs, arguments: &[&str], scale: &Scale, report: &mut Report) -> Result<()> {
    let (tracer, reading) = reading(programs, arguments)?;
    let end = Instant::now() + Duration::from_millis(50) * scale.repeats * 10;
    connect_every(Duration::from_millis(50), || Instant::now() < end)?;
    let lines = finish(tracer, reading)?.lines;
    add_delays("idle", &lines, report)
}

fn busy(programs: &Programs, arguments: &[&str], scale: &Scale, report: &mut Report) -> Result<()> {
    let (mut tracer, reading) = reading(programs, arguments)?;
    churn(programs, scale.connections)?;
    tracer.check_alive()?;
    let peak = memory(tracer.pid())?;
    let Finished { lines, code, said } = finish(tracer, reading)?;
    add_delays("busy", &lines, report)?;

    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for line in &lines {
        *counts.entry(&line.event).or_default() += line.count.unwrap_or(1);
    }
    let count = |event: &str| counts.get(event).copied().unwrap_or(0);
    let lost = count("lost");
    report.add(
        "delivery",
        "lost",
        format!(
            "{lost} lost; of {} connections: {} connect, {} accept, {} close (exit code {})",
            scale.connections,
            count("connect"),
            count("accept"),
            count("close"),
            code.map_or("none".into(), |code| code.to_string()),
        ),
        "0",
        json!({ "lost": lost, "connections": scale.connections, "events": counts, "summary": said.trim() }),
    );
    report.add(
        "footprint",
        "peak memory",
        format!("{peak} KiB during churn"),
        "",
        json!({ "kib": peak }),
    );
    Ok(())
}

/// CPU while nothing happens.
fn resting(
    programs: &Programs,
    arguments: &[&str],
    time: Duration,
    report: &mut Report,
) -> Result<()> {
    let mut tracer = Tracer::portwatch(programs, arguments, Stdio::null())?;
    tracer.wait_ready()?;
    sleep(Duration::from_secs(1));
    let before = cpu_ticks(tracer.pid())?;
    sleep(time);
    let ticks = cpu_ticks(tracer.pid())? - before;
    tracer.stop()?;
    let percent = ticks / TICKS_PER_SECOND / time.as_secs_f64() * 100.0;
    report.add(
        "footprint",
        "idle",
        format!("{percent:.1} % of one CPU"),
        "",
        json!({ "cpu_percent": percent }),
    );
    Ok(())
}

/// Output as it came: each piece with the time at which it was read.
type Pieces = Vec<(SystemTime, Vec<u8>)>;

/// Starts portwatch with a reader that only takes the time, so that it is never the slow one.
fn reading(
    programs: &Programs,
    arguments: &[&str],
) -> Result<(Tracer, JoinHandle<std::io::Result<Pieces>>)> {
    let mut tracer = Tracer::portwatch(programs, arguments, Stdio::piped())?;
    let mut stdout: ChildStdout = tracer.stdout()?;
    let reader = thread::spawn(move || {
        let mut pieces = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stdout.read(&mut buffer)? {
                0 => return Ok(pieces),
                length => pieces.push((SystemTime::now(), buffer[..length].to_vec())),
            }
        }
    });
    tracer.wait_ready()?;
    Ok((tracer, reader))
}

struct Finished {
    lines: Vec<Line>,
    code: Option<i32>,
    said: String,
}

/// An event as far as it matters here, and when it was read.
struct Line {
    event: String,
    count: Option<u64>,
    delay: Option<Duration>,
}

#[derive(Deserialize)]
struct Json {
    ts: String,
    event: String,
    count: Option<u64>,
}

fn finish(tracer: Tracer, reader: JoinHandle<std::io::Result<Pieces>>) -> Result<Finished> {
    let (code, said) = tracer.stop()?;
    let pieces = reader
        .join()
        .map_err(|_| anyhow!("the reader panicked"))??;
    Ok(Finished {
        lines: lines(&pieces)?,
        code,
        said,
    })
}

fn lines(pieces: &Pieces) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut rest = Vec::new();
    for (read, piece) in pieces {
        rest.extend_from_slice(piece);
        let Some(end) = rest.iter().rposition(|&byte| byte == b'\n') else {
            continue;
        };
        for text in rest[..end].split(|&byte| byte == b'\n') {
            let json: Json = serde_json::from_slice(text).context("a line that is not an event")?;
            let seen =
                humantime::parse_rfc3339(&json.ts).with_context(|| format!("time {}", json.ts))?;
            lines.push(Line {
                event: json.event,
                count: json.count,
                // an event from the future: the clock was set in between
                delay: read.duration_since(seen).ok(),
            });
        }
        rest.drain(..=end);
    }
    ensure!(rest.is_empty(), "the last line has no end");
    Ok(lines)
}

fn add_delays(name: &'static str, lines: &[Line], report: &mut Report) -> Result<()> {
    let delays: Vec<f64> = lines
        .iter()
        .filter_map(|line| line.delay)
        .map(|delay| delay.as_secs_f64() * 1000.0)
        .collect();
    ensure!(!delays.is_empty(), "no events came");
    let (p50, p99) = (percentile(&delays, 50.0), percentile(&delays, 99.0));
    let worst = percentile(&delays, 100.0);
    report.add(
        "delivery",
        name,
        format!(
            "p50 {p50:.2} ms, p99 {p99:.2} ms, worst {worst:.2} ms of {} events",
            delays.len()
        ),
        "p99 ≤ 15 ms",
        json!({ "p50_ms": p50, "p99_ms": p99, "worst_ms": worst, "events": delays.len() }),
    );
    Ok(())
}

/// Makes a loopback connection each `period` for as long as `more` says.
fn connect_every(period: Duration, more: impl Fn() -> bool) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    while more() {
        let stream = TcpStream::connect(address)?;
        listener.accept()?;
        drop(stream);
        sleep(period);
    }
    Ok(())
}

/// User and system time of a process so far, see proc_pid_stat(5).
fn cpu_ticks(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // the name, in parentheses, may hold anything
    let (_, fields) = text.rsplit_once(") ").context("no name in stat")?;
    let field = |number: usize| -> Result<f64> {
        let text = fields.split(' ').nth(number - 3).context("a short stat")?;
        Ok(text.parse()?)
    };
    Ok(field(14)? + field(15)?)
}

/// Peak resident memory of a process in KiB.
fn memory(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
