//! Names and types are those that were published, for any event.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::Value;

use super::Documents;
use crate::event::{Event, Kind, Origin};
use crate::session::Run;
use crate::view::lines::samples;

const ECS: &str = include_str!("../../../data/ecs-fields");
const OCSF: &str = include_str!("../../../data/ocsf-attributes");

/// Names and types of a list.
fn published(list: &'static str) -> BTreeMap<&'static str, &'static str> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).collect()
}

fn run() -> Run {
    let text = || Some("x".to_owned());
    Run {
        host: text(),
        kernel: text(),
        arch: text(),
        boot: text(),
        version: "0".into(),
        ..Run::default()
    }
}

fn ecs(events: &[Event]) -> Vec<Value> {
    documents(Documents::ecs(&run()), events)
}

fn ocsf(events: &[Event]) -> Vec<Value> {
    documents(Documents::ocsf(&run()), events)
}

fn documents(mut documents: Documents<'_>, events: &[Event]) -> Vec<Value> {
    let mut out = Vec::new();
    events
        .iter()
        .for_each(|event| documents.event(&mut out, event, true));
    parsed(&out)
}

fn parsed(out: &[u8]) -> Vec<Value> {
    let lines = std::str::from_utf8(out).unwrap().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Everything in a document with its dotted name; items of a list have that of the list.
fn leaves<'v>(value: &'v Value, name: String, found: &mut Vec<(String, &'v Value)>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let dot = if name.is_empty() { "" } else { "." };
                leaves(value, format!("{name}{dot}{key}"), found);
            }
        }
        Value::Array(items) => {
            let each = items.iter();
            each.for_each(|item| leaves(item, name.clone(), found));
        }
        value => found.push((name, value)),
    }
}

/// Whether each name was published, with this type; returns the names.
fn check(
    documents: &[Value],
    list: &BTreeMap<&'static str, &'static str>,
    own: &str,
) -> BTreeSet<&'static str> {
    let mut used = BTreeSet::new();
    for document in documents {
        let mut found = Vec::new();
        leaves(document, String::new(), &mut found);
        for (name, value) in found {
            if name.starts_with(own) {
                continue;
            }
            let (&name, &kind) = list.get_key_value(name.as_str()).expect(&name);
            let fits = match kind {
                "long" | "integer" => value.is_i64(),
                "keyword" | "text" | "string" => value.is_string(),
                "ip" => value.as_str().is_some_and(|x| x.parse::<IpAddr>().is_ok()),
                "date" => value.as_str().is_some_and(|x| x.ends_with('Z')),
                kind => panic!("no type {kind}"),
            };
            assert!(fits, "{name} is no {kind}: {value}");
            used.insert(name);
        }
    }
    used
}

/// Each kind of event with all that it can have.
fn full() -> Vec<Event> {
    let typical = samples::typical();
    let mut events = typical.clone();
    for &kind in Kind::ALL {
        let mut event = typical[2].clone();
        event.kind = kind;
        event.sock = Some(u64::MAX);
        (event.tid, event.ppid, event.gid) = (event.pid, Some(4000), Some(1));
        (event.rx_bytes, event.tx_bytes) = (Some(u64::MAX), Some(2));
        (event.duration_us, event.count) = (Some(3), Some(u64::MAX));
        (event.reason, event.error) = (Some("NO_SOCKET"), Some(libc::ECONNREFUSED as u16));
        events.push(event);
    }
    events
}

#[test]
fn names_are_those_that_were_published_and_all_of_them_are_used() {
    for (documents, list, own) in [
        (ecs(&full()), published(ECS), "portwatch."),
        (ocsf(&full()), published(OCSF), "unmapped."),
    ] {
        let used = check(&documents, &list, own);
        assert_eq!(used, list.keys().copied().collect());
    }
}

#[test]
fn what_happened_has_the_number_that_was_published_for_it() {
    let event = |kind, error| {
        let mut event = Event::new(kind, Origin::Live, 0);
        event.laddr = Some("127.0.0.1".parse().unwrap());
        event.error = error;
        event
    };
    for (kind, error, activity, status) in [
        (Kind::Connect, None, 1, 1),
        (Kind::Accept, None, 1, 1),
        (Kind::Close, None, 2, 1),
        (Kind::Reset, None, 3, 1),
        (Kind::Connect, Some(libc::ETIMEDOUT), 4, 2),
        (Kind::Connect, Some(libc::ECONNREFUSED), 5, 2),
        (Kind::Connect, Some(libc::EINPROGRESS), 99, 0),
        (Kind::Listen, None, 7, 1),
        (Kind::Listen, Some(libc::EADDRINUSE), 99, 2),
        (Kind::Bind, None, 99, 1),
        (Kind::Bind, Some(libc::EACCES), 99, 2),
    ] {
        let error = error.map(|x| u16::try_from(x).unwrap());
        let document = &ocsf(&[event(kind, error)])[0];
        assert_eq!(document["activity_id"], activity, "{kind} {error:?}");
        assert_eq!(document["status_id"], status, "{kind} {error:?}");
        assert_eq!(document["type_uid"], 400_100 + activity);
    }
}

/// What consumers rely on: an end of the connection, a process with a number.
fn is_sound(event: &Value) -> bool {
    let end = ["src_endpoint", "dst_endpoint"].map(|x| &event[x]["ip"]);
    let network = event["class_uid"] == 4001;
    let actor = event
        .get("actor")
        .is_none_or(|x| x["process"]["pid"].is_u64());
    network == end.iter().any(|x| x.is_string()) && actor
}

proptest! {
    #[test]
    fn any_event_has_such_a_document(events in samples::events(0..20)) {
        check(&ecs(&events), &published(ECS), "portwatch.");
        let ocsf = ocsf(&events);
        check(&ocsf, &published(OCSF), "unmapped.");
        prop_assert!(ocsf.iter().all(is_sound));
        // Nothing is lost on the way: what an event has is in its document somewhere.
        for (event, document) in events.iter().zip(ecs(&events)) {
            let text = document.to_string();
            let there = |x: Option<&String>| {
                x.is_none_or(|x| text.contains(&Value::from(x.as_str()).to_string()))
            };
            let context = event.context.as_deref();
            for value in [context.and_then(|x| x.exe.as_ref()), context.and_then(|x| x.unit.as_ref())] {
                prop_assert!(there(value), "{text}");
            }
        }
    }
}
