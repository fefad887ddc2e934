//! A socket as sock_diag or /proc tells of it: not yet joined with the processes that hold it.

use std::net::IpAddr;

use crate::device::Device;
use crate::event::{Event, Family, Kind, Origin, Proto};
use crate::group::is_server;
use crate::row::State;

#[derive(Clone, Debug, PartialEq)]
pub struct Socket {
    pub proto: Proto,
    pub family: Family,
    pub state: State,
    pub local: (IpAddr, u16),
    /// `None` without a peer.
    pub remote: Option<(IpAddr, u16)>,
    /// The network device that it is bound to; `None` from /proc, which tells of none.
    pub device: Option<Device>,
    /// Inode number of its network namespace; `None` where that cannot be told.
    pub netns: Option<u32>,
    /// The kernel's cookie; `None` where /proc is all there is, and for those of mptcp that share one.
    pub sock: Option<u64>,
    /// `None` when no process holds it: not accepted yet, or closed and the kernel finishes it.
    pub inode: Option<u64>,
    /// Not for IPv4 as well; `None` for an IPv4 socket, a connection, and from /proc.
    pub v6only: Option<bool>,
    /// User who made it; 0 when no process holds it.
    pub uid: u32,
    /// See [`Row`](crate::row::Row).
    pub recv_queue: u32,
    /// See [`Row`](crate::row::Row). /proc does not tell the backlog of a listener.
    pub send_queue: Option<u32>,
    pub traffic: Option<Traffic>,
}

/// Of a tcp connection, from its tcp_info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    pub rtt_us: u32,
    pub retrans: u32,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

impl Socket {
    /// See [`Row::place`](crate::row::Row::place), whose order this is.
    pub fn place(&self) -> impl Ord + use<> {
        let local = (
            self.local.1,
            self.proto,
            self.local.0,
            self.netns,
            self.device,
        );
        let remote = self.remote.unzip();
        let only_bound = !is_server(self.state, Some(self.proto));
        (local, self.family, remote, only_bound)
    }

    /// An event about it, without its owner.
    pub fn event(&self, kind: Kind, origin: Origin, ts: u64) -> Event {
        let mut event = Event::new(kind, origin, ts);
        event.proto = Some(self.proto);
        event.family = Some(self.family);
        (event.laddr, event.lport) = (Some(self.local.0), Some(self.local.1));
        (event.raddr, event.rport) = self.remote.unzip();
        event.sock = self.sock;
        event.inode = self.inode;
        event.netns = self.netns;
        event.uid = self.inode.map(|_| self.uid);
        if self.state == State::Listen {
            event.backlog = self.send_queue;
        }
        event
    }

    /// Adds what went over the connection so far.
    pub fn put_traffic(&self, event: &mut Event) {
        let Some(traffic) = self.traffic.filter(|_| self.remote.is_some()) else {
            return;
        };
        event.rtt_us = Some(traffic.rtt_us);
        event.retrans = Some(traffic.retrans);
        event.rx_bytes = Some(traffic.rx_bytes);
        event.tx_bytes = Some(traffic.tx_bytes);
    }
}
