//! Who has the port that a bind found taken, put into its event: from what events told, and from a
//! snapshot when one is needed.

use std::time::{Duration, Instant};

use crate::event::Event;
use crate::snapshot;
use crate::taken::{Taken, found_taken};

/// How many times as long as it took a snapshot is used: binds may fail by the thousand.
const USES: u32 = 20;
/// The same where it shows nobody: connections come and go without a bind that would tell of them.
const USES_OF_NONE: u32 = 5;
/// How long at most.
const FRESH: Duration = Duration::from_secs(1);

pub struct Holders {
    taken: Taken,
    /// How long the last snapshot took.
    took: Duration,
    /// Whether anybody is shown binds.
    wanted: bool,
}

impl Holders {
    /// `wanted`: whether binds are shown. Then all events have to come that tell of ports taken and left.
    pub fn new(wanted: bool) -> Self {
        Self {
            taken: Taken::default(),
            took: Duration::ZERO,
            wanted,
        }
    }

    /// To be called with every event, in order, and with those that came after it already.
    pub fn tell(&mut self, event: &mut Event, later: &[Event]) {
        if !self.wanted {
            return;
        }
        self.taken.note(event);
        if (self.taken).needs_snapshot(event, self.fresh(USES)) {
            self.look(event.ts);
        }
        self.taken.tell(event, later);
        if found_taken(event)
            && event.holders.is_none()
            && (self.taken).needs_snapshot(event, self.fresh(USES_OF_NONE))
        {
            self.look(event.ts);
            self.taken.tell(event, later);
        }
    }

    /// How old a snapshot may be, in nanoseconds, that is used so often.
    fn fresh(&self, uses: u32) -> u64 {
        FRESH.min(self.took * uses).as_nanos() as u64
    }

    /// Takes a snapshot. Without one, what events told of has to do.
    fn look(&mut self, now: u64) {
        let began = Instant::now();
        let options = snapshot::Options {
            holders: true,
            ..snapshot::Options::default()
        };
        let rows = snapshot::rows(&options).ok();
        self.taken.refresh(rows.into_iter().flatten(), now);
        self.took = began.elapsed();
    }
}
