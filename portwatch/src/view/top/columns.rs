//! The columns of the two tables: what they say, how wide they are, and how rows are sorted by them.

use std::net::IpAddr;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::errno;
use crate::event::{Origin, Proto};
use crate::row::{Row, State};
use crate::sanitize;
use crate::service;
use crate::table::{Compact, Sight};
use crate::view::human;

use super::Look;
use super::line::Line;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Proto,
    State,
    Local,
    Remote,
    Pid,
    Comm,
    Queue,
    Accepted,
    Age,
    Rx,
    Tx,
    Rtt,
    Took,
    Retrans,
    User,
    Service,
    Place,
}

/// Those that are there at 80 columns come first, in the order of importance.
pub const LISTENERS: &[Column] = {
    use Column::*;
    &[
        Proto, Local, Pid, Comm, Queue, Accepted, Age, User, Service, Place,
    ]
};
pub const CONNECTIONS: &[Column] = {
    use Column::*;
    &[
        Proto, State, Local, Remote, Pid, Comm, Age, Rx, Tx, Rtt, Took, Retrans, User, Place,
    ]
};
/// That many of both are essential: wider values of them come before more columns.
const ESSENTIAL: usize = 7;

/// Sorts as the value does.
pub type Rank = (u64, u128);

impl Column {
    pub fn title(self) -> &'static str {
        match self {
            Column::Proto => "PROTO",
            Column::State => "STATE",
            Column::Local => "LOCAL",
            Column::Remote => "REMOTE",
            Column::Pid => "PID",
            Column::Comm => "COMM",
            Column::Queue => "QUEUE",
            Column::Accepted => "ACCEPTED",
            Column::Age => "AGE",
            Column::Rx => "RX",
            Column::Tx => "TX",
            Column::Rtt => "RTT",
            Column::Took => "LATENCY",
            Column::Retrans => "RETR",
            Column::User => "USER",
            Column::Service => "SERVICE",
            Column::Place => "WHERE",
        }
    }

    /// Least, comfortable and greatest width.
    fn widths(self, pane: &[Column]) -> [usize; 3] {
        let alone = !pane.contains(&Column::Remote);
        match self {
            Column::Proto | Column::Retrans => [5; 3],
            Column::State => [12; 3],
            Column::Local if alone => [21, 21, 47],
            Column::Local | Column::Remote => [16, 21, 47],
            Column::Comm if alone => [15; 3],
            Column::Comm => [10, 15, 15],
            Column::Queue => [9; 3],
            Column::Accepted | Column::User => [8; 3],
            Column::Service => [12; 3],
            Column::Place => [14; 3],
            _ => [7; 3],
        }
    }

    pub fn is_right(self) -> bool {
        use Column::*;
        matches!(
            self,
            Pid | Queue | Accepted | Age | Rx | Tx | Rtt | Took | Retrans
        )
    }

    /// Whether the greatest is what one looks for.
    pub fn falls(self) -> bool {
        use Column::*;
        matches!(self, Queue | Accepted | Rx | Tx | Rtt | Took | Retrans)
    }

    /// `None` for what has no value: it comes last either way.
    pub fn rank(self, socket: &Compact) -> Option<Rank> {
        let number = |x: u64| (x, 0);
        let small = |x: u32| (u64::from(x), 0);
        match self {
            Column::Proto => socket.proto.map(|x| number(x as u64)),
            Column::State => Some(number(socket.state as u64)),
            Column::Local => Some((socket.lport?.into(), address(socket.laddr))),
            Column::Remote => Some((socket.rport?.into(), address(socket.raddr))),
            Column::Pid => socket.pid.get().map(small),
            Column::Comm => socket.comm.map(|x| words(x.bytes())),
            Column::Queue => socket.recv_queue.get().map(small),
            Column::Accepted => socket.accepted.get().map(small),
            // The youngest first. Of an attempt that failed only the moment is known, of what
            // was there at the start not even that.
            Column::Age => {
                let event = (socket.origin != Origin::Seed).then_some(socket.ts);
                let since = socket.since.get().or(event);
                since.map(|x| number(u64::MAX - x))
            }
            Column::Rx => socket.rx_bytes.get().map(number),
            Column::Tx => socket.tx_bytes.get().map(number),
            Column::Rtt => socket.rtt_us.get().map(small),
            Column::Took => socket.latency_us.get().map(number),
            Column::Retrans => socket.retrans.get().map(small),
            Column::User => {
                let name = socket.context.as_ref().and_then(|x| x.user.as_ref());
                let name = name.map(|x| words(x.as_bytes()));
                name.or(socket.uid.get().map(small))
            }
            Column::Service => {
                let name = service::name(socket.proto?, socket.lport?);
                name.map(|x| words(x.as_bytes()))
            }
            Column::Place => {
                let container = socket.context.as_ref().and_then(|x| x.container.as_ref());
                let container = container.map(|x| words(x.as_bytes()));
                container.or(socket.netns.get().map(small))
            }
        }
    }

    /// The value, harmless and short; empty when there is none.
    pub fn text(self, line: &Line, look: &Look, now: u64) -> String {
        let mut out = String::new();
        let Line { sight, row, others } = line;
        let event = &row.event;
        match self {
            Column::Proto => out.extend(event.proto.map(Proto::as_str)),
            Column::State => put_state(&mut out, sight, row),
            Column::Local => human::push_local(&mut out, event.laddr, row.device, event.lport),
            Column::Remote => human::push_endpoint(&mut out, event.raddr, event.rport),
            Column::Pid => put_number(&mut out, event.pid),
            Column::Comm => {
                if let Some(comm) = &event.comm {
                    human::push_comm(&mut out, comm);
                }
                if *others > 0 {
                    let mark = format!(" +{others}");
                    let [.., room] = self.widths(LISTENERS);
                    out = cut(self, &out, room.saturating_sub(mark.len())) + &mark;
                }
            }
            Column::Queue => put_queue(&mut out, sight, row),
            Column::Accepted => put_number(&mut out, event.accepted),
            Column::Age => put_age(&mut out, sight, row, now),
            Column::Rx => put_bytes(&mut out, event.rx_bytes),
            Column::Tx => put_bytes(&mut out, event.tx_bytes),
            Column::Rtt => put_us(&mut out, event.rtt_us.map(u64::from)),
            Column::Took => put_us(&mut out, event.latency_us),
            Column::Retrans => put_number(&mut out, event.retrans.filter(|&x| x > 0)),
            Column::User => {
                let name = event.context.as_ref().and_then(|x| x.user.as_ref());
                match name.filter(|_| !look.numeric) {
                    Some(name) => sanitize::push_str(&mut out, name),
                    None => put_number(&mut out, event.uid),
                }
            }
            Column::Service => {
                let name = event.service.filter(|_| !look.numeric);
                sanitize::push_str(&mut out, name.unwrap_or_default());
            }
            Column::Place => human::push_place(&mut out, event, look.netns, &look.netns_names),
        }
        out
    }
}

