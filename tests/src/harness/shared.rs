//! One trace for many scenarios, one after the other: on an emulated machine each start takes
//! seconds, and most scenarios ask for nothing but a trace of everything.

use std::net::UdpSocket;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::event::{Event, Kind, parse};
use super::tracer::{Run, Tracer};

const PRINTED_WITHIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Shared {
    /// Its output is in there.
    _directory: tempfile::TempDir,
    tracer: Tracer,
    /// Bytes and events that were taken.
    bytes: u64,
    events: u64,
}

impl Shared {
    pub fn new(tracer: Tracer, directory: tempfile::TempDir) -> Self {
        Self {
            _directory: directory,
            tracer,
            bytes: 0,
            events: 0,
        }
    }

    /// What was printed of everything that happened since this was last asked. Makes a socket of
    /// its own to know when that has come.
    pub fn take(&mut self) -> Result<Vec<Event>> {
        let mark = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let of_mark =
            |event: &Event| event.pid == Some(std::process::id()) && event.lport == Some(mark);
        let start = Instant::now();
        let mut events = Vec::new();
        while !(events.iter()).any(|event| of_mark(event) && event.event == Kind::Close) {
            ensure!(
                self.tracer.runs()? && start.elapsed() < PRINTED_WITHIN,
                "the shared trace ended, or prints nothing more: {}",
                self.tracer.said()?.trim()
            );
            sleep(Duration::from_millis(10));
            let mut output = self.tracer.printed(self.bytes)?;
            output.truncate(
                output
                    .iter()
                    .rposition(|&byte| byte == b'\n')
                    .map_or(0, |at| at + 1),
            );
            let part = parse(&output, self.events + 1)?;
            self.bytes += output.len() as u64;
            self.events += part.len() as u64;
            events.extend(part);
        }
        events.retain(|event| !of_mark(event));
        Ok(events)
    }

    /// Ends the trace.
    pub fn stop(self) -> Result<Run> {
        self.tracer.stop()
    }
}
