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

/// The last happenings of the ports where something happened last.
#[derive(Clone, Debug)]
pub struct History {
    /// By network namespace and local port.
    ports: LruCache<(Option<u32>, u16), VecDeque<Past>>,
    each: usize,
}

impl History {
    /// Remembers `each` happenings of each of `ports` ports.
    pub fn new(ports: NonZeroUsize, each: usize) -> Self {
        Self {
            ports: LruCache::new(ports),
            each,
        }
    }

    /// Takes note of what belongs here: binds, listens and the ends of what was bound. Connections
    /// do not: they would push out all else.
    pub fn note(&mut self, event: &Event) {
        let kept = match event.kind {
            Kind::Bind | Kind::Listen => true,
            Kind::Close => event.rport.is_none(),
            _ => false,
        };
        let Some(port) = event.lport.filter(|&port| kept && port != 0) else {
            return;
        };
        let past = (self.ports).get_or_insert_mut((event.netns, port), VecDeque::new);
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
        self.ports.peek(&(netns, port)).into_iter().flatten()
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
            history.note(&event(ts, kind, 80));
        }
        assert_eq!(times(&history, 80), [2, 3, 4]);
        history.note(&event(5, Kind::Bind, 81));
        history.note(&event(6, Kind::Bind, 80));
        history.note(&event(7, Kind::Bind, 82));
        assert_eq!(times(&history, 80), [3, 4, 6]);
        assert!(times(&history, 81).is_empty());
        assert_eq!(history.of(Some(2), 80).count(), 0, "another namespace");
    }

    #[test]
    fn connections_and_unknown_ports_leave_no_trace() {
        let mut history = History::new(NonZeroUsize::new(2).unwrap(), 3);
        history.note(&event(1, Kind::Accept, 80));
        history.note(&Event {
            rport: Some(4000),
            ..event(2, Kind::Close, 80)
        });
        history.note(&event(3, Kind::Bind, 0));
        assert!(times(&history, 80).is_empty() && times(&history, 0).is_empty());
    }
}
