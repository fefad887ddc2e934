//! What feeds the recorder: events of the source and snapshots, until something ends the recording.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::mpsc::Sender;
use tokio::time::MissedTickBehavior;

use super::outcome::Outcome;
use super::progress::Progress;
use super::shared::{Farewell, Message, Shared};
use crate::clock::{Clock, boot};
use crate::command::compare::{Compare, Step};
use crate::command::signals::{self, Signals};
use crate::command::trace::child::Running;
use crate::command::trace::ended;
use crate::command::{after, say};
use crate::event::Kind;
use crate::snapshot::Rows;
use crate::source::{News, Source};

/// How often what was recorded is stored.
const STORE: Duration = Duration::from_millis(250);

/// Why a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Signal,
    Time,
    Command,
    /// The recorder has enough: as many events as asked for, nobody reads what is printed, or it failed.
    Recorder,
}

/// The way of events to the recorder.
pub struct Feed {
    to: Sender<Message>,
    news: mpsc::Receiver<News>,
    /// `None`: only a command is followed, and no snapshot tells what is its own.
    compare: Option<Compare>,
    /// Whether there was a snapshot.
    seeded: bool,
    /// Whether the last one could not be had.
    failed: bool,
    clock: Clock,
    shared: Arc<Shared>,
    progress: Progress,
}

impl Feed {
    pub fn new(
        to: Sender<Message>,
        news: mpsc::Receiver<News>,
        compare: Option<Compare>,
        shared: Arc<Shared>,
        progress: Progress,
    ) -> Self {
        Self {
            to,
            news,
            compare,
            seeded: false,
            failed: false,
            clock: Clock::new(),
            shared,
            progress,
        }
    }

    /// Feeds the recorder until something ends it.
    pub async fn follow(
        &mut self,
        source: &mut Source,
        signals: &mut Signals,
        duration: Option<Duration>,
        mut command: Option<&mut Running>,
    ) -> Result<Why> {
        let mut store = tokio::time::interval(STORE);
        store.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let out_of_time = after(duration);
        tokio::pin!(out_of_time);
        let mut asked = self.now();
        // Why it is to end as soon as it is known what was open before.
        let mut over = None;
        loop {
            if let Some(why) = over
                && (self.seeded || self.compare.is_none())
            {
                return Ok(why);
            }
            let mut events = Vec::new();
            let runs = command.as_ref().is_some_and(|command| command.runs());
            let message = tokio::select! {
                biased;
                _ = signals.next() => match &command {
                    Some(_) if runs => {
                        signals::dealt_with();
                        continue;
                    }
                    Some(_) => return Ok(Why::Command),
                    // Asked twice, it does not wait.
                    None if over.is_some() => return Ok(Why::Signal),
                    None => {
                        over = Some(Why::Signal);
                        continue;
                    }
                },
                () = &mut out_of_time, if over.is_none() => {
                    over = Some(Why::Time);
                    continue;
                }
                () = ended(&mut command), if runs => {
                    source.hurry();
                    continue;
                }
                _ = store.tick() => {
                    self.clock.tick();
                    say_notes(&self.shared, &self.progress);
                    self.progress.show(&self.shared);
                    Message::Store(source.accounts())
                }
                step = next(&mut self.compare) => match step {
                    Step::Begin => Message::Watch,
                    Step::Ask => {
                        source.hurry();
                        asked = self.now();
                        continue;
                    }
                    Step::Compare(rows) => Message::Snapshot(self.snapshot(source, rows)),
                },
                more = source.next(&mut events) => {
                    more?;
                    if command.as_ref().is_some_and(|command| command.is_over(source)) {
                        over = Some(Why::Command);
                    }
                    let until = events.last().map_or(asked, |event| event.ts);
                    asked = self.now();
                    let lost = events.iter().any(|event| event.kind == Kind::Lost);
                    if let Some(compare) = &mut self.compare {
                        compare.told(until);
                        if self.shared.in_doubt() || lost {
                            compare.hurry(false);
                        }
                    }
                    let news: Vec<News> = self.news.try_iter().collect();
                    if events.is_empty() && news.is_empty() {
                        continue;
                    }
                    Message::Events(events, news)
                }
            };
            if self.to.send(message).await.is_err() || self.shared.has_enough() {
                return Ok(Why::Recorder);
            }
        }
    }

    /// Says what cannot be seen, once, and that nothing is, once until something is again.
    fn snapshot(&mut self, source: &Source, rows: Result<Box<Rows>>) -> Option<Box<Rows>> {
        let first = !std::mem::replace(&mut self.seeded, true);
        let failed_before = std::mem::replace(&mut self.failed, rows.is_err());
        let limits = match &rows {
            // Polling has said so.
            Ok(rows) if first && matches!(source, Source::Live(_)) => rows.limits.clone(),
            Err(error) if !failed_before => vec![format!("open sockets cannot be read: {error:#}")],
            _ => Vec::new(),
        };
        for limit in limits {
            self.progress.clear();
            say(&limit);
        }
        rows.ok()
    }

    /// Ends the source, hands over what was still on its way, and waits for the recorder.
    pub async fn finish(
        self,
        source: Source,
        why: Why,
        thread: JoinHandle<Result<Outcome>>,
    ) -> Result<Outcome> {
        self.progress.clear();
        let mut rest = Vec::new();
        let accounts = source.finish(&mut rest)?;
        let news = self.news.try_iter().collect();
        let reason = match why {
            Why::Signal => "interrupted",
            Why::Time => "the time was up",
            Why::Command => "the command ended",
            // What it was is told by the recorder.
            Why::Recorder => "enough",
        };
        // It may have failed, which it tells when it is waited for.
        let _ = self.to.send(Message::Events(rest, news)).await;
        let end = Message::Finish(Box::new(Farewell { accounts, reason }));
        let _ = self.to.send(end).await;
        self.join(thread).await
    }

    /// Waits for the recorder, which gets nothing more.
    pub async fn join(self, thread: JoinHandle<Result<Outcome>>) -> Result<Outcome> {
        self.progress.clear();
        drop(self.to);
        while !thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        say_notes(&self.shared, &self.progress);
        thread
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the recorder panicked")))
    }

    /// Nanoseconds since the Unix epoch, on the clock of the events.
    fn now(&self) -> u64 {
        self.clock.wall(boot())
    }
}

/// Says what the recorder has to say.
fn say_notes(shared: &Shared, progress: &Progress) {
    for note in shared.notes() {
        progress.clear();
        say(&note);
    }
}

/// The next step of the comparison; never where there is none.
async fn next(compare: &mut Option<Compare>) -> Step {
    match compare {
        Some(compare) => compare.next().await,
        None => std::future::pending().await,
    }
}
