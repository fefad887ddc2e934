//! `portwatch trace`: events as they happen, from their source through the filter to a line each.

pub(super) mod child;
mod config;
mod replayed;
pub(super) mod summary;

use std::time::Duration;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};
use jiff::SignedDuration;

use super::holders::Holders;
use super::output::{Output, but_for_a_closed_pipe, is_closed_pipe};
use super::signals::{self, Signals};
use super::{READER_CHECK, after, say, wrong_usage};
use crate::cli::{ProbeArgs, SourceArgs, TraceArgs};
use crate::event::{Event, Kind};
use crate::exit::Exit;
use crate::filter::Filter;
use crate::machine::same_numbers;
use crate::privileges;
use crate::probe::Report;
use crate::service;
use crate::source::Source;
use crate::source::poll::Poll;
use crate::view::lines::Lines;

use child::Running;
use config::Config;
use summary::Summary;

/// Lines are written in pieces of about this size.
const PIECE: usize = 256 << 10;

/// Traces until something ends it.
///
/// # Errors
/// When the arguments make no sense, nothing can be seen or the output cannot be written.
pub async fn run(args: TraceArgs) -> Result<Exit> {
    let mut config = Config::new(args).map_err(wrong_usage)?;
    if let Some(asked) = config.session.take() {
        return replayed::run(config, &asked).await;
    }
    let mut signals = Signals::new().context("waiting for signals")?;
    let mut source = Source::start(&config.source)?;
    greet(&mut source, &config.particular);
    let mut trace = Trace {
        lines: config.lines,
        holders: Some(Holders::new(config.filter.allows(Kind::Bind))),
        filter: config.filter,
        output: Output::open(config.write.as_deref())?,
        left: config.count,
        summary: Summary::new(not_observed(&source)),
    };
    trace.header()?;
    let to_stderr = trace.output.is_shared_stdout();
    let started = (config.command.as_deref()).map(|x| child::start(x, to_stderr, &mut source));
    let mut command = match started.transpose()? {
        None => None,
        Some(Ok(running)) => Some(running),
        Some(Err(failure)) => {
            say(&failure.message);
            return Ok(failure.exit);
        }
    };
    // Polling goes on to need them.
    if let Source::Live(_) = source {
        // Signals are passed on to the command, which may run as another user.
        privileges::give_up(command.as_ref().map_or(&[], |_| &[Capability::CAP_KILL]))?;
    }

    let ended = trace
        .follow(&mut source, &mut signals, config.duration, command.as_mut())
        .await;
    let result = match ended {
        Ok(why) => trace.finish(source, why, config.require_complete),
        // Detaches: the command must not pay for a trace that failed.
        Err(error) => {
            drop(source);
            Err(error)
        }
    };
    // Whatever became of the trace, the command is in the foreground until it ends.
    let Some(command) = command else {
        return result;
    };
    if let Err(error) = &result {
        say(&format!("{error:#}; the command runs on"));
    }
    let exit = command.ended(&mut signals).await;
    match result {
        Err(_) => Ok(Exit::Failed),
        Ok(_) if exit.code() != 0 => Ok(exit),
        result => result,
    }
}

pub(super) fn verdict(complete: bool, required: bool) -> Exit {
    if required && !complete {
        Exit::Incomplete
    } else {
        Exit::Fine
    }
}

/// Why tracing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// As asked for: by a signal, the count, the time, or the end of the command.
    Asked,
    /// Nobody reads what is written.
    ReaderLeft,
}

/// The way of an event from the source to the output.
struct Trace {
    lines: Lines,
    filter: Filter,
    output: Output,
    /// Events still wanted, when there is a limit.
    left: Option<u64>,
    summary: Summary,
    /// What is added to events of this machine; recorded ones have it already.
    holders: Option<Holders>,
}

impl Trace {
    fn header(&mut self) -> Result<()> {
        self.lines.header(&mut self.output.buffer);
        but_for_a_closed_pipe(self.output.flush())
    }

