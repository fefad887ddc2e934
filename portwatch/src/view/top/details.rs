//! Everything about one socket: its process, its numbers, and the history of its port.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

use crate::errno;
use crate::event::{Kind, Peer};
use crate::group;
use crate::row::Row;
use crate::sanitize;
use crate::table::{Key, Sight, Table};
use crate::view::human;
use crate::view::lines::details::{put_peers, put_words};
use crate::view::time::full;

use super::columns::put_state;
use super::line::Groups;
use super::{Look, Scene};

/// The socket that is looked at, or several that share an address. They stay in sight after the table
/// has forgotten them.
#[derive(Debug)]
pub struct Details {
    /// The first that is still there stands for all.
    keys: Vec<Key>,
    others: usize,
    row: Row,
    state: String,
    /// First line in sight.
    pub top: usize,
}

/// Width of the names.
const NAMES: usize = 11;

impl Details {
    pub fn new(sight: Sight, table: &Table, groups: &Groups) -> Self {
        let mut details = Self {
            keys: Vec::new(),
            others: 0,
            row: sight.row(),
            state: String::new(),
            top: 0,
        };
        details.see(sight, table, groups);
        details
    }

    /// What is known now.
    pub fn update(&mut self, scene: &Scene, groups: &Groups) {
        let table = &scene.table;
        let open = |&key: &Key| table.get(key).filter(|sight| sight.end.is_none());
        let sight = (self.keys.iter())
            .find_map(open)
            .and_then(|sight| table.get(groups.first_of(sight.key)))
            .or_else(|| table.get(*self.keys.first()?));
        match sight {
            Some(sight) => self.see(sight, table, groups),
            None if self.state.ends_with(FORGOTTEN) => {}
            None => self.state.push_str(FORGOTTEN),
        }
    }

    fn see(&mut self, sight: Sight, table: &Table, groups: &Groups) {
        self.keys = vec![sight.key];
        self.keys.extend(groups.others_of(sight));
        let line = groups.line(sight, table);
        (self.row, self.others) = (line.row, line.others);
        self.state.clear();
        if line.sight.end.is_some() {
            let _ = write!(self.state, "{}, closed: ", self.row.state);
        }
        put_state(&mut self.state, &line.sight, &self.row);
    }

    /// As lines of at most this width.
    pub fn lines(&self, scene: &Scene, look: &Look, now: u64, width: usize) -> Vec<String> {
        let mut list = Names(Vec::new());
        self.socket(&mut list, look, now);
        self.process(&mut list);
        self.numbers(&mut list);
        let mut lines: Vec<String> = (list.0.iter())
            .flat_map(|(name, value)| wrap(name, value, width))
            .collect();
        if let Some(port) = self.row.event.lport {
            let past = scene.table.history().of(self.row.event.netns, port);
            lines.push(String::new());
            lines.push(format!("history of port {port}, the latest first"));
            let before = lines.len();
            for past in past.rev() {
                let mut line = format!("  {} {}", full(past.ts, now, &look.zone), past.kind);
                if let Some(error) = past.error {
                    let _ = write!(line, " failed: {}", errno::name(error));
                }
                if let Some(us) = past.duration_us.filter(|_| past.kind == Kind::Close) {
                    line.push_str(" after ");
                    human::push_us(&mut line, us);
                }
                line.push_str(", ");
                match (&past.comm, past.pid) {
                    (Some(comm), Some(pid)) => {
                        sanitize::push(&mut line, comm.bytes());
                        let _ = write!(line, "({pid})");
                    }
                    _ => line.push_str("by nobody known"),
                }
                lines.push(line);
            }
            if lines.len() == before {
                let nothing = match &scene.status.play {
                    // It begins with a checkpoint.
                    Some(_) => "  nothing shortly before this moment",
                    None if scene.table.history().has_forgotten() => "  nothing remembered",
                    None => "  nothing since portwatch runs",
                };
                lines.push(nothing.to_owned());
            }
        }
        lines
    }

