//! Events that are printed as they are recorded.

use anyhow::Result;

use crate::command::output::{Output, is_closed_pipe};
use crate::event::Event;
use crate::view::lines::Lines;

/// Lines are printed in pieces of about this size.
const PIECE: usize = 256 << 10;

/// Where events are printed.
pub struct Print {
    lines: Lines,
    output: Output,
}

impl Print {
    /// Prints what comes before the first event.
    pub fn new(lines: Lines, mut output: Output) -> Result<Self> {
        lines.header(&mut output.buffer);
        match output.flush() {
            Err(error) if !is_closed_pipe(&error) => Err(error),
            _ => Ok(Self { lines, output }),
        }
    }

    /// Prints an event, or keeps it for a while.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(&mut self, event: &Event) -> Result<()> {
        self.lines.event(&mut self.output.buffer, event);
        match self.output.buffer.len() >= PIECE {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Prints what was kept.
    ///
    /// # Errors
    /// As [`Print::event`].
    pub fn flush(&mut self) -> Result<()> {
        self.output.flush()
    }

    pub fn reader_left(&self) -> bool {
        self.output.reader_left()
    }

    pub fn is_shared_stdout(&self) -> bool {
        self.output.is_shared_stdout()
    }
}
