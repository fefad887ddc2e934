//! From snapshots to events: what began, changed and ended between one and the next. Sans-IO.
//!
//! A socket lives, here, as long as some process holds it, which is as long as it has an inode. So
//! a connection that waits to be accepted has not begun yet, and one that the kernel still
//! finishes (TIME-WAIT and the like) is closed already. The inode's number is what a socket is
//! known by: every means tells it. Where the cookie is told too, it tells apart two sockets that had
//! the same number one after the other.

use std::collections::{HashMap, HashSet};

use crate::event::{Cause, Event, Kind, Origin, Proto};
use crate::row::State;
use crate::snapshot::{Gap, Listeners, Owner, Socket};

/// A connect without an outcome is announced after this many nanoseconds, once.
const SLOW_NS: u64 = 1_000_000_000;

/// The last snapshot, and what has been told of the sockets in it.
#[derive(Default)]
pub struct Compare {
    known: HashMap<u64, Known>,
    listeners: Listeners,
}

struct Known {
    socket: Socket,
    owner: Option<Owner>,
    /// Bound, listening or established since; `None` when it was there at the start.
    since: Option<u64>,
    /// Connects since; `None` once that was announced.
    attempt: Option<u64>,
    /// It was there at the start or an event told of it, so its end is told as well.
    told: bool,
    /// Its end was told, and its port is what remains of it.
    over: bool,
}

/// What a socket is doing, as far as events tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Bound,
    Listening,
    Connecting,
    Connected,
}

impl Compare {
    /// Begins with the sockets that are there, which are no events.
    pub fn new(first: Vec<Socket>, mut owner: impl FnMut(&Socket) -> Option<Owner>) -> Self {
        let listeners = Listeners::of(first.iter().cloned());
        let known = alive(first).map(|(inode, socket)| {
            let known = Known {
                owner: owner(&socket),
                since: None,
                attempt: None,
                told: true,
                over: false,
                socket,
            };
            (inode, known)
        });
        Self {
            known: known.collect(),
            listeners,
        }
    }

    /// Whether one of them is not known yet.
    pub fn has_news(&self, now: &[Socket]) -> bool {
        let mut inodes = now.iter().filter_map(|socket| socket.inode);
        inodes.any(|inode| !self.known.contains_key(&inode))
    }

    /// Whether a known one is not among them, and in none of the gaps.
    pub fn misses(&self, now: &[Socket], gaps: &[Gap]) -> bool {
        let there: HashSet<u64> = now.iter().filter_map(|socket| socket.inode).collect();
        let mut known = self.known.iter();
        known.any(|(inode, known)| !there.contains(inode) && !known.may_be_in(gaps))
    }

    /// Whether one that is known may be in the gap.
    pub fn concerns(&self, gap: &Gap) -> bool {
        (self.known.values()).any(|known| known.may_be_in(std::slice::from_ref(gap)))
    }

    /// Takes the next snapshot, of `ts` (nanoseconds since the Unix epoch), and returns what happened
    /// since the last: ends first, then beginnings, servers before clients. What may be in one of its
    /// `gaps` has not ended. `owner` is asked for the owners of new sockets.
    pub fn step(
        &mut self,
        now: Vec<Socket>,
        gaps: &[Gap],
        ts: u64,
        mut owner: impl FnMut(&Socket) -> Option<Owner>,
    ) -> Vec<Event> {
        let mut listeners = Listeners::of(now.iter().cloned());
        // A server may accept its only connection and be done.
        self.listeners.extend(listeners.clone());
        let mut now: HashMap<u64, Socket> = alive(now).collect();
        let mut events = self.ends(&now, gaps, ts);
        let unseen = (self.known.iter()).filter(|(inode, _)| !now.contains_key(inode));
        listeners.extend(Listeners::of(unseen.map(|(_, known)| known.socket.clone())));
        let mut inodes: Vec<u64> = now.keys().copied().collect();
        inodes.sort_unstable_by_key(|inode| (stage(&now[inode]), *inode));
        for inode in inodes {
            let Some(socket) = now.remove(&inode) else {
                continue;
            };
            let accepted = self.listeners.accepted(&socket);
            let known =
                (self.known.entry(inode)).or_insert_with(|| Known::new(&socket, owner(&socket)));
            known.update(socket, accepted, ts, &mut events);
        }
        self.listeners = listeners;
        events
    }

