//! What an expression of `--filter` can be about: events and rows, and one of each in which nothing is
//! absent, on which expressions are tried.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::device::Device;
use crate::event::{self, Event, Field, Kind, Origin, Peer, Value};
use crate::row::{Column, Row, State};

/// What an expression can be about.
pub trait Subject: Sync {
    /// Its names, in the order of output.
    fn columns() -> Vec<Column>;
    /// Value of one of its columns; `None` when absent.
    fn value(&self, column: Column) -> Option<Value<'_>>;
    /// One in which nothing is absent.
    fn sample() -> Self;
}

impl Subject for Event {
    fn columns() -> Vec<Column> {
        // Numbered is what passes the filter.
        let fields = Field::ALL.iter().filter(|field| **field != Field::Seq);
        fields.copied().map(Column::Event).collect()
    }

    fn value(&self, column: Column) -> Option<Value<'_>> {
        match column {
            Column::Event(field) => self.value(field),
            _ => None,
        }
    }

    fn sample() -> Self {
        sample()
    }
}

impl Subject for Row {
    fn columns() -> Vec<Column> {
        Column::ALL.to_vec()
    }

    fn value(&self, column: Column) -> Option<Value<'_>> {
        self.value(column)
    }

    fn sample() -> Self {
        let sshd = Some("sshd".into());
        Row {
            // not on its port, which is worth a note
            event: Event {
                comm: sshd,
                inode: Some(1),
                ..sample()
            },
            state: State::Listen,
            device: Device::new(b"lo"),
            since: Some(1),
            recv_queue: Some(1),
            send_queue: Some(1),
            v6only: None,
        }
    }
}

/// An event in which nothing is absent.
fn sample() -> Event {
    let some_text = || Some("x".to_owned());
    let peers = || {
        Some(vec![Peer {
            pid: 1,
            comm: "x".into(),
            sock: Some(1),
        }])
    };
    let localhost = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Event {
        seq: 1,
        proto: Some(event::Proto::Tcp),
        family: Some(event::Family::Ipv4),
        laddr: localhost,
        lport: Some(1),
        raddr: localhost,
        rport: Some(1),
        sock: Some(1),
        netns: Some(1),
        pid: Some(1),
        tid: Some(1),
        ppid: Some(1),
        uid: Some(1),
        gid: Some(1),
        comm: Some(event::Comm([b'x'; 16])),
        context: Some(Arc::new(event::Context {
            exe: some_text(),
            args: Some(["x".into()].into()),
            user: some_text(),
            parents: peers(),
            cgroup: some_text(),
            container: some_text(),
            unit: some_text(),
        })),
        error: Some(libc::ECONNREFUSED as u16),
        backlog: Some(1),
        latency_us: Some(1),
        duration_us: Some(1),
        rx_bytes: Some(1),
        tx_bytes: Some(1),
        rtt_us: Some(1),
        retrans: Some(1),
        accepted: Some(1),
        cause: Some(event::Cause::Local),
        reason: Some("x"),
        holders: peers(),
        count: Some(1),
        service: Some("x"),
        ..Event::new(Kind::Connect, Origin::Live, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_has_every_field() {
        for &field in Field::ALL {
            assert!(sample().value(field).is_some(), "{field}");
        }
        for &column in Column::ALL {
            assert!(Row::sample().value(column).is_some(), "{}", column.as_str());
        }
    }
}
