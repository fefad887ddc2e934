//! Where events come from.

pub mod accounts;
mod compare;
mod kinds;
pub mod live;
mod loss;
mod notes;
mod pace;
pub mod poll;
mod records;
pub mod replay;

use std::sync::mpsc::Sender;

use anyhow::{Result, anyhow};

use crate::event::Event;
use crate::machine::same_numbers;
use crate::snapshot;
use accounts::Accounts;
use live::Live;
use poll::Poll;
use replay::Replay;

/// What to take events from.
#[derive(Clone, Debug)]
pub struct Options {
    pub live: live::Options,
    pub poll: poll::Options,
    pub choice: Choice,
    /// A command is to be followed, by its number.
    pub command: bool,
}

impl Options {
    /// How to read open sockets beside these events.
    pub fn snapshot(&self) -> snapshot::Options {
        snapshot::Options {
            proc_root: self.poll.proc_root.clone(),
            without_ebpf: self.choice == Choice::Poll,
            ..snapshot::Options::default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The kernel if it can be had, else polling.
    Best,
    Live,
    Poll,
}

/// A source at work. Dropping it ends it.
pub enum Source {
    Live(Box<Live>),
    /// With what stood in the way of a better one.
    Poll(Box<Poll>, Option<anyhow::Error>),
    /// What was recorded.
    Session(Box<Replay>),
}

/// News of a process. Times in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Started {
        pid: u32,
        at: u64,
    },
    Ended {
        pid: u32,
        at: u64,
        /// As wait(2) gives it; `None` when the kernel does not tell.
        status: Option<u32>,
    },
}

impl Source {
    /// # Errors
    /// When the one asked for cannot be had, or none of them.
    pub fn start(options: &Options) -> Result<Self> {
        let poll = || Poll::start(&options.poll).map(Box::new);
        if options.choice == Choice::Poll {
            return Ok(Source::Poll(poll()?, None));
        }
        let live = match options.command {
            true => same_numbers().and_then(|()| Live::start(&options.live)),
            false => Live::start(&options.live),
        };
        match live {
            Ok(live) => Ok(Source::Live(Box::new(live))),
            Err(error) if options.choice == Choice::Live => Err(error),
            Err(error) => match poll() {
                Ok(poll) => Ok(Source::Poll(poll, Some(error))),
                Err(polling) => Err(anyhow!(
                    "neither can it poll ({polling:#}) nor trace: {error:#}"
                )),
            },
        }
    }

    /// Waits until events may have come, then appends them; none when there were none. Cancel-safe.
    ///
    /// # Errors
    /// When the source has dried up.
    pub async fn next(&mut self, events: &mut Vec<Event>) -> Result<()> {
        match self {
            Source::Live(live) => live.next(events).await,
            Source::Poll(poll, _) => {
                poll.next(events).await;
                Ok(())
            }
            Source::Session(replay) => replay.next(events).await,
        }
    }

    /// The accounts so far, but for what is only known at the end: runs that the kernel skipped, and
    /// returns that it missed.
    pub fn accounts(&self) -> Accounts {
        match self {
            Source::Live(live) => live.accounts().clone(),
            Source::Poll(poll, _) => poll.accounts(),
            // Its accounts are recorded.
            Source::Session(_) => Accounts::default(),
        }
    }

    /// Ends it, appends what was still on its way and returns the accounts.
    ///
    /// # Errors
    /// When that cannot be had.
    pub fn finish(self, events: &mut Vec<Event>) -> Result<Accounts> {
        match self {
            Source::Live(live) => live.finish(events),
            Source::Poll(poll, _) => Ok(poll.finish(events)),
            Source::Session(replay) => replay.finish(),
        }
    }

    /// Has it tell soon what happened until now, also where it would wait for longer.
    pub fn hurry(&mut self) {
        match self {
            Source::Poll(poll, _) => poll.hurry(),
            Source::Live(live) => live.hurry(),
            // It never waits.
            Source::Session(_) => {}
        }
    }

    /// Whether nothing will come any more.
    pub fn is_over(&self) -> bool {
        match self {
            Source::Live(_) | Source::Poll(..) => false,
            Source::Session(replay) => replay.is_over(),
        }
    }

    /// How many sockets of those who are followed are open and have a close to come, as far as it was told
    /// until now.
    pub fn open(&self) -> usize {
        match self {
            Source::Live(live) => live.open(),
            // To these a socket that no process holds is closed.
            Source::Poll(..) | Source::Session(_) => 0,
        }
    }

    /// Whether there is more to tell at once.
    pub fn is_behind(&self) -> bool {
        matches!(self, Source::Live(live) if live.is_behind())
    }

    /// Shows only what this process and its descendants do from now on.
    pub fn follow(&mut self, pid: u32) {
        match self {
            Source::Live(live) => live.follow(pid),
            Source::Poll(poll, _) => poll.follow(pid),
            // Nothing runs any more.
            Source::Session(_) => {}
        }
    }

    /// From here on sends news of processes, before the events that came with them are appended.
    /// Others have none.
    pub fn tell_processes(&mut self, to: Sender<News>) {
        match self {
            Source::Live(live) => live.tell_processes(to),
            Source::Poll(..) | Source::Session(_) => {}
        }
    }
}
