//! When the ring buffer is looked into: every few milliseconds while records come, so that the kernel need not
//! wake anybody for each of them; and once none come, when the kernel tells of the next one.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use aya::maps::Map;
use memmap2::{MmapOptions, MmapRaw};
use tokio::time::Instant;

/// How long records may wait that the kernel does not tell of.
const TICK: Duration = Duration::from_millis(8);
/// Between looks at a ring that is empty. Losses and times are looked after then, too.
const IDLE: Duration = Duration::from_millis(100);

pub struct Pace {
    /// The map `WAKEUP`: how many bytes may wait before the kernel wakes the reader.
    wakeup: MmapRaw,
    /// That many while records come.
    most: u64,
    /// Looks at an empty ring since there was something in it; no more than two are counted.
    quiet: u32,
    next: Instant,
}

impl Pace {
    /// # Errors
    /// When the kernel does not map the map.
    pub fn new(map: Map, ring_bytes: u32) -> Result<Self> {
        let Map::Array(map) = map else {
            bail!("the map WAKEUP is no array");
        };
        let wakeup = MmapOptions::new()
            .len(size_of::<u64>())
            .map_raw(map.fd().as_fd().as_raw_fd())
            .context("mapping the map WAKEUP")?;
        Ok(Self::over(wakeup, u64::from(ring_bytes / 2)))
    }

    fn over(wakeup: MmapRaw, most: u64) -> Self {
        let pace = Self {
            wakeup,
            most,
            quiet: 0,
            next: Instant::now(),
        };
        pace.wake_at(most);
        pace
    }

    /// When to look if the kernel does not tell of anything before.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Has the next look taken at once.
    pub fn hurry(&mut self) {
        self.next = Instant::now();
    }

    /// There was a look that found so many records.
    pub fn looked(&mut self, found: usize) {
        if found > 0 {
            if self.quiet > 0 {
                self.wake_at(self.most);
            }
            self.quiet = 0;
        } else {
            if self.quiet == 0 {
                // A program that has not seen that yet is done at the next look, which is soon.
                self.wake_at(0);
            }
            self.quiet = (self.quiet + 1).min(2);
        }
        let wait = if self.quiet == 2 { IDLE } else { TICK };
        self.next = Instant::now() + wait;
    }

    fn wake_at(&self, bytes: u64) {
        // SAFETY: the mapping is a page, of which the programs read this number at any time.
        let wakeup = unsafe { AtomicU64::from_ptr(self.wakeup.as_mut_ptr().cast()) };
        wakeup.store(bytes, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_wakes_the_reader_of_an_empty_ring_and_of_one_that_fills() {
        let memory = MmapOptions::new().len(8).map_anon().unwrap();
        let mut pace = Pace::over(memory.into(), 4096);
        // SAFETY: within the mapping, which nobody else has.
        let woken_at = |pace: &Pace| unsafe { *pace.wakeup.as_ptr().cast::<u64>() };
        assert_eq!(woken_at(&pace), 4096);
        for (found, woken, wait) in [
            (3, 4096, TICK),
            (0, 0, TICK),
            (0, 0, IDLE),
            (0, 0, IDLE),
            (1, 4096, TICK),
            (0, 0, TICK),
            (1, 4096, TICK),
        ] {
            let before = Instant::now();
            pace.looked(found);
            assert_eq!(woken_at(&pace), woken);
            let until = (before + wait)..=(Instant::now() + wait);
            assert!(until.contains(&pace.next()));
            pace.hurry();
            assert!(pace.next() <= Instant::now());
        }
    }
}
