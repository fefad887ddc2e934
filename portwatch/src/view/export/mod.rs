//! Events in the schemas of others: documents for Elasticsearch, OCSF events, columns of parquet.

mod document;
mod ecs;
mod flow;
mod ocsf;
#[cfg(feature = "parquet")]
pub mod parquet;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::event::Event;
use crate::session::Run;
use crate::view::json::put_json;

use flow::{Direction, Flows};

/// Writes the events of one run as documents, one a line, in its order.
pub struct Documents<'a> {
    run: &'a Run,
    flows: Flows,
    document: fn(&Run, &Event, Option<Direction>) -> Value,
}

impl<'a> Documents<'a> {
    /// Of the Elastic Common Schema.
    pub fn ecs(run: &'a Run) -> Self {
        Self::new(run, ecs::document)
    }

    /// Of the Open Cybersecurity Schema Framework.
    pub fn ocsf(run: &'a Run) -> Self {
        Self::new(run, ocsf::document)
    }

    fn new(run: &'a Run, document: fn(&Run, &Event, Option<Direction>) -> Value) -> Self {
        Self {
            run,
            flows: Flows::default(),
            document,
        }
    }

    /// Takes note of an event, and appends its document when it is to be shown.
    pub fn event(&mut self, out: &mut Vec<u8>, event: &Event, shown: bool) {
        let direction = self.flows.direction(event);
        if shown {
            put_json(out, &(self.document)(self.run, event, direction));
            out.push(b'\n');
        }
    }
}
