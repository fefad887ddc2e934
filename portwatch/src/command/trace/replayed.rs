//! `trace --from FILE`: the events of a session, one recording after the other.

use anyhow::{Context as _, Result};

use super::config::{Asked, Config};
use super::summary::Summary;
use super::{Trace, Why, verdict};
use crate::command::output::Output;
use crate::command::recorded::{Part, Recording};
use crate::command::say;
use crate::command::signals::Signals;
use crate::exit::Exit;
use crate::session::Session;
use crate::source::Source;
use crate::source::replay::Replay;

/// Shows what is asked for, and says of each recording whether it is complete.
///
/// # Errors
/// When the session cannot be read, the times are outside of it, or the output cannot be written.
pub async fn run(config: Config, asked: &Asked) -> Result<Exit> {
    let recording = Recording::open(&asked.path, asked.run)?;
    let (since, until) = recording.between(asked.span.since.as_ref(), asked.span.until.as_ref())?;
    let until = match config.duration {
        None => until,
        Some(duration) => {
            let began = recording.runs.iter().map(|part| part.began).min();
            let duration = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            until.min(since.max(began.unwrap_or(0)).saturating_add(duration))
        }
    };
    let mut signals = Signals::new().context("waiting for signals")?;
    let mut trace = Trace {
        lines: config.lines,
        filter: config.filter,
        output: Output::open(config.write.as_deref())?,
        left: config.count,
        summary: Summary::new(None),
        holders: None,
    };
    trace.header()?;
    let wanted: Vec<(Part, Summary, String)> = (recording.runs.iter())
        .filter(|part| part.began <= until && part.ended >= since)
        .map(|part| {
            let (from, to) = (part.began.max(since), part.ended.min(until));
            let summary = Summary::recorded(
                part.run.run.not_observed.clone(),
                (to - from) / 1000,
                recording.cut_off(part),
            );
            (part.clone(), summary, recording.describe(part))
        })
        .collect();
    let mut session = Some(recording.session);
    let mut exit = Exit::Fine;
    for (part, summary, description) in wanted {
        say(&description);
        trace.summary = summary;
        trace.lines.at_home(part.run.run.netns);
        let session = match session.take() {
            Some(session) => session,
            // The last one was closed with its source.
            None => Session::open(&asked.path)?,
        };
        let whole = part.run.finish.as_ref().is_some_and(|x| x.complete);
        let replay = Replay::new(session, part.run, since, until)?;
        let mut source = Source::Session(Box::new(replay));
        let why = match source.is_over() {
            true => Why::Asked,
            false => (trace.follow(&mut source, &mut signals, None, None)).await?,
        };
        let stopped = why == Why::ReaderLeft || !source.is_over();
        if stopped {
            trace.summary.stopped();
        }
        let over = stopped || trace.left == Some(0);
        let ended = trace.finish(source, why, config.require_complete)?;
        let ended = match ended {
            Exit::Fine if why == Why::Asked => verdict(whole, config.require_complete),
            ended => ended,
        };
        // What failed counts for more than what is incomplete.
        if exit != Exit::Failed && ended != Exit::Fine {
            exit = ended;
        }
        if over {
            break;
        }
    }
    Ok(exit)
}
