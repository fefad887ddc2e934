//! Values as the page shows them.

use std::fmt::Write as _;

use crate::event::Kind;
use crate::sanitize;
use crate::session::survey::Bytes;
use crate::session::{Recorded, Verdict};
use crate::view::human;
use crate::view::time::Utc;

use super::Report;

/// Most characters of a value shown.
const LONGEST: usize = 500;

/// Text from outside as it was stored, harmless and not too long; `-` when absent.
pub fn text(bytes: Option<&Bytes>) -> String {
    let Some(bytes) = bytes else {
        return "-".to_owned();
    };
    short(match std::str::from_utf8(bytes) {
        Ok(text) => sanitize::string(text),
        Err(_) => sanitize::text(bytes),
    })
}

/// As much of a text as has room on a page, and how much is missing.
pub fn short(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => {
            let more = text[end..].chars().count();
            format!(
                "{}… ({} more characters)",
                &text[..end],
                number(more as u64)
            )
        }
    }
}

/// With separators: `1,234,567`.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The same, with nothing for 0: in tables, what is there stands out.
pub fn some(count: u64) -> String {
    if count == 0 {
        "·".to_owned()
    } else {
        number(count)
    }
}

pub fn plural(count: u64, what: &str) -> String {
    format!(
        "{} {what}{}",
        number(count),
        if count == 1 { "" } else { "s" }
    )
}

pub fn bytes(count: u64) -> String {
    let mut out = String::new();
    match count {
        0 => out.push('·'),
        _ => human::push_bytes(&mut out, count),
    }
    out
}

pub fn duration(ns: u64) -> String {
    let mut out = String::new();
    human::push_us(&mut out, ns / 1000);
    out
}

/// `2026-11-23 08:50:58.882`, UTC.
pub fn time(ns: u64) -> String {
    Utc::text(ns)[..23].replace('T', " ")
}

/// To the second.
pub fn second(ns: u64) -> String {
    Utc::text(ns)[..19].replace('T', " ")
}

/// Address and port from outside: `192.0.2.1:80`, `[::1]:80`.
pub fn endpoint(address: Option<&Bytes>, port: Option<u16>) -> String {
    let Some(address) = address else {
        return port.map_or_else(|| "-".to_owned(), |port| format!("*:{port}"));
    };
    let address = sanitize::text(address);
    let mut out = if address.contains(':') {
        format!("[{address}]")
    } else {
        address
    };
    if let Some(port) = port {
        // Writing to a String cannot fail.
        let _ = write!(out, ":{port}");
    }
    out
}

/// How sure one can be that all is there.
pub struct Completeness {
    /// `good`, `warn` or `bad`: the class it is shown with.
    pub class: &'static str,
    pub headline: &'static str,
    pub reasons: Vec<String>,
}

/// The verdict over all runs.
pub fn completeness(report: &Report) -> Completeness {
    let survey = &report.survey;
    let mut reasons = Vec::new();
    let mut class = "good";
    let many = survey.runs.len() > 1;
    if survey.totals.lost > 0 {
        class = "bad";
        let lost = plural(survey.totals.lost, "event");
        reasons.push(format!(
            "{lost} lost: they came faster than they could be read."
        ));
    }
    for run in &survey.runs {
        let which = match many {
            true => format!("Run {}: ", run.id),
            false => String::new(),
        };
        match &run.finish {
            None => {
                class = if class == "bad" { "bad" } else { "warn" };
                reasons.push(format!(
                    "{which}it has no end: it was cut off (killed, power lost), or goes on still. All up to its last batch is here."
                ));
            }
            Some(finish) if !finish.complete => class = "bad",
            Some(_) => {}
        }
        // The headline says it already, unless there is more to say.
        let said = report.accounts.iter().find(|(id, _)| *id == run.id);
        if let Some((_, said)) = said.filter(|(_, said)| said != "complete: nothing lost") {
            let said = said.strip_prefix("incomplete: ").unwrap_or(said);
            reasons.push(format!(
                "{which}{}.",
                short(sanitize::text(said.as_bytes()))
            ));
        }
    }
    let headline = match class {
        "good" if survey.runs.is_empty() => "Nothing was recorded",
        "good" => "Complete: nothing was lost",
        "warn" => "Cut off: the end of a recording is missing",
        _ => "Incomplete: something is missing",
    };
    Completeness {
        class,
        headline,
        reasons,
    }
}

/// What the chain of batches says.
pub fn integrity(verdict: Option<&Verdict>) -> (&'static str, String) {
    let Some(verdict) = verdict else {
        return (
            "",
            "Not checked; portwatch verify does, or report --verify.".to_owned(),
        );
    };
    let whole = plural(verdict.batches.cast_unsigned(), "batch").replace("batchs", "batches");
    match &verdict.fault {
        None => ("good", format!("{whole}, all as they were written.")),
        Some(fault) => {
            let place = fault
                .batch
                .map_or_else(String::new, |batch| format!(" of batch {batch}"));
            let what = sanitize::text(fault.what.as_bytes());
            (
                "bad",
                format!("Altered{place}: {what}. Sound before that: {whole}."),
            )
        }
    }
}

/// How a run ended.
pub fn end(run: &Recorded) -> (&'static str, String) {
    match &run.finish {
        None => ("warn", "cut off, or goes on still".to_owned()),
        Some(finish) => {
            let reason = short(sanitize::text(finish.reason.as_bytes()));
            (if finish.complete { "good" } else { "bad" }, reason)
        }
    }
}

pub fn kind(kind: u8) -> &'static str {
    Kind::ALL
        .get(usize::from(kind))
        .map_or("-", |kind| kind.as_str())
}
