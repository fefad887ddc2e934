//! What is known of processes besides their sockets: when they began, and when and how those ended that
//! own something.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use lru::LruCache;

use super::executables::Executables;
use crate::event::{Context, Event, Kind};
use crate::machine;
use crate::session::About;

/// Most processes whose start is remembered.
const REMEMBERED: NonZeroUsize = const { NonZeroUsize::new(1 << 16).unwrap() };

/// Most processes remembered that ended without having owned anything.
const ENDED: NonZeroUsize = const { NonZeroUsize::new(4096).unwrap() };

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub pid: u32,
    /// Nanoseconds since the Unix epoch.
    pub at: u64,
    /// As wait(2) gives it.
    pub status: Option<u32>,
}

pub struct Processes {
    /// Of the proc file system that they are in; `None`: this machine's.
    root: Option<PathBuf>,
    /// Nanoseconds since the Unix epoch, by pid.
    started: LruCache<u32, u64>,
    owners: HashSet<u32>,
    /// Ends of processes that did not own anything until then.
    ended: LruCache<u32, End>,
    executables: Option<Executables>,
}

impl Processes {
    pub fn new(root: Option<PathBuf>, hash_exe: bool) -> Self {
        Self {
            root,
            started: LruCache::new(REMEMBERED),
            owners: HashSet::new(),
            ended: LruCache::new(ENDED),
            executables: hash_exe.then(Executables::default),
        }
    }

    pub fn started(&mut self, pid: u32, at: u64) {
        self.started.put(pid, at);
        // Whoever had the number before is gone.
        self.owners.remove(&pid);
        self.ended.pop(&pid);
    }

    /// Its owner owns something, or tried to. Returns the owner's end when that was before: an attempt to
    /// connect may have its outcome then. What closes after it tells nothing new.
    pub fn owns(&mut self, event: &Event) -> Option<End> {
        let pid = event.pid?;
        if matches!(event.kind, Kind::Close | Kind::Reset) {
            return None;
        }
        let end = self.ended.pop(&pid);
        if end.is_none() {
            self.owners.insert(pid);
        }
        end
    }

    /// Whether the process that ended has owned something.
    pub fn ended(&mut self, end: End) -> bool {
        let owned = self.owners.remove(&end.pid);
        if !owned {
            self.ended.put(end.pid, end);
        }
        owned
    }

    pub fn about(&mut self, pid: Option<u32>, context: &Context) -> About {
        let started = |pid| {
            let told = self.started.get(&pid).copied();
            told.or_else(|| machine::started(self.root.as_deref(), pid))
        };
        let started = pid.and_then(started);
        About {
            started,
            blake3: (self.executables.as_mut()).and_then(|x| x.blake3(pid, context, started)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Origin;

    fn event(kind: Kind) -> Event {
        let mut event = Event::new(kind, Origin::Live, 5);
        event.pid = Some(7);
        event
    }

    #[test]
    fn the_end_of_a_process_is_told_once_and_only_when_it_owned_something() {
        let end = End {
            pid: 7,
            at: 9,
            status: Some(0),
        };
        let mut processes = Processes::new(None, false);
        assert!(!processes.ended(end));
        // what it left open
        assert_eq!(processes.owns(&event(Kind::Close)), None);
        // what it had begun
        assert_eq!(processes.owns(&event(Kind::Connect)), Some(end));

        processes.started(7, 10);
        assert_eq!(processes.owns(&event(Kind::Bind)), None);
        assert!(processes.ended(end));
        assert_eq!(processes.owns(&event(Kind::Close)), None);
        assert!(!processes.ended(end));
        processes.started(7, 20);
        assert_eq!(processes.owns(&event(Kind::Bind)), None);
        assert_eq!(
            processes.about(Some(7), &Context::default()).started,
            Some(20)
        );
    }
}
