//! Which end of a connection began it: told by its connect or accept, and remembered until its close.

use std::collections::HashMap;

use crate::event::{Event, Kind};

/// Most connections remembered; they are as many only when closes are missing.
const MOST: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// The connections that are open, by their cookie.
#[derive(Debug, Default)]
pub struct Flows(HashMap<u64, Direction>);

impl Flows {
    /// Direction of the connection that the event is about, `None` where nothing told it. To be asked
    /// of each event in turn.
    pub fn direction(&mut self, event: &Event) -> Option<Direction> {
        let direction = match event.kind {
            Kind::Connect => Direction::Outbound,
            Kind::Accept => Direction::Inbound,
            Kind::Close => return event.sock.and_then(|sock| self.0.remove(&sock)),
            Kind::Reset => return event.sock.and_then(|sock| self.0.get(&sock).copied()),
            Kind::Bind | Kind::Listen | Kind::Lost => return None,
        };
        if let Some(sock) = event.sock {
            if self.0.len() >= MOST {
                self.0.clear();
            }
            self.0.insert(sock, direction);
        }
        Some(direction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Origin;

    #[test]
    fn the_end_of_a_connection_has_the_direction_of_its_beginning() {
        use Direction::{Inbound, Outbound};
        let mut flows = Flows::default();
        for (kind, sock, expected) in [
            (Kind::Listen, 1, None),
            (Kind::Accept, 2, Some(Inbound)),
            (Kind::Connect, 3, Some(Outbound)),
            (Kind::Reset, 3, Some(Outbound)),
            (Kind::Close, 2, Some(Inbound)),
            (Kind::Close, 2, None),
            (Kind::Close, 3, Some(Outbound)),
            (Kind::Close, 4, None),
            (Kind::Close, 1, None),
        ] {
            let mut event = Event::new(kind, Origin::Live, 0);
            event.sock = Some(sock);
            assert_eq!(flows.direction(&event), expected, "{kind} {sock}");
        }
    }
}
