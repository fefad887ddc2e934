//! What was found out about a session: a line a fact, or an object.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Result;
use blake3::Hash;
use serde_json::{Map, Value, json};

use crate::sanitize;
use crate::session::{Fault, Verdict};
use crate::view::json::put_json;
use crate::view::time::Utc;

/// What sessions are to be besides whole.
pub struct Asked<'a> {
    /// Fingerprint of the key that signatures were checked by.
    pub key: Option<&'a str>,
    pub head: Option<Hash>,
}

impl Asked<'_> {
    /// Whether a session is whole, and all that was asked for.
    pub fn is_met(&self, verdict: &Verdict) -> bool {
        verdict.fault.is_none() && self.has_head(verdict)
    }

    fn has_head(&self, verdict: &Verdict) -> bool {
        self.head.is_none() || self.head == verdict.head
    }
}

/// Appends lines that begin with the name of the file.
pub fn text(out: &mut Vec<u8>, file: &Path, verdict: &Verdict, asked: &Asked<'_>) {
    let name = sanitize::text(file.as_os_str().as_bytes());
    let mut line = |text: &str| {
        out.extend_from_slice(format!("{name}: {text}\n").as_bytes());
    };
    let extent = extent(verdict);
    match &verdict.fault {
        None => {
            line(&format!("whole: {extent}"));
            line(&runs(verdict));
            line(&head(verdict, asked));
        }
        Some(fault) => {
            line(&format!(
                "FAULT{}: {}",
                place(fault),
                sanitize::text(fault.what.as_bytes())
            ));
            line(&match verdict.batches {
                0 => "nothing before that can be trusted".to_owned(),
                _ => format!("trustworthy up to there: {extent}"),
            });
        }
    }
    line(&signatures(verdict, asked.key));
}

/// Appends one object on a line.
pub fn json(out: &mut Vec<u8>, file: &Path, found: &Result<Verdict>, asked: &Asked<'_>) {
    let mut object = Map::new();
    let name = sanitize::utf8(file.as_os_str().as_bytes());
    object.insert("file".into(), name.into());
    match found {
        Ok(verdict) => {
            let whole = verdict.fault.is_none();
            object.insert("whole".into(), whole.into());
            object.insert("batches".into(), verdict.batches.into());
            object.insert("events".into(), verdict.events.into());
            if let Some(until) = verdict.until {
                object.insert("until".into(), Utc::text(until).into());
            }
            if let Some(head) = verdict.head {
                object.insert("head".into(), head.to_string().into());
            }
            if whole && asked.head.is_some() {
                object.insert("as_expected".into(), asked.has_head(verdict).into());
            }
            if whole {
                object.insert("runs".into(), verdict.runs.into());
                object.insert("unfinished".into(), verdict.unfinished.clone().into());
            }
            object.insert("signed".into(), verdict.signed.into());
            if let Some(key) = asked.key {
                object.insert("key".into(), key.into());
            }
            if let Some(fault) = &verdict.fault {
                object.insert("fault".into(), of_fault(fault));
            }
        }
        Err(error) => {
            object.insert("whole".into(), false.into());
            object.insert("fault".into(), json!({ "what": format!("{error:#}") }));
        }
    }
    // Escaped as in all JSON here, so that a terminal can show it.
    put_json(out, &Value::Object(object));
    out.push(b'\n');
}

fn of_fault(fault: &Fault) -> Value {
    let mut object = Map::new();
    object.insert("what".into(), fault.what.clone().into());
    if let Some(batch) = fault.batch {
        object.insert("batch".into(), batch.into());
    }
    if let Some(events) = fault.events.as_ref().filter(|events| !events.is_empty()) {
        object.insert("first_event".into(), events.start.into());
        object.insert("last_event".into(), (events.end - 1).into());
    }
    if let Some((first, last)) = fault.times {
        object.insert("first_ts".into(), Utc::text(first).into());
        object.insert("last_ts".into(), Utc::text(last).into());
    }
    Value::Object(object)
}

/// ` in batch 4 (events 31 to 40, from … to …)`.
fn place(fault: &Fault) -> String {
    let Some(batch) = fault.batch else {
        return String::new();
    };
    let mut text = format!(" in batch {batch}");
    let mut details = Vec::new();
    match fault
        .events
        .as_ref()
        .map(|events| (events, events.is_empty()))
    {
        Some((events, false)) => {
            details.push(format!("events {} to {}", events.start, events.end - 1));
        }
        Some((_, true)) => details.push("no events".to_owned()),
        None => {}
    }
    if let Some((first, last)) = fault.times {
        details.push(format!("{} to {}", Utc::text(first), Utc::text(last)));
    }
    if !details.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, " ({})", details.join(", "));
    }
    text
}

fn extent(verdict: &Verdict) -> String {
    let batches = count(verdict.batches, "batch", "batches");
    let events = count(verdict.events, "event", "events");
    match verdict.until {
        Some(until) => format!("{batches}, {events}, until {}", Utc::text(until)),
        None => format!("{batches}, {events}"),
    }
}

fn runs(verdict: &Verdict) -> String {
    let runs = count(verdict.runs, "run", "runs");
    match verdict.unfinished.as_slice() {
        [] => format!("{runs}, finished"),
        open => {
            let open: Vec<String> = open.iter().map(i64::to_string).collect();
            let open = open.join(", ");
            format!("{runs}, not finished: {open} (goes on, was killed, or the end was cut off)")
        }
    }
}

fn head(verdict: &Verdict, asked: &Asked<'_>) -> String {
    let head = match verdict.head {
        None => "no head".to_owned(),
        Some(head) => format!("head {head}"),
    };
    match asked.head {
        None => head,
        Some(_) if asked.has_head(verdict) => format!("{head}, as expected"),
        Some(_) => format!(
            "FAULT: {head} is not the one expected: its end was cut off, a run was added, or it is another session"
        ),
    }
}

fn signatures(verdict: &Verdict, key: Option<&str>) -> String {
    let all = verdict.signed == verdict.batches;
    match (verdict.signed, key) {
        (0, Some(key)) => format!("no batch is signed by {key}"),
        (0, None) => "not signed: who can write the file can make all of it anew".to_owned(),
        (_, Some(key)) if all && verdict.fault.is_none() => {
            format!("every batch is signed by {key}")
        }
        (signed, Some(key)) => {
            format!("{} signed by {key}", count(signed, "batch", "batches"))
        }
        (_, None) if all => "signed, but not checked by whom: give --key".to_owned(),
        (signed, None) => {
            let signed = count(signed, "batch", "batches");
            format!("{signed} signed, but not checked by whom: give --key")
        }
    }
}

fn count(number: i64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
