//! One line on a terminal that tells how far the recording is.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::shared::{Counts, Shared};
use crate::command::output::poll;
use crate::command::screen;
use crate::view::human;

/// Time between two lines.
const EVERY: Duration = Duration::from_secs(1);

pub struct Progress {
    /// When it was shown last, and what; `None`: there is no one to show it to.
    last: Option<(Instant, Counts)>,
}

impl Progress {
    /// `wanted`: the terminal is not needed for anything else.
    pub fn new(wanted: bool) -> Self {
        let shown = wanted && std::io::stderr().is_terminal();
        Self {
            last: shown.then(|| (Instant::now(), Counts::default())),
        }
    }

    /// Shows it when it is time.
    pub fn show(&mut self, shared: &Shared) {
        let Some((when, before)) = &mut self.last else {
            return;
        };
        let passed = when.elapsed();
        if passed >= EVERY {
            let now = shared.counts();
            let line = line(now, *before, passed);
            (*when, *before) = (Instant::now(), now);
            let width = screen::width(libc::STDERR_FILENO).map_or(80, usize::from);
            // Behind the last column the terminal would begin another line.
            let line = line.get(..width.saturating_sub(1)).unwrap_or(&line);
            put(&format!("\r{line}\x1b[K"));
        }
    }

    /// Takes it away.
    pub fn clear(&self) {
        if self.last.is_some() {
            put("\r\x1b[K");
        }
    }
}

/// Nobody may be there to read it, which is no reason to stop; nor is a terminal that is stopped (Ctrl-S)
/// a reason to wait.
fn put(text: &str) {
    if poll(libc::STDERR_FILENO, libc::POLLOUT, 0) & libc::POLLOUT != 0 {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// Numbers only: nothing in it comes from outside, and all of it is ASCII.
fn line(now: Counts, before: Counts, passed: Duration) -> String {
    let more = (now.events - before.events) as f64;
    let rate = more / passed.as_secs_f64().max(f64::EPSILON);
    let mut text = format!("recording: {} events, {rate:.0}/s, ", now.events);
    human::push_bytes(&mut text, now.bytes);
    text.push_str(&format!(", {} lost", now.lost));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_since_the_last_line() {
        let counts = |events, bytes| Counts {
            events,
            bytes,
            lost: 7,
        };
        let line = line(counts(1500, 81_920), counts(500, 0), Duration::from_secs(2));
        assert_eq!(line, "recording: 1500 events, 500/s, 80.0K, 7 lost");
    }
}
