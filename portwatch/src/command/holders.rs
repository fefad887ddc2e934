//! Who has the port that a bind found taken, put into its event: from what events told, and from a
//! snapshot when one is needed.

use std::time::{Duration, Instant};

use crate::event::Event;
use crate::snapshot;
use crate::taken::Taken;

/// How many times as long as it took a snapshot is used: binds may fail by the thousand.
const USES: u32 = 50;
/// How long at most.
const FRESH: Duration = Duration::from_secs(1);

pub struct Holders {
    taken: Taken,
    /// How old the last snapshot may be.
    fresh: Duration,
    /// Whether anybody is shown binds.
    wanted: bool,
}

impl Holders {
    /// `wanted`: whether binds are shown. Then all events have to come that tell of ports taken and left.
    pub fn new(wanted: bool) -> Self {
        Self {
            taken: Taken::default(),
            fresh: FRESH,
            wanted,
        }
    }

    /// To be called with every event, in order, and with those that came after it already.
    pub fn tell(&mut self, event: &mut Event, later: &[Event]) {
        if !self.wanted {
            return;
        }
        self.taken.note(event);
        if (self.taken).needs_snapshot(event, self.fresh.as_nanos() as u64) {
            let began = Instant::now();
            let options = snapshot::Options {
                holders: true,
                ..snapshot::Options::default()
            };
            // Without one, what events told of has to do.
            let rows = snapshot::rows(&options).ok();
            self.taken.refresh(rows.into_iter().flatten(), event.ts);
            self.fresh = FRESH.min(began.elapsed() * USES);
        }
        self.taken.tell(event, later);
    }
}
