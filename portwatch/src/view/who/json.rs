//! The answer as one JSON object.

use serde_json::{Map, Value, json};

use super::{Answer, MOST};
use super::{verdict, words};
use crate::event::{Event, Field};
use crate::port::{Bind, Client, Report};
use crate::row::{Column, Row};
use crate::view::json::put_json;
use crate::view::lines::Json;
use crate::view::rows::put_object;
use crate::view::time::Utc;

impl Answer<'_> {
    /// Appends the same as one object on a line; the keys are documented by `who --help`.
    pub fn put_json(&self, out: &mut Vec<u8>) {
        let mut json = present(json!({
            "port": self.question.port,
            "netns": self.question.netns,
            "protocols": self.reports.iter().map(|x| self.report(x)).collect::<Value>(),
            "remarks": words::remarks(&self.question, &self.rules),
            "limits": self.limits,
        }));
        if let Some(addr) = self.question.addr {
            json["addr"] = addr.to_string().into();
        }
        if let Some(device) = self.question.device {
            json["device"] = device.text().into();
        }
        if let Some(past) = &self.past {
            json["at"] = Utc::text(past.at).into();
            json["history"] = past.history.iter().map(happened).collect();
        }
        // Escaped as in all JSON here, so that a terminal can show it.
        put_json(out, &json);
        out.push(b'\n');
    }

    fn report(&self, report: &Report<'_>) -> Value {
        let states = report.states().into_iter().map(|(netns, state, count)| {
            present(json!({"netns": netns, "state": state.as_str(), "count": count}))
        });
        let peers = (report.peers().into_iter()).map(|((netns, addr), count)| {
            present(json!({"netns": netns, "raddr": addr.to_string(), "count": count}))
        });
        let clients = report.clients().into_iter().map(|(client, count)| {
            let Client {
                pid,
                comm,
                uid,
                user,
                netns,
                raddr,
            } = client;
            let raddr = raddr.to_string();
            present(
                json!({"netns": netns, "pid": pid, "comm": comm, "uid": uid, "user": user, "raddr": raddr, "count": count}),
            )
        });
        // Where others may have it unseen, no bind is known to succeed.
        let all = self.rules.unseen.is_none();
        let fails = |x: &&Bind<'_>| x.is_taken() && x.only_if(false).is_empty();
        let binds = (report.binds.iter()).filter(|x| all || fails(x));
        json!({
            "proto": report.proto.as_str(),
            "servers": report.servers.iter().map(|x| self.server(x)).collect::<Value>(),
            "states": states.collect::<Value>(),
            "peers": peers.collect::<Value>(),
            "clients": clients.collect::<Value>(),
            "binds": binds.map(bind).collect::<Value>(),
            "verdict": verdict::verdict(
                report,
                &words::place(&self.question, report.proto.as_str()),
                &self.question,
                &self.rules,
            ),
        })
    }

    fn server(&self, row: &Row) -> Value {
        let mut value = object(row, Column::ALL);
        if let Some(start) = row.event.pid.and_then(|pid| self.started.get(&pid)) {
            value["started"] = Utc::text(*start).into();
        }
        value
    }
}

/// A row as a JSON value.
fn object(row: &Row, columns: &[Column]) -> Value {
    let mut text = Vec::new();
    put_object(&mut text, &mut Utc::default(), row, columns);
    // It was just written as JSON.
    serde_json::from_slice(&text).unwrap_or_default()
}

/// An event as a JSON value. Its number says nothing here.
fn happened(event: &Event) -> Value {
    let fields = Field::ALL.iter().copied().filter(|&x| x != Field::Seq);
    let mut text = Vec::new();
    Json::new(Some(fields.collect())).event(&mut text, event);
    // It was just written as JSON.
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The object without what is absent.
fn present(mut json: Value) -> Value {
    if let Value::Object(members) = &mut json {
        members.retain(|_, value| !value.is_null());
    }
    json
}

fn bind(bind: &Bind<'_>) -> Value {
    const WHO: &[Column] = &[
        Column::Event(Field::Laddr),
        Column::Device,
        Column::State,
        Column::Event(Field::Pid),
        Column::Event(Field::Comm),
    ];
    let obstacles = bind.obstacles.iter().take(MOST).map(|obstacle| {
        let mut value = object(obstacle.row, WHO);
        value["why"] = words::reason(obstacle).into();
        value
    });
    let mut json = Map::new();
    json.insert("laddr".into(), bind.attempt.addr.to_string().into());
    if let Some(error) = bind.error() {
        for (key, reuse) in [("error", false), ("error_with_reuseaddr", true)] {
            json.insert(key.into(), error.into());
            let conditions = bind.only_if(reuse);
            if !conditions.is_empty() {
                json.insert(format!("{key}_if"), conditions.into());
            }
        }
    }
    json.insert("obstacles".into(), obstacles.collect());
    json.into()
}