/// What of the columns of a pane fits into a width, and how wide each of them is then.
pub fn fit(pane: &[Column], width: usize) -> Vec<(Column, usize)> {
    let mut left = width;
    let mut shown: Vec<(Column, usize)> = Vec::new();
    let add = |columns: &[Column], shown: &mut Vec<(Column, usize)>, left: &mut usize| {
        for &column in columns {
            let gap = usize::from(!shown.is_empty());
            let least = column.widths(pane)[0];
            let Some(rest) = left.checked_sub(least + gap) else {
                return;
            };
            *left = rest;
            shown.push((column, least));
        }
    };
    let grow = |to: usize, shown: &mut Vec<(Column, usize)>, left: &mut usize| {
        for (column, width) in shown {
            let more = column.widths(pane)[to].saturating_sub(*width).min(*left);
            *width += more;
            *left -= more;
        }
    };
    let (essential, others) = pane.split_at(ESSENTIAL.min(pane.len()));
    add(essential, &mut shown, &mut left);
    grow(1, &mut shown, &mut left);
    if shown.len() == essential.len() {
        add(others, &mut shown, &mut left);
    }
    grow(2, &mut shown, &mut left);
    shown
}

/// Text in at most this many columns of the screen. Of an endpoint the port stays.
pub fn cut(column: Column, text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let tail = match column {
        Column::Local | Column::Remote => text.rfind(':').map_or("", |at| &text[at..]),
        _ => "",
    };
    let tail = if tail.width() < width { tail } else { "" };
    let mut room = width.saturating_sub(tail.width() + 1);
    let mut out = String::new();
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if wide > room {
            break;
        }
        room -= wide;
        out.push(c);
    }
    if width > 0 {
        out.push('…');
    }
    out + tail
}

