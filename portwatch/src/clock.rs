//! From the kernel's clock to the wall clock.

use std::time::{Duration, Instant};

/// Turns nanoseconds of `CLOCK_BOOTTIME` into nanoseconds since the Unix epoch. Measures the
/// difference anew every second, because the wall clock is set and slewed.
pub struct Clock {
    offset: i128,
    measured: Instant,
}

const EVERY: Duration = Duration::from_secs(1);

impl Clock {
    pub fn new() -> Self {
        Self {
            offset: measure(),
            measured: Instant::now(),
        }
    }

    /// To be called now and then: measures again when it is time.
    pub fn tick(&mut self) {
        if self.measured.elapsed() >= EVERY {
            *self = Self::new();
        }
    }

    pub fn wall(&self, boot: u64) -> u64 {
        (i128::from(boot) + self.offset).try_into().unwrap_or(0)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// `CLOCK_BOOTTIME` now, in nanoseconds.
pub fn boot() -> u64 {
    read(libc::CLOCK_BOOTTIME) as u64
}

fn read(clock: libc::clockid_t) -> i128 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec; both clocks exist on every Linux since 2.6.39.
    unsafe { libc::clock_gettime(clock, &mut time) };
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// Wall clock minus boot clock: of several readings the one that was interrupted least.
fn measure() -> i128 {
    let reading = || {
        let before = read(libc::CLOCK_BOOTTIME);
        let wall = read(libc::CLOCK_REALTIME);
        let after = read(libc::CLOCK_BOOTTIME);
        (after - before, wall - (before + after) / 2)
    };
    let first = reading();
    (0..4).map(|_| reading()).fold(first, std::cmp::min).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_now_is_the_wall_clock_now() {
        let clock = Clock::new();
        let wall = clock.wall(boot());
        let now = read(libc::CLOCK_REALTIME) as u64;
        assert!(now.abs_diff(wall) < 1_000_000_000);
    }
}
