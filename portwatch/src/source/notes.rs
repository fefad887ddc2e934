//! What the programs in the kernel note about themselves, for those who wonder what they do.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// The reader of the programs' notes, which go to stderr.
pub struct Notes(EbpfLogger<Stderr>);

impl Notes {
    /// # Errors
    /// When the object has no room for notes.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self> {
        let logger = EbpfLogger::init_with_logger(ebpf, Stderr).context("reading notes")?;
        Ok(Self(logger))
    }

    /// Says what was noted since.
    pub fn say(&mut self) {
        self.0.flush();
    }
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Nobody may be there to read it.
        let _ = writeln!(std::io::stderr(), "portwatch: kernel: {}", record.args());
    }

    fn flush(&self) {}
}
