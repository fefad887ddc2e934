//! A row in few bytes, as the table keeps it: 100,000 of them have to fit into a small part of 64 MiB.

use std::net::IpAddr;
use std::sync::Arc;

use crate::device::Device;
use crate::event::{Comm, Context, Event, Family, Kind, Origin, Peer, Proto};
use crate::row::{Row, State};
use crate::service;

/// A number that may be absent, in no more space than the number: the largest stands for absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Maybe<T>(T);

macro_rules! maybe {
    ($($number:ty)*) => { $(
        impl Maybe<$number> {
            pub fn get(self) -> Option<$number> {
                (self.0 != <$number>::MAX).then_some(self.0)
            }

            /// Takes over what is known.
            pub fn learn(&mut self, value: Option<$number>) {
                if let Some(value) = value {
                    *self = Self(value);
                }
            }
        }

        impl From<Option<$number>> for Maybe<$number> {
            fn from(value: Option<$number>) -> Self {
                Self(value.unwrap_or(<$number>::MAX))
            }
        }
    )* };
}
maybe!(u32 u64);

/// Shared by all sockets with the same holders.
pub type Holders = Arc<[Peer]>;

/// What [`Row`] tells of a socket that is open; text and lists are shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Compact {
    pub ts: u64,
    pub since: Maybe<u64>,
    pub sock: Maybe<u64>,
    pub inode: Maybe<u64>,
    pub latency_us: Maybe<u64>,
    pub rx_bytes: Maybe<u64>,
    pub tx_bytes: Maybe<u64>,
    pub context: Option<Arc<Context>>,
    pub holders: Option<Holders>,
    pub netns: Maybe<u32>,
    pub pid: Maybe<u32>,
    pub tid: Maybe<u32>,
    pub ppid: Maybe<u32>,
    pub uid: Maybe<u32>,
    pub gid: Maybe<u32>,
    pub backlog: Maybe<u32>,
    pub accepted: Maybe<u32>,
    pub rtt_us: Maybe<u32>,
    pub retrans: Maybe<u32>,
    pub recv_queue: Maybe<u32>,
    pub send_queue: Maybe<u32>,
    pub lport: Option<u16>,
    pub rport: Option<u16>,
    pub laddr: Option<IpAddr>,
    pub raddr: Option<IpAddr>,
    pub comm: Option<Comm>,
    pub kind: Kind,
    pub origin: Origin,
    pub proto: Option<Proto>,
    pub family: Option<Family>,
    pub state: State,
    pub device: Option<Device>,
    pub v6only: Option<bool>,
}

impl Compact {
    /// The socket that an event tells of, now in this state.
    pub fn new(event: &Event, state: State) -> Self {
        Self {
            ts: event.ts,
            since: None.into(),
            sock: event.sock.into(),
            inode: event.inode.into(),
            latency_us: event.latency_us.into(),
            rx_bytes: event.rx_bytes.into(),
            tx_bytes: event.tx_bytes.into(),
            context: event.context.clone(),
            holders: None,
            netns: event.netns.into(),
            pid: event.pid.into(),
            tid: event.tid.into(),
            ppid: event.ppid.into(),
            uid: event.uid.into(),
            gid: event.gid.into(),
            backlog: event.backlog.into(),
            accepted: event.accepted.into(),
            rtt_us: event.rtt_us.into(),
            retrans: event.retrans.into(),
            recv_queue: None.into(),
            send_queue: None.into(),
            lport: event.lport,
            rport: event.rport,
            laddr: event.laddr,
            raddr: event.raddr,
            comm: event.comm,
            kind: event.kind,
            origin: event.origin,
            proto: event.proto,
            family: event.family,
            state,
            device: None,
            v6only: None,
        }
    }

    /// A row of a snapshot; its holders come apart, to be shared.
    pub fn of_row(row: &Row, holders: Option<Holders>) -> Self {
        let mut compact = Self {
            since: row.since.into(),
            ..Self::new(&row.event, row.state)
        };
        compact.refresh(row, holders);
        compact
    }

