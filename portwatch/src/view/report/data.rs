//! The events of the table: as rows for those who run no script, and as JSON for the script.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::event::{Context, Event, Kind};
use crate::sanitize;
use crate::view::human;
use crate::view::lines::Style;
use crate::view::lines::details::{put_outcome, put_peers, put_words};

use super::words::short;

/// An event as the table shows it. All text is harmless, but not yet HTML.
pub struct Cells {
    pub id: i64,
    /// Nanoseconds since the Unix epoch.
    pub ts: u64,
    pub kind: Kind,
    pub failed: bool,
    pub proto: &'static str,
    pub pid: Option<u32>,
    pub comm: String,
    pub local: String,
    pub remote: String,
    pub details: String,
}

/// What the details of a row say of its owner: names and values.
pub type Owner = Vec<(&'static str, String)>;

pub fn cells(id: i64, event: &Event) -> Cells {
    let style = Style {
        colour: false,
        numeric: false,
        wide: true,
        zone: TimeZone::UTC,
        netns: None,
    };
    let with = |put: &dyn Fn(&mut String)| {
        let mut out = String::new();
        put(&mut out);
        out
    };
    let comm = event.comm.as_ref();
    Cells {
        id,
        ts: event.ts,
        kind: event.kind,
        failed: event.error.is_some() || event.kind == Kind::Lost,
        proto: event.proto.map_or("-", |proto| proto.as_str()),
        pid: event.pid,
        comm: comm.map_or_else(|| "-".to_owned(), |comm| sanitize::text(comm.bytes())),
        local: with(&|out| human::push_endpoint(out, event.laddr, event.lport)),
        remote: with(&|out| human::push_endpoint(out, event.raddr, event.rport)),
        details: short(with(&|out| match event.kind {
            Kind::Lost => out.push_str(&format!("{} events lost", event.count.unwrap_or_default())),
            _ => put_outcome(out, event, &style),
        })),
    }
}

pub fn owner(event: &Event) -> Owner {
    let nobody = Context::default();
    let context = event.context.as_deref().unwrap_or(&nobody);
    let text = |text: &Option<String>| {
        let text = text.as_ref()?;
        Some(short(sanitize::string(text)))
    };
    let words = context.args.as_ref().map(|args| {
        let mut out = String::new();
        put_words(&mut out, args);
        short(out)
    });
    let parents = context
        .parents
        .as_ref()
        .filter(|x| !x.is_empty())
        .map(|parents| {
            let mut out = String::new();
            put_peers(&mut out, parents);
            short(out)
        });
    let uid = event.uid.map(|uid| uid.to_string());
    let all = [
        ("user", text(&context.user).or(uid)),
        ("program", text(&context.exe)),
        ("command", words),
        ("parents", parents),
        ("container", text(&context.container)),
        ("unit", text(&context.unit)),
    ];
    all.into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// For the script: what is shown of all events, what repeats once.
///
/// `{"start": ms, "kinds": […], "protos": […], "owners": [[[name, value], …], …],
/// "rows": [[id, µs since the start, kind, failed, proto, pid, comm, owner, local, remote, details], …]}`
pub fn json(events: &[(i64, Event)]) -> String {
    let start = events.iter().map(|(_, event)| event.ts).min().unwrap_or(0) / 1_000_000;
    let mut owners: HashMap<Owner, usize> = HashMap::new();
    let mut listed: Vec<Owner> = Vec::new();
    let mut protos: Vec<&str> = Vec::new();
    let mut rows = Vec::new();
    for (id, event) in events {
        let cells = cells(*id, event);
        let proto = protos
            .iter()
            .position(|x| *x == cells.proto)
            .unwrap_or_else(|| {
                protos.push(cells.proto);
                protos.len() - 1
            });
        let owner = owner(event);
        let owner = *owners.entry(owner).or_insert_with_key(|owner| {
            listed.push(owner.clone());
            listed.len() - 1
        });
        rows.push(json!([
            cells.id,
            cells.ts / 1000 - start * 1000,
            cells.kind as u8,
            u8::from(cells.failed),
            proto,
            cells.pid,
            cells.comm,
            owner,
            cells.local,
            cells.remote,
            cells.details,
        ]));
    }
    let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    let all =
        json!({"start": start, "kinds": kinds, "protos": protos, "owners": listed, "rows": rows});
    inert(&all)
}

/// JSON that neither HTML nor a script takes for anything else: inside of strings, where alone these
/// characters can be, an escape stands for the same.
fn inert(value: &Value) -> String {
    let json = value.to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}
