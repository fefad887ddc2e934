//! `who PORT --from FILE`: the same of a moment of a session, and what happened on the port before.

use std::path::Path;

use anyhow::Result;

use super::{elsewhere_told, in_the_way, question, with_mptcp};
use crate::cli::{ReportFormat, WhoArgs};
use crate::command::recorded::Past;
use crate::port::{self, Rules};
use crate::row::Row;
use crate::view::who::{self, Answer};

/// TIME-WAIT lasts a minute, and may follow as long a FIN-WAIT-2 that is told as the end.
const TIME_WAIT_NS: u64 = 120_000_000_000;
/// Most happenings told.
const HISTORY: usize = 20;

/// Appends the answer; returns what is not known.
///
/// # Errors
/// When the session cannot be read, or the moment is outside of it.
pub fn answer(args: &WhoArgs, path: &Path, out: &mut Vec<u8>) -> Result<Vec<String>> {
    let mut past = Past::read(path, &args.moment)?;
    let style = past.style(args.numeric);
    let question = question(args, past.netns);
    let protos = with_mptcp(args);
    let history = past
        .session
        .latest_of_port(question.port, past.ts, HISTORY, |event| {
            event.proto.is_none_or(|proto| protos.contains(&proto))
                && in_the_way(question.addr, event)
        })?;
    let mut limits = past.limits;
    limits.push(elsewhere_told(&question));
    let from = past.ts.saturating_sub(TIME_WAIT_NS);
    let closed = past
        .session
        .lately_closed(&past.run, question.port, from, past.ts)?;
    let rules = Rules {
        closed: closed.into_iter().map(Row::time_wait).collect(),
        unseen: past.unseen,
        ..Rules::elsewhere(&question)
    };
    let reports = port::reports(&question, &rules, &past.rows);
    let pids = reports.iter().flat_map(|x| &x.servers);
    let pids = pids.filter_map(|row| row.event.pid).collect();
    let answer = Answer {
        started: past.session.started(&pids, past.ts)?,
        question,
        rules,
        reports,
        limits: &limits,
        past: Some(who::Past {
            at: past.ts,
            history,
        }),
    };
    match args.output {
        ReportFormat::Text => out.extend_from_slice(answer.text(&style).as_bytes()),
        ReportFormat::Json => answer.put_json(out),
    }
    Ok(limits)
}