    /// Takes over from a snapshot what no event tells.
    pub fn refresh(&mut self, row: &Row, holders: Option<Holders>) {
        self.inode = row.event.inode.into();
        self.device = row.device;
        self.v6only = row.v6only;
        self.recv_queue = row.recv_queue.into();
        self.send_queue = row.send_queue.into();
        self.rx_bytes.learn(row.event.rx_bytes);
        self.tx_bytes.learn(row.event.tx_bytes);
        self.rtt_us.learn(row.event.rtt_us);
        self.retrans.learn(row.event.retrans);
        self.holders = holders;
        if self.pid.get().is_none() {
            self.owner(&row.event);
        }
    }

    /// Takes the owner of this event for its own.
    pub fn owner(&mut self, event: &Event) {
        self.pid = event.pid.into();
        self.tid = event.tid.into();
        self.ppid = event.ppid.into();
        self.uid.learn(event.uid);
        self.gid.learn(event.gid);
        self.comm = event.comm;
        self.context = event.context.clone();
    }

    /// Whether it waits for others rather than talks to one: a listener, or just bound.
    pub fn is_listening(&self) -> bool {
        matches!(self.state, State::Listen | State::Unconn)
    }

    /// The whole row.
    pub fn row(&self) -> Row {
        let mut event = Event::new(self.kind, self.origin, self.ts);
        event.proto = self.proto;
        event.family = self.family;
        event.laddr = self.laddr;
        event.lport = self.lport;
        event.raddr = self.raddr;
        event.rport = self.rport;
        event.sock = self.sock.get();
        event.inode = self.inode.get();
        event.netns = self.netns.get();
        event.pid = self.pid.get();
        event.tid = self.tid.get();
        event.ppid = self.ppid.get();
        event.uid = self.uid.get();
        event.gid = self.gid.get();
        event.comm = self.comm;
        event.context = self.context.clone();
        event.backlog = self.backlog.get();
        event.latency_us = self.latency_us.get();
        event.rx_bytes = self.rx_bytes.get();
        event.tx_bytes = self.tx_bytes.get();
        event.rtt_us = self.rtt_us.get();
        event.retrans = self.retrans.get();
        event.accepted = self.accepted.get();
        // Shared by sockets, they do not say which of them it is.
        let of_this = |peer: &Peer| Peer {
            sock: event.sock,
            ..peer.clone()
        };
        event.holders = (self.holders.as_deref()).map(|peers| peers.iter().map(of_this).collect());
        event.service = service::of(&event);
        Row {
            event,
            state: self.state,
            device: self.device,
            since: self.since.get(),
            recv_queue: self.recv_queue.get(),
            send_queue: self.send_queue.get(),
            v6only: self.v6only,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::view::lines::samples;

    proptest! {
        /// All that belongs to an open socket comes back.
        #[test]
        fn nothing_of_a_row_is_lost(mut event in samples::event(), since: Option<u32>, queue: Option<u16>) {
            let service = service::of(&event);
            for peer in event.holders.iter_mut().flatten() {
                peer.sock = event.sock;
            }
            let row = Row {
                event: Event { service, ..event.clone() },
                state: State::Estab,
                device: Device::new(b"eth0"),
                since: since.map(u64::from),
                recv_queue: queue.map(u32::from),
                send_queue: queue.map(u32::from),
                v6only: Some(true),
            };
            let holders = event.holders.take().map(Holders::from);
            let back = Compact::of_row(&row, holders).row();
            // Of the end of a socket, or of the run that told it.
            let expected = Row {
                event: Event {
                    seq: 0,
                    error: None,
                    duration_us: None,
                    cause: None,
                    reason: None,
                    count: None,
                    ..row.event.clone()
                },
                ..row
            };
            prop_assert_eq!(back, expected);
        }
    }
}