    /// Shows events until something ends it.
    async fn follow(
        &mut self,
        source: &mut Source,
        signals: &mut Signals,
        duration: Option<Duration>,
        mut command: Option<&mut Running>,
    ) -> Result<Why> {
        let mut events = Vec::new();
        let mut reader_check = tokio::time::interval(READER_CHECK);
        let out_of_time = after(duration);
        tokio::pin!(out_of_time);
        loop {
            let runs = command.as_ref().is_some_and(|command| command.runs());
            let mut over = false;
            tokio::select! {
                biased;
                _ = signals.next() => match runs {
                    true => signals::dealt_with(),
                    false => return Ok(Why::Asked),
                },
                () = &mut out_of_time => return Ok(Why::Asked),
                () = ended(&mut command), if runs => source.hurry(),
                _ = reader_check.tick() => {
                    if self.output.reader_left() {
                        return Ok(Why::ReaderLeft);
                    }
                }
                more = source.next(&mut events) => {
                    more?;
                    over = command.as_ref().is_some_and(|command| command.is_over(source));
                }
            }
            match self.put(&mut events) {
                Ok(()) if self.left == Some(0) || source.is_over() || over => {
                    return Ok(Why::Asked);
                }
                Ok(()) => {}
                Err(error) if is_closed_pipe(&error) => {
                    return Ok(Why::ReaderLeft);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Shows what was still on its way and tells the summary. What a reader that left did not get
    /// is not missing.
    fn finish(&mut self, source: Source, why: Why, require_complete: bool) -> Result<Exit> {
        let mut rest = Vec::new();
        let accounts = source.finish(&mut rest)?;
        if why != Why::ReaderLeft {
            but_for_a_closed_pipe(self.put(&mut rest))?;
        }
        let complaint = self.filter.complaint();
        self.summary.tell(&accounts, complaint.as_deref());
        Ok(match verdict(accounts.complete(), require_complete) {
            Exit::Fine if complaint.is_some() => Exit::Failed,
            exit => exit,
        })
    }

    /// Shows those of the events that are asked for, and takes them out of the vector.
    fn put(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let mut later = events.iter_mut();
        while let Some(event) = later.next() {
            if let Some(holders) = &mut self.holders {
                event.service = service::of(event);
                holders.tell(event, later.as_slice());
            }
            if self.filter.allows(event.kind) {
                self.summary.seen(event);
            }
            if self.left == Some(0) || !self.filter.matches(event) {
                continue;
            }
            if event.kind != Kind::Lost {
                self.left = self.left.map(|left| left - 1);
            }
            event.seq = self.summary.shown(event.kind);
            self.lines.event(&mut self.output.buffer, event);
            if self.output.buffer.len() >= PIECE {
                self.output.flush()?;
            }
        }
        events.clear();
        self.output.flush()
    }
}

/// Waits for the end of the command; forever when there is none.
pub(super) async fn ended(command: &mut Option<&mut Running>) {
    match command {
        Some(command) => command.wait().await,
        None => std::future::pending().await,
    }
}

/// Which flags were given that only one kind of source has a use for.
#[derive(Clone, Copy, Debug)]
pub struct Particular {
    interval: bool,
    ring_size: bool,
    pub kernel_notes: bool,
}

impl Particular {
    pub fn of(source: &SourceArgs, probes: &ProbeArgs) -> Self {
        Self {
            interval: source.interval.is_some(),
            ring_size: probes.ring_size.is_some(),
            kernel_notes: false,
        }
    }
}

/// Says what serves, and what it cannot see; from then on also what it cannot see any more.
pub fn greet(source: &mut Source, given: &Particular) {
    match source {
        Source::Live(live) => {
            say(&tracing(live.report()));
            of_processes().iter().for_each(|text| say(text));
        }
        Source::Poll(poll, why) => {
            say(&polling(poll, why.as_ref()));
            poll.limits().iter().for_each(|limit| say(limit));
            poll.tell(Box::new(say));
        }
        // Who opened it has said what it is.
        Source::Session(_) => {}
    }
    unused(source, given).iter().for_each(|text| say(text));
}

/// What processes are told otherwise here, or not wholly, a sentence each.
pub(super) fn of_processes() -> Vec<String> {
    let numbers = same_numbers().err();
    let numbers = numbers.map(|why| format!("pid, ppid, tid and parents are the kernel's: {why}"));
    let sees_all =
        caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_PTRACE).unwrap_or(true);
    let exe =
        "without CAP_SYS_PTRACE, exe of other users' processes is missing where they ran before";
    let exe = (!sees_all).then(|| exe.to_owned());
    numbers.into_iter().chain(exe).collect()
}

/// What was asked for in vain, a sentence each.
pub(super) fn unused(source: &Source, given: &Particular) -> Vec<String> {
    let (flags, why) = match source {
        Source::Live(_) => (
            vec![("--interval", given.interval)],
            "the kernel tells of each event (--from poll would poll)",
        ),
        Source::Poll(..) => (
            vec![
                ("--ring-size", given.ring_size),
                ("--kernel-notes", given.kernel_notes),
            ],
            "nothing comes from the kernel's probes",
        ),
        Source::Session(_) => return Vec::new(),
    };
    let given = flags.iter().filter(|(_, given)| *given);
    let texts = given.map(|(flag, _)| format!("{flag} is not used: {why}"));
    texts.collect()
}

/// In one line.
pub(super) fn polling(poll: &Poll, why: Option<&anyhow::Error>) -> String {
    // as it is written in arguments
    let interval = SignedDuration::try_from(poll.interval()).unwrap_or(SignedDuration::MAX);
    let interval = format!("{interval:#}");
    let mut text =
        format!("polling every {interval}: what lives shorter than {interval} is missed");
    if let Some(error) = why {
        text.push_str(&format!(
            " (eBPF cannot be used: {})",
            brief(&format!("{error:#}"))
        ));
    }
    text
}

/// The first line of an error; where that announces a list, with the last item, which is what the least
/// demanding of the tiers lacks.
fn brief(error: &str) -> String {
    let mut lines = error.lines();
    let first = lines.next().unwrap_or_default();
    match lines.filter_map(|line| line.strip_prefix("  ")).next_back() {
        Some(item) if first.ends_with(':') => format!("{first} {item}"),
        _ => first.trim_end_matches(':').to_owned(),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Which tier serves, in one line.
fn tracing(report: &Report) -> String {
    let mut text = format!("tracing with {} probes", report.tier);
    if let Some(missing) = missing(report) {
        text.push_str(&format!(" (degraded: no {missing}; see portwatch doctor)"));
    }
    text
}

/// What this kernel does not show of what happens, as a list.
pub(super) fn not_observed(source: &Source) -> Option<String> {
    match source {
        Source::Live(live) => missing(live.report()),
        Source::Poll(..) | Source::Session(_) => None,
    }
}

fn missing(report: &Report) -> Option<String> {
    let missing: Vec<&str> = report.degraded().map(|row| row.observe).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::brief;

    #[test]
    fn an_error_is_told_in_one_line() {
        let error =
            "no tier can serve:\n  kprobe (kprobe x): no\n  tracepoint (y): gone\nTry another";
        assert_eq!(brief(error), "no tier can serve: tracepoint (y): gone");
        assert_eq!(brief("not permitted\n  for you"), "not permitted");
        assert_eq!(brief("in vain:"), "in vain");
    }
}
