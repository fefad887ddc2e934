//! Who has the port that a bind found taken, put into its event: from what events told, and from a
//! snapshot when one is needed.

use crate::event::Event;
use crate::snapshot;
use crate::taken::Taken;

pub struct Holders {
    taken: Taken,
    /// Whether anybody is shown binds.
    wanted: bool,
}

impl Holders {
    /// `wanted`: whether binds are shown. Then all events have to come that tell of ports taken and left.
    pub fn new(wanted: bool) -> Self {
        Self {
            taken: Taken::default(),
            wanted,
        }
    }

    /// To be called with every event, in order, and with those that came after it already.
    pub fn tell(&mut self, event: &mut Event, later: &[Event]) {
        if !self.wanted {
            return;
        }
        self.taken.note(event);
        if self.taken.needs_snapshot(event) {
            let options = snapshot::Options {
                holders: true,
                ..snapshot::Options::default()
            };
            // Without one, what events told of has to do.
            let rows = snapshot::rows(&options).ok();
            self.taken.refresh(rows.into_iter().flatten(), event.ts);
        }
        self.taken.tell(event, later);
    }
}
