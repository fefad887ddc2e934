//! What happened, without who, where from and how long: what the rows of `raw_what` stand for.

use crate::event::{Cause, Event, Family, Origin, Proto};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct What {
    pub origin: Origin,
    pub proto: Option<Proto>,
    pub family: Option<Family>,
    pub netns: Option<u32>,
    pub error: Option<u16>,
    pub cause: Option<Cause>,
    pub reason: Option<&'static str>,
    pub service: Option<&'static str>,
}

impl What {
    pub fn of(event: &Event) -> Self {
        Self {
            origin: event.origin,
            proto: event.proto,
            family: event.family,
            netns: event.netns,
            error: event.error,
            cause: event.cause,
            reason: event.reason,
            service: event.service,
        }
    }

    /// Puts all but the origin into an event that was made with it.
    pub fn put(self, event: &mut Event) {
        event.proto = self.proto;
        event.family = self.family;
        event.netns = self.netns;
        event.error = self.error;
        event.cause = self.cause;
        event.reason = self.reason;
        event.service = self.service;
    }
}
