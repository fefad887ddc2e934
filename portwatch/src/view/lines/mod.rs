//! Events as lines, one each: the output of `trace`.

pub(super) mod csv;
pub(super) mod details;
mod json;
mod owners;
#[cfg(test)]
pub(crate) mod samples;
pub(super) mod text;

use crate::event::Event;

pub use csv::Csv;
pub use json::Json;
pub use text::{Style, Text};

/// Turns events into lines of one of the formats.
#[derive(Debug)]
pub enum Lines {
    Text(Text),
    Json(Json),
    Csv(Csv),
}

impl Lines {
    /// Appends what comes before the first event: names of the columns, nothing in JSON.
    pub fn header(&self, out: &mut Vec<u8>) {
        match self {
            Lines::Text(text) => text.header(out),
            Lines::Json(_) => {}
            Lines::Csv(csv) => csv.header(out),
        }
    }

    /// Which network namespace goes without saying from here on.
    pub fn at_home(&mut self, netns: Option<u32>) {
        if let Lines::Text(text) = self {
            text.at_home(netns);
        }
    }

    /// Appends one line.
    pub fn event(&mut self, out: &mut Vec<u8>, event: &Event) {
        match self {
            Lines::Text(text) => text.event(out, event),
            Lines::Json(json) => json.event(out, event),
            Lines::Csv(csv) => csv.event(out, event),
        }
    }
}
