//! Everything about one port: the output of `who`.

mod json;
mod verdict;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use crate::errno;
use crate::event::{Context, Event, Field, Peer, Proto};
use crate::group;
use crate::port::{Bind, Question, Report, Rules, unique};
use crate::row::{Column, Row, State};
use crate::sanitize;
use crate::view::human;
use crate::view::lines::text::put_value;
use crate::view::rows::Style;
use crate::view::time;

/// Most peers and clients listed one by one.
const MOST: usize = 8;

/// All there is to say.
pub struct Answer<'a> {
    pub question: Question,
    pub rules: Rules,
    pub reports: Vec<Report<'a>>,
    /// Start of processes by pid, in nanoseconds since the Unix epoch.
    pub started: HashMap<u32, u64>,
    /// What could not be seen.
    pub limits: &'a [String],
    /// Of a session.
    pub past: Option<Past>,
}

/// What a session tells besides.
pub struct Past {
    /// The moment, in nanoseconds since the Unix epoch.
    pub at: u64,
    /// Binds, listens and ends before it, the last one last.
    pub history: Vec<Event>,
}

impl Answer<'_> {
    /// The answer in its first lines, the verdict in its last.
    pub fn text(&self, style: &Style) -> String {
        let mut out = String::new();
        for report in &self.reports {
            for server in &report.servers {
                self.put_server(&mut out, report.proto, server, style);
            }
            if report.servers.is_empty() {
                self.put_no_server(&mut out, report);
            }
            put_connections(&mut out, report, style);
            for bind in &report.binds {
                put_bind(&mut out, bind);
            }
        }
        if let Some(past) = &self.past {
            put_history(&mut out, &past.history, style);
        }
        for remark in words::remarks(&self.question, &self.rules) {
            let _ = writeln!(out, "note: {remark}");
        }
        let _ = writeln!(out, "verdict: {}", self.verdict());
        out
    }

    /// What would become of a bind, of all protocols in one sentence.
    pub fn verdict(&self) -> String {
        let Self {
            question, rules, ..
        } = self;
        let verdicts = |place: &dyn Fn(&Report<'_>) -> String| -> Vec<String> {
            let verdict = |x: &Report<'_>| verdict::verdict(x, &place(x), question, rules);
            self.reports.iter().map(verdict).collect()
        };
        let mut same = verdicts(&|_| words::place(question, "tcp+udp"));
        same.dedup();
        match &same[..] {
            [one] if self.reports.len() > 1 => one.clone(),
            _ => verdicts(&|x| words::place(question, x.proto.as_str())).join("; "),
        }
    }

    fn put_no_server(&self, out: &mut String, report: &Report<'_>) {
        let place = words::place(&self.question, report.proto.as_str());
        let others = report.others.iter();
        let here = others.filter(|row| row.event.netns == self.question.netns);
        let _ = match here.count() {
            0 if self.rules.unseen.is_some() || words::lately(report) => {
                writeln!(out, "{place}: nobody is known to have it")
            }
            0 if report.others.is_empty() => writeln!(out, "{place}: free, nobody has it"),
            0 => writeln!(out, "{place}: free here, nobody has it"),
            count => writeln!(
                out,
                "{place}: nobody {}, but {} it",
                verb(report.proto),
                others_have(count)
            ),
        };
    }

    /// Who it is and where, then more on the process, a line each.
    fn put_server(&self, out: &mut String, proto: Proto, row: &Row, style: &Style) {
        let event = &row.event;
        let nobody = Context::default();
        let context = event.context.as_deref().unwrap_or(&nobody);
        // Writing to a String cannot fail.
        let _ = write!(out, "{}/{proto}: ", self.question.port);
        match (event.comm, event.pid) {
            (Some(comm), Some(pid)) => {
                sanitize::push(out, comm.bytes());
                let _ = write!(out, " (pid {pid}");
                put_user(out, row, style);
                out.push(')');
            }
            _ => out.push_str(&words::holder(row)),
        }
        let _ = write!(out, " {} on {}", verb(proto), words::local(row));
        if let Some(container) = &context.container {
            out.push_str(" in container ");
            sanitize::push_str(out, container);
        }
        out.push_str(&elsewhere(event.netns, style));
        let started = event.pid.and_then(|pid| self.started.get(&pid));
        match (row.since, started) {
            (Some(since), _) => {
                let _ = write!(out, " since {}", time::full(since, style.now, &style.zone));
            }
            (None, Some(start)) => {
                let start = time::full(*start, style.now, &style.zone);
                let _ = write!(out, ", running since {start}");
            }
            (None, None) => {}
        }
        out.push('\n');
        for (name, field) in [
            ("command", Field::Args),
            ("program", Field::Exe),
            ("unit", Field::Unit),
        ] {
            if let Some(value) = event.value(field) {
                put_name(out, name);
                put_value(out, Some(value));
                out.push('\n');
            }
        }
        if let Some(parents) = context.parents.as_deref().filter(|x| !x.is_empty()) {
            put_name(out, "parents");
            put_peers(out, parents.iter(), " < ");
        }
        let mut others = group::processes(event);
        others.retain(|x| Some(x.pid) != event.pid);
        if !others.is_empty() {
            put_name(out, "also open in");
            put_peers(out, others.into_iter(), ", ");
        }
        if group::is_group(row) {
            put_name(out, "shared");
            // Who has a process now may be another than who opened its socket.
            out.push_str(match proto {
                Proto::Udp => {
                    "by several sockets with SO_REUSEPORT or SO_REUSEADDR: others that set it may join, \
                     with SO_REUSEPORT only those that the same user opens\n"
                }
                _ => {
                    "by several sockets with SO_REUSEPORT: others that set it may join if the same user \
                     opens them\n"
                }
            });
        }
        if let (State::Listen, Some(waiting)) = (row.state, row.recv_queue) {
            put_name(out, "queue");
            let _ = match event.backlog {
                Some(backlog) => writeln!(out, "{waiting} of {backlog} wait to be accepted"),
                None => writeln!(out, "{waiting} wait to be accepted"),
            };
        }
        if let Some(note) = row.value(Column::Note) {
            put_name(out, "unusual");
            put_value(out, Some(note));
            out.push('\n');
        }
    }
}

