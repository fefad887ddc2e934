//! What happened on a port: who bound it, failed to, listened and closed, lately.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use lru::LruCache;

use crate::event::{Comm, Event, Kind};

/// Something that happened on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Nanoseconds since the Unix epoch.
    pub ts: u64,
    /// Bind, listen or close.
    pub kind: Kind,
    pub pid: Option<u32>,
    pub comm: Option<Comm>,
    /// errno, of what failed.
    pub error: Option<u16>,
    /// Of a close: how long it had been open.
    pub duration_us: Option<u64>,
}

/// Network namespace and port.
type Place = (Option<u32>, u16);

/// The last happenings of a number of ports.
type Ports = LruCache<Place, VecDeque<Past>>;

/// The last happenings of the ports where something happened last.
#[derive(Clone, Debug)]
pub struct History {
    /// Where something listens or did. They lie apart: each datagram of a new client binds a port, and a
    /// thousand of those would push out the one of a server.
    served: Ports,
    others: Ports,
    each: usize,
    /// A port was pushed out.
    forgot: bool,
}

impl History {
    /// Remembers `each` happenings of each of `ports` ports of either kind.
    pub fn new(ports: NonZeroUsize, each: usize) -> Self {
        Self {
            served: LruCache::new(ports),
            others: LruCache::new(ports),
            each,
            forgot: false,
        }
    }

    /// Takes note of what belongs here: binds, listens and the ends of what was bound. Connections
    /// do not: they would push out all else. `served`: whether something listens there.
    pub fn note(&mut self, event: &Event, served: impl FnOnce(Place) -> bool) {
        let kept = match event.kind {
            Kind::Bind | Kind::Listen => true,
            Kind::Close => event.rport.is_none(),
            _ => false,
        };
        let Some(port) = event.lport.filter(|&port| kept && port != 0) else {
            return;
        };
        let place = (event.netns, port);
        let served = event.kind == Kind::Listen && event.error.is_none() || served(place);
        if served && !self.served.contains(&place) {
            let before = self.others.pop(&place).unwrap_or_default();
            self.forgot |= self.served.push(place, before).is_some();
        }
        let ports = match self.served.contains(&place) {
            true => &mut self.served,
            false => &mut self.others,
        };
        self.forgot |= !ports.contains(&place) && ports.len() == ports.cap().get();
        let past = ports.get_or_insert_mut(place, VecDeque::new);
        if past.len() >= self.each {
            past.pop_front();
        }
        past.push_back(Past {
            ts: event.ts,
            kind: event.kind,
            pid: event.pid,
            comm: event.comm,
            error: event.error,
            duration_us: event.duration_us,
        });
    }

    /// What happened on a port of a network namespace, the latest last.
    pub fn of(&self, netns: Option<u32>, port: u16) -> impl DoubleEndedIterator<Item = &Past> {
        let place = (netns, port);
        let past = self.served.peek(&place);
        past.or_else(|| self.others.peek(&place))
            .into_iter()
            .flatten()
    }

    /// Whether there are ports of which something was known once.
    pub fn has_forgotten(&self) -> bool {
        self.forgot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Origin;

    fn event(ts: u64, kind: Kind, port: u16) -> Event {
        let mut event = Event::new(kind, Origin::Live, ts);
        event.netns = Some(1);
        event.lport = Some(port);
        event
    }

    fn times(history: &History, port: u16) -> Vec<u64> {
        history.of(Some(1), port).map(|past| past.ts).collect()
    }

    #[test]
    fn the_last_happenings_of_the_last_ports_are_kept() {
        let mut history = History::new(NonZeroUsize::new(2).unwrap(), 3);
        for (ts, kind) in [
            (1, Kind::Bind),
            (2, Kind::Listen),
            (3, Kind::Close),
            (4, Kind::Bind),
        ] {
            history.note(&event(ts, kind, 80), |_| false);
        }
        assert_eq!(times(&history, 80), [2, 3, 4]);
        for (ts, port) in [(5, 81), (6, 82), (7, 80)] {
            history.note(&event(ts, Kind::Bind, port), |_| false);
        }
        assert!(!history.has_forgotten());
        history.note(&event(8, Kind::Bind, 83), |_| false);
        assert_eq!(times(&history, 80), [3, 4, 7], "it has been listened on");
        assert!(times(&history, 81).is_empty() && history.has_forgotten());
        assert_eq!(times(&history, 82), [6]);
        assert_eq!(history.of(Some(2), 80).count(), 0, "another namespace");
    }

    #[test]
    fn a_server_that_was_there_before_keeps_its_port() {
        let mut history = History::new(NonZeroUsize::new(1).unwrap(), 3);
        history.note(&event(1, Kind::Bind, 80), |_| false);
        history.note(&event(2, Kind::Bind, 80), |_| true);
        history.note(&event(3, Kind::Bind, 81), |_| false);
        history.note(&event(4, Kind::Bind, 80), |_| false);
        assert!(!history.has_forgotten());
        assert_eq!(times(&history, 80), [1, 2, 4]);
        history.note(&event(5, Kind::Listen, 81), |_| false);
        assert_eq!(times(&history, 81), [3, 5]);
        assert!(times(&history, 80).is_empty() && history.has_forgotten());
    }

    #[test]
    fn connections_and_unknown_ports_leave_no_trace() {
        let mut history = History::new(NonZeroUsize::new(2).unwrap(), 3);
        history.note(&event(1, Kind::Accept, 80), |_| false);
        history.note(
            &Event {
                rport: Some(4000),
                ..event(2, Kind::Close, 80)
            },
            |_| false,
        );
        history.note(&event(3, Kind::Bind, 0), |_| false);
        assert!(times(&history, 80).is_empty() && times(&history, 0).is_empty());
    }
}