    /// Forgets those that are not there any more.
    fn ends(&mut self, now: &HashMap<u64, Socket>, gaps: &[Gap], ts: u64) -> Vec<Event> {
        let gone = |inode: &u64, known: &mut Known| match now.get(inode) {
            Some(socket) => {
                let cookies = known.socket.sock.zip(socket.sock);
                cookies.is_some_and(|(before, now)| before != now)
            }
            None => !known.may_be_in(gaps),
        };
        let mut gone: Vec<(u64, Known)> = self.known.extract_if(gone).collect();
        gone.sort_unstable_by_key(|(inode, _)| *inode);
        let told = (gone.into_iter()).filter(|(_, known)| known.told && !known.over);
        told.map(|(_, known)| known.end(&known.socket, ts))
            .collect()
    }
}

impl Known {
    /// Not seen before.
    fn new(socket: &Socket, owner: Option<Owner>) -> Self {
        Self {
            socket: socket.clone(),
            owner,
            since: None,
            attempt: None,
            told: false,
            over: false,
        }
    }

    fn may_be_in(&self, gaps: &[Gap]) -> bool {
        let Socket {
            netns,
            proto,
            family,
            ..
        } = self.socket;
        gaps.iter().any(|gap| gap.covers(netns, proto, family))
    }

    /// Takes it as it is now, and tells what it did.
    fn update(&mut self, socket: Socket, accepted: bool, ts: u64, events: &mut Vec<Event>) {
        // What has not been told of did nothing yet.
        let before = (self.told && !self.over).then(|| stage(&self.socket));
        let last = std::mem::replace(&mut self.socket, socket);
        let now = stage(&self.socket);
        // By shutdown or connect(AF_UNSPEC), or by a reset.
        let ended = matches!(before, Some(Stage::Listening | Stage::Connected));
        if now == Stage::Bound && (self.over || ended && self.socket.proto != Proto::Udp) {
            events.extend((!self.over).then(|| self.end(&last, ts)));
            self.over = true;
            return;
        }
        self.over = false;
        if now == Stage::Connecting {
            return self.wait(before, ts, events);
        }
        self.attempt = None;
        match now {
            Stage::Bound if before.is_none() => self.tell(Kind::Bind, ts, events),
            Stage::Listening if before != Some(Stage::Listening) => {
                self.tell(Kind::Listen, ts, events);
            }
            Stage::Connected if before.is_none() && accepted => {
                self.tell(Kind::Accept, ts, events);
            }
            Stage::Connected
                if before != Some(Stage::Connected) || last.remote != self.socket.remote =>
            {
                // It has a port, and nothing but a bind gives one to a udp socket.
                if self.socket.proto == Proto::Udp && before.is_none() {
                    self.tell(Kind::Bind, ts, events);
                }
                self.tell(Kind::Connect, ts, events);
            }
            _ => {}
        }
    }

    /// It connects and has no outcome yet.
    fn wait(&mut self, before: Option<Stage>, ts: u64, events: &mut Vec<Event>) {
        match self.attempt {
            None if before != Some(Stage::Connecting) => self.attempt = Some(ts),
            Some(since) if ts.saturating_sub(since) >= SLOW_NS => {
                self.attempt = None;
                self.tell(Kind::Connect, ts, events);
                // Not established.
                self.since = None;
                if let Some(event) = events.last_mut() {
                    event.error = Some(libc::EINPROGRESS as u16);
                }
            }
            _ => {}
        }
    }

    fn tell(&mut self, kind: Kind, ts: u64, events: &mut Vec<Event>) {
        let mut event = self.socket.event(kind, Origin::Poll, ts);
        if let Some(owner) = &self.owner {
            owner.put(&mut event);
        }
        events.push(event);
        self.told = true;
        // A udp socket lives from its bind on, whomever it talks to.
        if self.socket.proto != Proto::Udp || self.since.is_none() {
            self.since = Some(ts);
        }
    }

    /// The end of what was last known to be this socket.
    fn end(&self, socket: &Socket, ts: u64) -> Event {
        let mut event = socket.event(Kind::Close, Origin::Poll, ts);
        event.backlog = None;
        if let Some(owner) = &self.owner {
            owner.put(&mut event);
        }
        if stage(socket) == Stage::Connected {
            socket.put_traffic(&mut event);
        }
        event.duration_us = self.since.map(|since| ts.saturating_sub(since) / 1000);
        event.cause = match socket.state {
            State::CloseWait | State::LastAck => Some(Cause::Remote),
            State::FinWait1 | State::FinWait2 => Some(Cause::Local),
            _ => None,
        };
        event
    }
}

fn alive(sockets: Vec<Socket>) -> impl Iterator<Item = (u64, Socket)> {
    sockets.into_iter().filter_map(|x| Some((x.inode?, x)))
}

fn stage(socket: &Socket) -> Stage {
    match socket.state {
        State::Unconn => Stage::Bound,
        State::Listen => Stage::Listening,
        State::SynSent | State::SynRecv => Stage::Connecting,
        _ => Stage::Connected,
    }
}

#[cfg(test)]
mod tests;