/// Behind what is in a network namespace: which, unless it is this one.
fn elsewhere(netns: Option<u32>, style: &Style) -> String {
    let Some(other) = netns.filter(|_| netns != style.netns) else {
        return String::new();
    };
    let name = match style.netns_names.get(&other) {
        Some(name) => sanitize::string(name),
        None => other.to_string(),
    };
    format!(" in another network namespace ({name})")
}

fn put_user(out: &mut String, row: &Row, style: &Style) {
    let user = row.event.value(Field::User).filter(|_| !style.numeric);
    if let Some(user) = user.or_else(|| row.event.value(Field::Uid)) {
        out.push_str(", user ");
        put_value(out, Some(user));
    }
}

/// The beginning of a line that belongs to the one above.
fn put_name(out: &mut String, name: &str) {
    let _ = write!(out, "  {name:<13}");
}

/// Processes, and the end of the line.
fn put_peers<'a>(out: &mut String, peers: impl Iterator<Item = &'a Peer>, separator: &str) {
    for (i, peer) in peers.enumerate() {
        if i > 0 {
            out.push_str(separator);
        }
        sanitize::push_str(out, &peer.comm);
        let _ = write!(out, "({})", peer.pid);
    }
    out.push('\n');
}

fn put_connections(out: &mut String, report: &Report<'_>, style: &Style) {
    put_list(out, "sockets", states(report, style.netns));
    // The busiest first, but before all others those of this namespace.
    let mut peers = report.peers();
    peers.sort_by_key(|((netns, _), _)| *netns != style.netns);
    let peers = peers.into_iter().map(|((netns, addr), count)| {
        let place = elsewhere(netns, style);
        format!("{} ({count}){place}", words::text(addr))
    });
    put_list(out, "peers", peers.collect());
    let mut clients = report.clients();
    clients.sort_by_key(|(client, _)| client.netns != style.netns);
    let clients = clients.into_iter().map(|(client, count)| {
        let who = match (client.comm, client.pid) {
            (Some(comm), Some(pid)) => format!("{}({pid})", sanitize::string(&comm)),
            _ => words::somebody(client.user.as_deref(), client.uid),
        };
        let times = match count {
            1 => String::new(),
            many => format!(" x{many}"),
        };
        let place = elsewhere(client.netns, style);
        format!("{who} to {}{times}{place}", words::text(client.raddr))
    });
    put_list(out, "clients here", clients.collect());
}

