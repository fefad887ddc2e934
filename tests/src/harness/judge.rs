//! Compares what portwatch said with the truth: nothing missing, nothing extra, nothing wrong.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Write};

use anyhow::{Result, bail};

use super::event::{Event, Kind, Origin};
use super::process::cannot;
use super::truth::{Expected, Process, Record};

/// Times of portwatch and of the traffic makers come from clocks that are converted differently.
const CLOCK_NS: u64 = 5_000_000;
/// Differences told in full.
const TOLD: usize = 20;

/// The truth about one scenario.
#[derive(Debug, Default)]
pub struct Truth {
    pub processes: HashMap<u32, Process>,
    pub expected: Vec<Expected>,
    /// Network namespaces in which every event has to be expected.
    pub namespaces: HashSet<u64>,
}

impl Truth {
    /// # Errors
    /// When a traffic maker failed, or said that the kernel lacks what it needs.
    pub fn from_records(records: Vec<Record>) -> Result<Self> {
        let mut truth = Self::default();
        for record in records {
            match record {
                Record::Process(process) => {
                    truth.processes.insert(process.pid, process);
                }
                Record::Expected(expected) => truth.expected.push(expected),
                Record::Cannot(reason) => return Err(cannot(reason)),
                Record::Failed(reason) => bail!("the traffic maker failed: {reason}"),
            }
        }
        Ok(truth)
    }

    /// Whether the event has to do with this scenario at all.
    pub fn concerns(&self, event: &Event) -> bool {
        event
            .pid
            .is_some_and(|pid| self.processes.contains_key(&pid))
            || event
                .netns
                .is_some_and(|netns| self.namespaces.contains(&netns))
    }
}

/// The events that were not as they have to be, each described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub missing: Vec<String>,
    pub extra: Vec<String>,
    pub wrong: Vec<String>,
    /// Sum of the counts of `lost` events.
    pub lost: u64,
}

impl Verdict {
    /// Tells the first ones of a kind on stderr.
    pub fn explain(kind: &str, list: &[String]) {
        for line in list.iter().take(TOLD) {
            eprintln!("  {kind}: {line}");
        }
        if list.len() > TOLD {
            eprintln!("  {kind}: and {} more", list.len() - TOLD);
        }
    }

    /// In one line.
    pub fn brief(&self) -> String {
        let first = self.wrong.first();
        let first = first.and_then(|text| text.split("in Event").next());
        format!(
            "{} missing, {} extra, {} wrong, {} lost{}",
            self.missing.len(),
            self.extra.len(),
            self.wrong.len(),
            self.lost,
            first.map_or_else(String::new, |text| format!("; first wrong: {text}"))
        )
    }
}

/// # Errors
/// Tells every kind of difference, and the first ones in full on stderr.
pub fn compare(events: &[Event], truth: &Truth) -> Result<()> {
    let verdict = judge(events, truth);
    if verdict == Verdict::default() {
        return Ok(());
    }
    Verdict::explain("missing", &verdict.missing);
    Verdict::explain("extra", &verdict.extra);
    Verdict::explain("wrong", &verdict.wrong);
    bail!("of {} events {}", truth.expected.len(), verdict.brief())
}

/// Compares, and leaves it to the caller what to make of the differences.
pub fn judge(events: &[Event], truth: &Truth) -> Verdict {
    let mut by_socket: HashMap<(Kind, u64), VecDeque<usize>> = HashMap::new();
    let mut by_process: HashMap<(Kind, u32), VecDeque<usize>> = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        if let Some(sock) = event.sock {
            by_socket
                .entry((event.event, sock))
                .or_default()
                .push_back(index);
        }
        if let Some(pid) = event.pid {
            by_process
                .entry((event.event, pid))
                .or_default()
                .push_back(index);
        }
    }
    let mut used = vec![false; events.len()];
    let mut verdict = Verdict::default();
    for expected in &truth.expected {
        let queue = match expected.sock {
            Some(sock) => by_socket.get_mut(&(expected.event, sock)),
            None => by_process.get_mut(&(expected.event, expected.pid)),
        };
        let Some((index, differences)) = queue.and_then(|queue| {
            queue.retain(|&index| !used[index]);
            best(queue, events, expected, truth)
        }) else {
            if !expected.optional {
                verdict.missing.push(brief(expected));
            }
            continue;
        };
        used[index] = true;
        if !differences.is_empty() {
            let event = brief(&events[index]);
            verdict.wrong.push(format!("{differences}in {event}"));
        }
    }
    for (event, _) in events.iter().zip(&used).filter(|(_, used)| !**used) {
        if truth.concerns(event) {
            verdict.extra.push(brief(event));
        }
    }
    verdict.lost = events.iter().filter_map(|event| event.count).sum();
    verdict
}

