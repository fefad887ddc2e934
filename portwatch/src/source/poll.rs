//! Events without eBPF: snapshots compared several times a second. What lives shorter than the time
//! between two of them is missed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::accounts::Accounts;
use super::compare::Compare;
use crate::clock::{Clock, boot};
use crate::event::Event;
use crate::snapshot::{self, Gap, Holders, Owner, Owners, Socket, Why, file};

/// How to poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Time between two snapshots.
    pub interval: Duration,
    /// See [`snapshot::Options`].
    pub proc_root: Option<PathBuf>,
}

/// Takes a sentence for the user.
pub type Say = Box<dyn Fn(&str) + Send>;

/// The last snapshot, and when to take the next.
pub struct Poll {
    interval: Duration,
    reading: snapshot::Options,
    timer: Interval,
    compare: Compare,
    owners: Owners,
    /// When set, only these processes are shown.
    followed: Option<HashSet<u32>>,
    limits: Vec<String>,
    /// What was said of gaps at the start.
    known: HashSet<String>,
    /// Snapshots with others.
    damaged: u64,
    /// What is said of gaps is said once, to whom it is told.
    said: HashSet<String>,
    say: Option<Say>,
    last: Instant,
    longest: Duration,
}

impl Poll {
    /// Takes the first snapshot. What is in it is no event.
    ///
    /// # Errors
    /// When there is nothing to read: no proc file system where one should be.
    pub fn start(options: &Options) -> Result<Self> {
        let reading = snapshot::Options {
            proc_root: options.proc_root.clone(),
            ..snapshot::Options::default()
        };
        let mut owners = Owners::new(options.proc_root.as_deref());
        let first = snapshot::read(&reading)?;
        let holders = Holders::read(root(&reading))?;
        let mut limits = first.limits;
        limits.extend(holders.limits());
        let mut troubles = first.gaps.iter().filter(|gap| gap.why != Why::Absent);
        let known: HashSet<String> = troubles.clone().map(Gap::note).collect();
        if troubles.any(|gap| gap.table.is_some()) {
            limits.push("ends of sockets in tables that are not whole are not told".to_owned());
        }
        let compare = Compare::new(first.list.iter().collect(), |socket| {
            owner(socket, &holders, &mut owners)
        });
        let start = tokio::time::Instant::now() + options.interval;
        let mut timer = interval_at(start, options.interval);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            interval: options.interval,
            reading,
            timer,
            compare,
            owners,
            followed: None,
            limits,
            said: known.clone(),
            known,
            damaged: 0,
            say: None,
            last: Instant::now(),
            longest: options.interval,
        })
    }

    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// What cannot be seen from here besides what is short-lived, each a sentence for the user.
    pub fn limits(&self) -> &[String] {
        &self.limits
    }

    /// Tells there, from now on, what cannot be seen any more.
    pub fn tell(&mut self, say: Say) {
        self.say = Some(say);
    }

    /// Waits for the next snapshot and appends what happened since the last. Cancel-safe.
    pub async fn next(&mut self, events: &mut Vec<Event>) {
        self.timer.tick().await;
        self.step(events);
    }

    /// Takes the next snapshot now.
    pub fn hurry(&mut self) {
        self.timer.reset_immediately();
    }

    /// Appends what happened since the last snapshot and returns the accounts.
    pub fn finish(mut self, events: &mut Vec<Event>) -> Accounts {
        self.step(events);
        self.accounts()
    }

    /// The accounts so far.
    pub fn accounts(&self) -> Accounts {
        Accounts {
            polled: Some(self.longest),
            damaged_snapshots: self.damaged,
            ..Accounts::default()
        }
    }

    /// Shows only what this process and its descendants do from now on, as far as they are seen:
    /// one that ends before its children do may take the trace of them along.
    pub fn follow(&mut self, pid: u32) {
        self.followed.get_or_insert_default().insert(pid);
    }

    fn step(&mut self, events: &mut Vec<Event>) {
        let (mut now, mut gaps) = read(&self.reading);
        if self.compare.misses(&now, &gaps) {
            // A table that changes while it is read may leave one out: gone is what is not in the
            // next one either.
            let (again, more) = read(&self.reading);
            let there: HashSet<u64> = again.iter().filter_map(|socket| socket.inode).collect();
            now.retain(|socket| socket.inode.is_some_and(|inode| !there.contains(&inode)));
            now.extend(again);
            gaps.extend(more);
        }
        self.note(&gaps);
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
        if let Some(followed) = &mut self.followed {
            add_descendants(root(&self.reading), followed);
        }
        // To look through all open files costs more than all the rest.
        let holders = match self.compare.has_news(&now) {
            // Who is gone by now has no owner.
            true => Holders::read(root(&self.reading)).unwrap_or_default(),
            false => Holders::default(),
        };
        self.owners.forget();
        let ts = Clock::new().wall(boot());
        let owners = &mut self.owners;
        let happened =
            (self.compare).step(now, &gaps, ts, |socket| owner(socket, &holders, owners));
        let shown = |event: &Event| match &mut self.followed {
            Some(followed) => is_followed(event, followed),
            None => true,
        };
        events.extend(happened.into_iter().filter(shown));
    }

    /// Says what stands in the way of telling ends, once, and counts the snapshot when that was not so at
    /// the start.
    fn note(&mut self, gaps: &[Gap]) {
        let mut damaged = false;
        for gap in gaps {
            // What the kernel does without is missing when it was there.
            if gap.why == Why::Absent && !self.compare.concerns(gap) {
                continue;
            }
            let note = gap.note();
            damaged |= !self.known.contains(&note);
            if let Some(say) = self.say.as_ref().filter(|_| !self.said.contains(&note)) {
                say(&note);
                self.said.insert(note);
            }
        }
        self.damaged += u64::from(damaged);
    }
}

