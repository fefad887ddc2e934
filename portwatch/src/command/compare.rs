//! When snapshots are taken and handed to the table: at the start, now and then, and soon when
//! something is lost or in doubt.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::clock::{Clock, boot};
use crate::snapshot::{self, Rows};

/// Longest and shortest time between snapshots.
const SELDOM: Duration = Duration::from_secs(30);
const OFTEN: Duration = Duration::from_secs(5);
/// When something is to be found out.
const SOON: Duration = Duration::from_secs(1);
/// Snapshots may take a hundredth of the time.
const SHARE: u32 = 100;
/// Events may come that much out of order, in nanoseconds: one is written where a process may be
/// interrupted just after the kernel did what it tells of.
const LATE: u64 = 100_000_000;

pub struct Compare {
    options: snapshot::Options,
    stage: Stage,
    started: Instant,
    /// All that happened until then was told; nanoseconds since the Unix epoch.
    told: u64,
    /// What came up while a snapshot was taken asks for another one, so long after it.
    again: Option<Duration>,
}

enum Stage {
    Resting(Instant),
    Taking(oneshot::Receiver<(Result<Box<Rows>>, u64)>),
    /// Until everything is told that happened before this time; whether the source was asked for that.
    Settling(Option<Result<Box<Rows>>>, u64, bool),
}

/// What is to be done with the table.
pub enum Step {
    /// Watch: a snapshot begins.
    Begin,
    /// Have the source tell all that happened until now.
    Ask,
    /// Compare with it; it may have failed.
    Compare(Result<Box<Rows>>),
}

impl Compare {
    /// The first snapshot is taken at once.
    pub fn new(options: snapshot::Options) -> Self {
        Self {
            options: snapshot::Options {
                holders: true,
                tcp_info: true,
                ..options
            },
            stage: Stage::Resting(Instant::now()),
            started: Instant::now(),
            told: 0,
            again: None,
        }
    }

    /// The source has told all that happened until then.
    pub fn told(&mut self, until: u64) {
        self.told = self.told.max(until);
    }

    /// The next snapshot is taken now, or soon.
    pub fn hurry(&mut self, now: bool) {
        let wait = if now { Duration::ZERO } else { SOON };
        match &mut self.stage {
            Stage::Resting(until) => *until = (*until).min(Instant::now() + wait),
            _ => self.again = Some(self.again.map_or(wait, |x| x.min(wait))),
        }
    }

    /// Waits for the next step. Cancel-safe; to be called anew after [`Compare::told`].
    pub async fn next(&mut self) -> Step {
        loop {
            match &mut self.stage {
                Stage::Resting(until) => {
                    sleep_until(*until).await;
                    self.started = Instant::now();
                    let options = self.options.clone();
                    let (to, taken) = oneshot::channel();
                    let thread = std::thread::Builder::new().name("snapshot".to_owned());
                    let thread = thread.spawn(move || {
                        let snapshot = snapshot::rows(&options).map(Box::new);
                        // Nobody waits for it at the end.
                        let _ = to.send((snapshot, Clock::new().wall(boot())));
                    });
                    self.stage = match thread.context("starting a thread") {
                        Ok(_) => Stage::Taking(taken),
                        Err(error) => Stage::Settling(Some(Err(error)), 0, false),
                    };
                    return Step::Begin;
                }
                Stage::Taking(taken) => {
                    let taken = taken.await.context("the thread that took it panicked");
                    let (snapshot, end) = taken.unwrap_or_else(|error| (Err(error), 0));
                    self.stage = Stage::Settling(Some(snapshot), end + LATE, false);
                }
                Stage::Settling(_, until, asked) if self.told < *until => {
                    if *asked {
                        // This is called anew after every news of the source.
                        std::future::pending::<()>().await;
                    }
                    let wait = until.saturating_sub(Clock::new().wall(boot()));
                    tokio::time::sleep(Duration::from_nanos(wait)).await;
                    *asked = true;
                    return Step::Ask;
                }
                Stage::Settling(snapshot, ..) => {
                    let snapshot = snapshot.take();
                    let took = Instant::now() - self.started;
                    let rest = self.again.take();
                    let rest = rest.unwrap_or_else(|| (took * SHARE).clamp(OFTEN, SELDOM));
                    self.stage = Stage::Resting(Instant::now() + rest);
                    if let Some(snapshot) = snapshot {
                        return Step::Compare(snapshot);
                    }
                }
            }
        }
    }
}
