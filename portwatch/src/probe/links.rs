//! Attached programs.

use std::thread::Builder;

use super::plan::{Hook, Probe};
use super::program::Link;

/// What holds each program in its place. Dropping it detaches.
#[derive(Default)]
pub struct Links(Vec<Attached>);

/// A program in its place.
pub struct Attached {
    pub probe: Probe,
    pub is_twin: bool,
    pub link: Link,
}

impl Links {
    /// Detaches everything. Twins go first, which would take what their program has not seen for
    /// what it was skipped for, and entries: a call whose entry was seen can then still show
    /// its return. Each detachment waits for all CPUs, so they wait together.
    pub fn detach(self) {
        let (first, rest): (Vec<_>, Vec<_>) = (self.0.into_iter())
            .partition(|it| it.is_twin || matches!(it.probe.hook, Hook::Kprobe(_)));
        for links in [first, rest] {
            std::thread::scope(|scope| {
                for link in links {
                    // What no thread takes is dropped here.
                    let _ = Builder::new().spawn_scoped(scope, move || drop(link.link));
                }
            });
        }
    }

    pub(super) fn extend(&mut self, attached: Vec<Attached>) {
        self.0.extend(attached);
    }

    /// Whether the programs of this probe are among them.
    pub(super) fn holds(&self, probe: &Probe) -> bool {
        self.0.iter().any(|held| held.probe == *probe)
    }
}