/// How many sockets are in which state: in this namespace, then in all others together.
fn states(report: &Report<'_>, netns: Option<u32>) -> Vec<String> {
    let states = report.states();
    let others = states.iter().map(|x| x.0).filter(|&of| of != netns);
    let elsewhere = match unique(others).len() {
        1 => " in another namespace",
        _ => " in other namespaces",
    };
    let mut counts = BTreeMap::new();
    for (of, state, count) in states {
        *counts.entry((of != netns, state)).or_insert(0) += count;
    }
    (counts.into_iter())
        .map(|((other, state), count)| {
            let place = if other { elsewhere } else { "" };
            format!("{count} {state}{place}")
        })
        .collect()
}

/// A line of the first of some things, and how many more there are.
fn put_list(out: &mut String, name: &str, items: Vec<String>) {
    if items.is_empty() {
        return;
    }
    put_name(out, name);
    out.push_str(&items[..items.len().min(MOST)].join(", "));
    if items.len() > MOST {
        let _ = write!(out, " and {} more", items.len() - MOST);
    }
    out.push('\n');
}

/// What would become of a bind, when it would not succeed.
fn put_bind(out: &mut String, bind: &Bind<'_>) {
    let Some(error) = bind.error() else { return };
    put_name(out, "bind");
    let perhaps = match bind.only_if(false).is_empty() {
        true => "",
        false => "perhaps ",
    };
    let place = words::bound(bind.attempt.addr, bind.attempt.device);
    let _ = write!(out, "{place}: {perhaps}{error}");
    if let Some(why) = bind.refused() {
        let _ = writeln!(out, " ({why})");
        return;
    }
    let hard = bind.obstacles.iter().filter(|x| x.hard);
    let (mut told, obstacles): (&str, Vec<_>) = match hard.clone().next() {
        Some(_) => ("", hard.collect()),
        None => (
            " unless both set SO_REUSEADDR",
            bind.obstacles.iter().collect(),
        ),
    };
    if bind.denied {
        told = "";
    }
    out.push_str(told);
    let reasons = obstacles.iter().map(|obstacle| {
        format!(
            "{} of {} on {}, {}",
            obstacle.row.state,
            words::holder(obstacle.row),
            words::local(obstacle.row),
            words::reason(obstacle)
        )
    });
    let mut reasons: Vec<String> = reasons.collect();
    reasons.dedup();
    reasons.extend((!bind.left.is_empty() && !bind.is_taken()).then(|| words::LEFT.to_owned()));
    for (i, reason) in reasons.iter().take(MOST).enumerate() {
        out.push_str(if i == 0 { " (" } else { "; " });
        out.push_str(reason);
    }
    match reasons.len() {
        0 => {}
        many if many > MOST => {
            let _ = write!(out, "; {} more)", many - MOST);
        }
        _ => out.push(')'),
    }
    out.push('\n');
}

/// A line for each, in their order.
fn put_history(out: &mut String, history: &[Event], style: &Style) {
    if !history.is_empty() {
        out.push_str("before, on this port:\n");
    }
    for event in history {
        let at = time::dated(event.ts, &style.zone);
        let addr = event.laddr.map_or("?".to_owned(), words::text);
        let proto = event.proto.map_or("?", Proto::as_str);
        let ms = event.ts / 1_000_000 % 1_000;
        let _ = write!(out, "  {at}.{ms:03} {:<6} {proto} {addr}", event.kind);
        if let Some(error) = event.error {
            let _ = write!(out, " {}", errno::name(error));
        }
        if let (Some(comm), Some(pid)) = (event.comm, event.pid) {
            out.push_str(" by ");
            sanitize::push(out, comm.bytes());
            let _ = write!(out, "({pid})");
        }
        if let Some(us) = event.duration_us {
            out.push_str(", open for ");
            human::push_us(out, us);
        }
        match event.holders.as_deref() {
            Some(holders) if !holders.is_empty() => {
                out.push_str(", held by ");
                put_peers(out, holders.iter(), ", ");
            }
            _ => out.push('\n'),
        }
    }
}

fn verb(proto: Proto) -> &'static str {
    match proto {
        Proto::Udp => "receives",
        _ => "listens",
    }
}

fn others_have(count: usize) -> String {
    match count {
        1 => "1 other socket has".to_owned(),
        many => format!("{many} other sockets have"),
    }
}

#[cfg(test)]
mod tests;