    fn socket(&self, list: &mut Names, look: &Look, now: u64) {
        let event = &self.row.event;
        let mut socket = String::new();
        socket.extend(event.proto.map(|x| x.as_str()));
        for (addr, device, port) in [
            (event.laddr, self.row.device, event.lport),
            (event.raddr, None, event.rport),
        ] {
            if port.is_some() {
                socket.push(' ');
                human::push_local(&mut socket, addr, device, port);
            }
        }
        list.put("socket", socket);
        list.put("state", self.state.clone());
        if self.others > 0 {
            list.put("sockets", format!("{} share the address", self.others + 1));
        }
        list.text("service", event.service);
        list.maybe("since", self.row.since.map(|x| full(x, now, &look.zone)));
        let namespace = |netns: u32| match look.netns_name(Some(netns)) {
            Some(name) => format!("{} ({netns})", sanitize::string(name)),
            None => netns.to_string(),
        };
        list.maybe("namespace", event.netns.map(namespace));
        list.maybe("cookie", event.sock.map(|x| x.to_string()));
    }

    fn process(&self, list: &mut Names) {
        let event = &self.row.event;
        let process = match (&event.comm, event.pid) {
            (Some(comm), Some(pid)) => format!("{}({pid})", sanitize::text(comm.bytes())),
            _ => "nobody known".to_owned(),
        };
        list.put("process", process);
        let context = event.context.as_deref().cloned().unwrap_or_default();
        list.text("exe", context.exe.as_deref());
        list.maybe(
            "args",
            context.args.map(|args| {
                let mut out = String::new();
                put_words(&mut out, &args);
                out
            }),
        );
        let uid = event.uid.map(|uid| uid.to_string());
        list.text("user", context.user.as_deref().or(uid.as_deref()));
        list.maybe("parents", context.parents.as_ref().map(peers));
        list.text("container", context.container.as_deref());
        list.text("unit", context.unit.as_deref());
        list.text("cgroup", context.cgroup.as_deref());
        list.put("held by", peers(group::processes(event)));
    }

    fn numbers(&self, list: &mut Names) {
        let event = &self.row.event;
        let number = |x: u32| x.to_string();
        let us = |us: u64| {
            let mut out = String::new();
            human::push_us(&mut out, us);
            out
        };
        let bytes = |bytes: u64| {
            let mut out = String::new();
            human::push_bytes(&mut out, bytes);
            out
        };
        list.maybe("backlog", event.backlog.map(number));
        list.maybe("queue", self.row.recv_queue.map(number));
        list.maybe("accepted", event.accepted.map(number));
        let waited = if event.kind == Kind::Accept {
            "waited"
        } else {
            "handshake"
        };
        list.maybe(waited, event.latency_us.map(us));
        list.maybe("open for", event.duration_us.map(us));
        list.maybe("received", event.rx_bytes.map(bytes));
        list.maybe("sent", event.tx_bytes.map(bytes));
        list.maybe("rtt", event.rtt_us.map(|x| us(x.into())));
        list.maybe("retransmits", event.retrans.map(number));
    }
}

const FORGOTTEN: &str = " (gone)";

/// Names with harmless values.
struct Names(Vec<(&'static str, String)>);

impl Names {
    fn put(&mut self, name: &'static str, value: String) {
        if !value.is_empty() {
            self.0.push((name, value));
        }
    }

    fn maybe(&mut self, name: &'static str, value: Option<String>) {
        self.put(name, value.unwrap_or_default());
    }

    /// Text from outside.
    fn text(&mut self, name: &'static str, value: Option<&str>) {
        self.put(name, sanitize::string(value.unwrap_or_default()));
    }
}

/// Processes with what is between them.
fn peers<'a>(peers: impl IntoIterator<Item = &'a Peer>) -> String {
    let mut out = String::new();
    put_peers(&mut out, peers);
    out.replace(',', ", ")
}

/// A name and its value, which goes on below where it began.
fn wrap(name: &str, value: &str, width: usize) -> Vec<String> {
    let mut lines = vec![format!("{name:NAMES$} ")];
    let mut used = NAMES + 1;
    for c in value.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide > width && used > NAMES + 1 {
            lines.push(" ".repeat(NAMES + 1));
            used = NAMES + 1;
        }
        used += wide;
        if let Some(line) = lines.last_mut() {
            line.push(c);
        }
    }
    lines
}
