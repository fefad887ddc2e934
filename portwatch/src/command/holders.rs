//! Who has the port that a bind found taken, put into its event: from what events told, and from a
//! snapshot when one is needed.

use crate::event::{Event, Kind};
use crate::snapshot;
use crate::taken::Taken;

pub struct Holders {
    taken: Taken,
    /// Whether all events come that tell of ports taken and left.
    traced: bool,
}

impl Holders {
    /// `kinds`: those that the source tells.
    pub fn new(kinds: &[Kind]) -> Self {
        let ports = [Kind::Bind, Kind::Listen, Kind::Close];
        Self {
            taken: Taken::default(),
            traced: ports.iter().all(|kind| kinds.contains(kind)),
        }
    }

    /// To be called with every event, in order.
    pub fn tell(&mut self, event: &mut Event) {
        if self.traced {
            self.taken.note(event);
        }
        if self.taken.needs_snapshot(event) {
            let options = snapshot::Options {
                holders: true,
                ..snapshot::Options::default()
            };
            // Without one, what events told of has to do.
            let rows = snapshot::rows(&options).ok();
            self.taken.refresh(rows.into_iter().flatten(), event.ts);
        }
        self.taken.tell(event);
    }
}