/// The sockets of this moment, and of which of them it cannot be told: of all where there is nothing to
/// read.
fn read(options: &snapshot::Options) -> (Vec<Socket>, Vec<Gap>) {
    match snapshot::read(options) {
        Ok(sockets) => (sockets.list.iter().collect(), sockets.gaps),
        Err(error) => (Vec::new(), vec![Gap::everything(error.root_cause())]),
    }
}

fn root(reading: &snapshot::Options) -> &Path {
    reading.proc_root.as_deref().unwrap_or(Path::new("/proc"))
}

/// The first of a socket's holders that can be told.
fn owner(socket: &Socket, holders: &Holders, owners: &mut Owners) -> Option<Owner> {
    holders.of(socket.inode?).find_map(|pid| owners.owner(pid))
}

/// Whether the owner is one of them, or descends from one.
fn is_followed(event: &Event, followed: &mut HashSet<u32>) -> bool {
    let Some(pid) = event.pid else { return false };
    let parents = event
        .context
        .iter()
        .flat_map(|x| x.parents.iter().flatten());
    if !followed.contains(&pid) && parents.into_iter().any(|x| followed.contains(&x.pid)) {
        followed.insert(pid);
    }
    followed.contains(&pid)
}

/// Adds their children, and the children of these, so that they are known when their parents are gone.
fn add_descendants(root: &Path, followed: &mut HashSet<u32>) {
    let mut open: Vec<u32> = followed.iter().copied().collect();
    while let Some(pid) = open.pop() {
        let Ok(threads) = std::fs::read_dir(root.join(format!("{pid}/task"))) else {
            continue;
        };
        for thread in threads.flatten() {
            let children = file::read(&thread.path().join("children")).unwrap_or_default();
            let children = children.split(u8::is_ascii_whitespace);
            let pids = children.filter_map(|x| std::str::from_utf8(x).ok()?.parse().ok());
            open.extend(pids.filter(|pid| followed.insert(*pid)));
        }
    }
}