fn address(address: Option<IpAddr>) -> u128 {
    match address {
        None => 0,
        Some(IpAddr::V4(address)) => address.to_bits().into(),
        Some(IpAddr::V6(address)) => address.to_bits(),
    }
}

/// By the first 16 bytes.
fn words(text: &[u8]) -> Rank {
    let mut bytes = [0; 16];
    let length = text.len().min(16);
    bytes[..length].copy_from_slice(&text[..length]);
    (0, u128::from_be_bytes(bytes))
}

fn put_number(out: &mut String, number: Option<u32>) {
    if let Some(number) = number {
        out.push_str(itoa::Buffer::new().format(number));
    }
}

fn put_bytes(out: &mut String, bytes: Option<u64>) {
    if let Some(bytes) = bytes {
        human::push_bytes(out, bytes);
    }
}

fn put_us(out: &mut String, us: Option<u64>) {
    if let Some(us) = us {
        human::push_us(out, us);
    }
}

/// The state, or how it ended.
pub fn put_state(out: &mut String, sight: &Sight, row: &Row) {
    match (sight.end, row.event.error, row.event.cause) {
        (None, ..) => out.push_str(row.state.as_str()),
        (Some(_), Some(error), _) => out.push_str(&errno::name(error)),
        (Some(_), None, Some(cause)) => {
            out.push_str("end:");
            out.push_str(cause.as_str());
        }
        (Some(_), None, None) => out.push_str("closed"),
    }
}

/// Connections that wait, of how many may; what is no tcp listener says what it is.
fn put_queue(out: &mut String, sight: &Sight, row: &Row) {
    if sight.end.is_some() {
        out.push_str("closed");
        return;
    }
    match (row.state, row.event.backlog) {
        (State::Listen, backlog) => {
            put_number(out, row.recv_queue);
            if row.recv_queue.is_none() {
                out.push('?');
            }
            if backlog.is_some() {
                out.push('/');
            }
            put_number(out, backlog);
        }
        (_, _) if row.event.proto == Some(Proto::Udp) => put_number(out, row.recv_queue),
        _ => out.push_str("bound"),
    }
}

/// Since when, in whole seconds; of what is closed, how long it had been open.
fn put_age(out: &mut String, sight: &Sight, row: &Row, now: u64) {
    let lived = |end: u64| row.since.map(|since| end.saturating_sub(since) / 1_000);
    if let Some(end) = sight.end {
        return put_us(out, row.event.duration_us.or_else(|| lived(end.at)));
    }
    match lived(now).map(|us| us / 1_000_000) {
        Some(seconds @ 0..60) => {
            put_number(out, u32::try_from(seconds).ok());
            out.push('s');
        }
        Some(seconds) => human::push_us(out, seconds * 1_000_000),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_and_more_come_with_more_room() {
        let total = |shown: &[(Column, usize)]| {
            shown.iter().map(|(_, width)| width).sum::<usize>() + shown.len().saturating_sub(1)
        };
        for pane in [LISTENERS, CONNECTIONS] {
            let mut before = 0;
            for width in 0..300 {
                let shown = fit(pane, width);
                assert!(total(&shown) <= width);
                assert!(shown.len() >= before, "{width}");
                before = shown.len();
            }
            assert_eq!(fit(pane, 80).len(), ESSENTIAL);
            assert_eq!(before, pane.len());
        }
    }

    #[test]
    fn what_is_cut_says_so_and_keeps_the_port() {
        for (column, text, width, expected) in [
            (Column::Comm, "nginx", 5, "nginx"),
            (Column::Comm, "nginx", 4, "ngi…"),
            (Column::Comm, "nginx", 0, ""),
            (Column::Comm, "日本語", 5, "日本…"),
            (Column::Comm, "日本語", 4, "日…"),
            (Column::Local, "[2001:db8::1]:443", 12, "[2001:d…:443"),
            (Column::Local, "192.0.2.1:443", 3, "19…"),
        ] {
            let got = cut(column, text, width);
            assert_eq!(got, expected);
            assert!(got.width() <= width);
        }
    }
}