/// The event that fits, or else the first, with what is wrong with it. Order alone does not tell:
/// the kernel gives an accepted MPTCP socket the cookie of its listener.
fn best(
    candidates: &VecDeque<usize>,
    events: &[Event],
    expected: &Expected,
    truth: &Truth,
) -> Option<(usize, String)> {
    let mut first = None;
    for &index in candidates {
        let differences = differences(&events[index], expected, truth);
        if differences.is_empty() {
            return Some((index, differences));
        }
        first.get_or_insert((index, differences));
    }
    first
}

/// Without the absent fields.
fn brief(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let present = text.split(", ").filter(|part| !part.ends_with(": None"));
    present.collect::<Vec<_>>().join(", ")
}

/// Each difference as `field was X, not Y; `.
fn differences(event: &Event, expected: &Expected, truth: &Truth) -> String {
    let mut text = String::new();
    fn check<T: PartialEq + Debug>(
        text: &mut String,
        name: &str,
        got: &Option<T>,
        due: &Option<T>,
    ) {
        if due.is_some() && got != due {
            let due = due.as_ref();
            // writing to a String cannot fail
            let _ = write!(text, "{name} was {got:?}, not {due:?}; ");
        }
    }
    macro_rules! check {
        ($($field:ident)*) => { $(check(&mut text, stringify!($field), &event.$field, &expected.$field);)* };
    }
    check!(proto family laddr lport raddr rport sock netns tid backlog rx_bytes tx_bytes accepted cause);
    check(&mut text, "pid", &event.pid, &Some(expected.pid));
    check(
        &mut text,
        "origin",
        &Some(event.origin),
        &Some(Origin::Live),
    );
    // absent means success, so it has to be compared also when none is due
    check(
        &mut text,
        "error",
        &Some(event.error.as_deref().unwrap_or("none")),
        &Some(expected.error.as_deref().unwrap_or("none")),
    );
    if let Some(process) = truth.processes.get(&expected.pid) {
        let due = Some(process.clone());
        check(
            &mut text,
            "ppid",
            &event.ppid,
            &due.as_ref().map(|x| x.ppid),
        );
        check(&mut text, "uid", &event.uid, &due.as_ref().map(|x| x.uid));
        check(&mut text, "gid", &event.gid, &due.as_ref().map(|x| x.gid));
        check(
            &mut text,
            "comm",
            &event.comm,
            &due.as_ref().map(|x| x.comm.clone()),
        );
        check(
            &mut text,
            "exe",
            &event.exe,
            &due.as_ref().map(|x| x.exe.clone()),
        );
        check(&mut text, "args", &event.args, &due.map(|x| x.args));
    }
    if let Some((from, to)) = expected.at {
        let within =
            event.ts.saturating_add(CLOCK_NS) >= from && event.ts <= to.saturating_add(CLOCK_NS);
        if !within {
            let off = event.ts.cast_signed().wrapping_sub(from.cast_signed());
            let _ = write!(text, "ts was {off} ns after the start of the call; ");
        }
    }
    if let Some((from, to)) = expected.elapsed_us {
        let (name, got) = match event.event {
            Kind::Close => ("duration_us", event.duration_us),
            _ => ("latency_us", event.latency_us),
        };
        // one microsecond, because both sides cut off what is below it
        if got.is_none_or(|got| got + 1 < from || got > to.saturating_add(1)) {
            let _ = write!(text, "{name} was {got:?}, not within {from} and {to}; ");
        }
    }
    if expected.unconnected && (event.rport.is_some() || event.rx_bytes.is_some()) {
        let _ = write!(text, "a peer or counters where there was no connection; ");
    }
    if expected.nameless && (event.laddr.is_some() || event.lport.is_some()) {
        let _ = write!(text, "an address where none was named; ");
    }
    if expected.measured && (event.rtt_us.is_none() || event.retrans.is_none()) {
        let _ = write!(text, "rtt_us or retrans is absent; ");
    }
    text
}
