//! What events do to the sockets of the table.

use super::closed::Closed;
use super::compact::Compact;
use super::key::{Key, Keys};
use super::{Open, Table, accepts, at};
use crate::event::{Event, Kind, Origin, Proto};
use crate::row::State;

impl Table {
    /// Takes in one event. The cost does not depend on how many sockets there are.
    pub fn apply(&mut self, event: &Event) {
        self.version += 1;
        if event.kind == Kind::Lost {
            self.lost = self.lost.saturating_add(event.count.unwrap_or(1));
            return;
        }
        let listeners = &self.listeners;
        (self.history).note(event, |(netns, port)| {
            at(listeners, netns.into(), port).next().is_some()
        });
        let key = self.keys.of(event);
        if let Some(touched) = &mut self.touched {
            touched.insert(key);
            if event.proto == Some(Proto::Mptcp) {
                // As a snapshot may know it.
                touched.insert(self.keys.of_addresses(event));
            }
        }
        let pending = event.has_error(libc::EINPROGRESS);
        match (event.kind, event.error) {
            // IP_BIND_ADDRESS_NO_PORT: until it has a port it is in no table of the kernel either.
            (Kind::Bind, None) if event.lport == Some(0) => {}
            (Kind::Bind, None) => self.bound(key, event),
            (Kind::Listen, None) => self.listens(key, event),
            (Kind::Accept, None) => {
                self.count_accepted(event);
                self.connected(key, event, State::Estab);
            }
            (Kind::Connect, None) => self.connected(key, event, State::Estab),
            (Kind::Connect, Some(_)) if pending => self.connected(key, event, State::SynSent),
            (Kind::Connect, Some(_)) => self.not_connected(key, event),
            (Kind::Close, _) => self.closes(key, event),
            // The call failed, and the socket is what it was; of a reset the close tells.
            (Kind::Bind | Kind::Listen | Kind::Accept | Kind::Reset | Kind::Lost, _) => {}
        }
    }

    fn bound(&mut self, key: Key, event: &Event) {
        let mut socket = Compact::new(event, State::Unconn);
        socket.since = Some(event.ts).into();
        self.put(key, socket, true);
    }

    fn listens(&mut self, key: Key, event: &Event) {
        let mut socket = Compact::new(event, State::Listen);
        socket.since = Some(event.ts).into();
        // Polling sees not all of them.
        socket.accepted = (event.origin == Origin::Live).then_some(0).into();
        if let Some(before) = self.open.get(&key).map(|open| &open.socket)
            && before.state == State::Listen
        {
            // A second listen changes the backlog only.
            (socket.since, socket.accepted) = (before.since, before.accepted);
        }
        self.put(key, socket, true);
    }

    fn connected(&mut self, key: Key, event: &Event, state: State) {
        let mut bound = self.open.get(&key).is_some_and(|open| open.bound);
        if let Some(before) = self.unconnected(key, event) {
            self.take(before);
            bound = true;
        }
        let mut socket = Compact::new(event, state);
        let established = match event.kind {
            // The kernel did that, before the process took it.
            Kind::Accept => event.began(),
            _ => event.ts,
        };
        socket.since = (state == State::Estab).then_some(established).into();
        self.put(key, socket, bound);
    }

    /// Where the same socket is when it was bound first, and known by something else.
    fn unconnected(&self, key: Key, event: &Event) -> Option<Key> {
        let before = self.keys.of_unconnected(event);
        let same =
            |open: &Open| open.socket.state == State::Unconn && open.socket.pid.get() == event.pid;
        let known = Keys::is_hash(key) && before != key;
        (known && self.open.get(&before).is_some_and(same)).then_some(before)
    }

    fn not_connected(&mut self, key: Key, event: &Event) {
        let bound_before = self.unconnected(key, event).is_some();
        match self.open.get_mut(&key) {
            Some(open) if open.socket.state == State::SynSent && open.bound => {
                open.socket.state = State::Unconn;
                open.socket.kind = Kind::Bind;
                (open.socket.raddr, open.socket.rport) = (None, None);
            }
            Some(open) if open.socket.state != State::SynSent => {}
            None if bound_before => {}
            // Never bound, it has no other end than this.
            _ => self.closes(key, event),
        }
    }

    fn closes(&mut self, key: Key, event: &Event) {
        let mut told = Compact::new(event, State::Unconn);
        let key = self.unnamed(key, event).unwrap_or(key);
        let socket = match self.take(key) {
            Some(Open { mut socket, .. }) => {
                for (known, last) in [
                    (&mut socket.rx_bytes, told.rx_bytes),
                    (&mut socket.tx_bytes, told.tx_bytes),
                ] {
                    known.learn(last.get());
                }
                for (known, last) in [
                    (&mut socket.rtt_us, told.rtt_us),
                    (&mut socket.retrans, told.retrans),
                    (&mut socket.accepted, told.accepted),
                ] {
                    known.learn(last.get());
                }
                if socket.pid.get().is_none() {
                    socket.owner(event);
                }
                socket
            }
            None if event.lport.unwrap_or(0) == 0 && event.rport.is_none() => return,
            None => {
                told.state = match (event.accepted, event.rport) {
                    _ if event.kind == Kind::Connect => State::SynSent,
                    (Some(_), _) => State::Listen,
                    (None, Some(_)) => State::Estab,
                    (None, None) => State::Unconn,
                };
                told
            }
        };
        if socket.state == State::Listen {
            self.reset_queue(&socket);
        }
        let closed = Closed {
            key,
            socket,
            at: event.ts,
            error: event.error,
            cause: event.cause,
            reason: event.reason,
            duration_us: event.duration_us.into(),
        };
        self.closed.bury(closed, self.limits.closed);
    }

    /// Where an MPTCP socket is that only a snapshot told of, without its cookie.
    fn unnamed(&self, key: Key, event: &Event) -> Option<Key> {
        if event.proto != Some(Proto::Mptcp) || self.open.contains_key(&key) {
            return None;
        }
        let unnamed = self.keys.of_addresses(event);
        self.open.contains_key(&unnamed).then_some(unnamed)
    }

    /// The listener that a connection came from has accepted one more. With SO_REUSEPORT there are
    /// several: then the one of the same process, or any of them.
    fn count_accepted(&mut self, event: &Event) {
        let Some(port) = event.lport else { return };
        let to = (event.proto, event.family, event.laddr);
        let fit = |key: Key| {
            let socket = &self.open.get(&key)?.socket;
            Some((accepts(socket, to)?, socket.pid.get() == event.pid, key))
        };
        let candidates = at(&self.listeners, event.netns.into(), port);
        let best = candidates.filter_map(fit).max();
        if let Some((.., key)) = best
            && let Some(listener) = self.open.get_mut(&key)
        {
            // Of one from before the start nobody knows.
            let accepted = listener.socket.accepted.get();
            listener.socket.accepted = accepted.map(|x| x + 1).into();
        }
    }

    /// Puts in what an event told, with what only snapshots tell of the same socket.
    fn put(&mut self, key: Key, mut socket: Compact, bound: bool) {
        if let Some(before) = self.take(key).map(|open| open.socket) {
            socket.holders = before.holders;
            socket.device = before.device;
            if socket.inode.get().is_none() {
                socket.inode = before.inode;
            }
            if socket.pid.get().is_none() {
                socket.pid = before.pid;
                socket.tid = before.tid;
                socket.ppid = before.ppid;
                socket.uid = before.uid;
                socket.gid = before.gid;
                socket.comm = before.comm;
                socket.context = before.context;
            }
        }
        self.insert(
            key,
            Open {
                socket,
                bound,
                told: true,
            },
        );
    }
}
