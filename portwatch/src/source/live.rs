//! Events from the running kernel: attaches the probes, drains the ring buffer, and keeps account of
//! what was lost.

use std::sync::mpsc::Sender;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use portwatch_common::Kind as WireKind;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep_until;

use super::News;
use super::accounts::Accounts;
use super::kinds;
use super::loss::Losses;
use super::notes::Notes;
use super::pace::Pace;
use super::records::{Records, shown};
use crate::clock::boot;
use crate::decode::{self, Record};
use crate::event::{Event, Kind, Origin};
use crate::probe::{self, Links, Loaded, Report, Settings, Skips, Tier};

/// Most records taken in one go: so few that their events stay in the CPU's cache until they are shown.
const BATCH: usize = 512;

/// What to ask of the kernel.
#[derive(Clone, Debug)]
pub struct Options {
    /// `None`: the first tier that works.
    pub tier: Option<Tier>,
    /// Size of the ring buffer in bytes: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Kinds of event wanted. Those by which they are told come, too ([`kinds::made`]); the others are not
    /// produced.
    pub kinds: Vec<Kind>,
    /// Whether to say on stderr what the programs note about themselves.
    pub notes: bool,
    /// Whether also of tiers that cannot serve everything is tried, to tell what the kernel says.
    pub thorough: bool,
}

/// Room for some ten thousand events.
pub const RING_BYTES: u32 = 8 << 20;

/// The best tier, and all kinds of event.
impl Default for Options {
    fn default() -> Self {
        Self {
            tier: None,
            ring_bytes: RING_BYTES,
            kinds: Kind::ALL.to_vec(),
            notes: false,
            thorough: false,
        }
    }
}

/// Attached probes and the reader of their ring buffer. Dropping it detaches everything.
pub struct Live {
    /// Owns programs and maps.
    ebpf: Ebpf,
    links: Links,
    report: Report,
    reset_reasons: Vec<(u32, &'static str)>,
    ring: AsyncFd<RingBuf<MapData>>,
    losses: Losses,
    skips: Skips,
    notes: Option<Notes>,
    pace: Pace,
    /// There may be more in the ring: no need to wait.
    behind: bool,
    /// While all probes are attached: records from before and after tell half the story.
    attached: std::ops::Range<u64>,
    records: Records,
    /// Kinds whose losses are missing, and not only what they tell of others.
    wanted: Vec<Kind>,
    accounts: Accounts,
}

impl Live {
    /// Attaches the probes and reads which processes there are. From here on nothing is missed.
    ///
    /// # Errors
    /// When no tier (or not the one asked for) can serve; the message names cause and remedy.
    pub fn start(options: &Options) -> Result<Self> {
        let made = kinds::made(&options.kinds);
        let kinds = WireKind::ALL.iter().filter(|wire| match shown(**wire) {
            Some(kind) => made.contains(&kind),
            None => true,
        });
        let settings = Settings {
            tier: options.tier,
            ring_bytes: options.ring_bytes,
            kinds: kinds.fold(0, |mask, kind| mask | 1 << *kind as u32),
            notes: options.notes,
            thorough: options.thorough,
        };
        let Loaded {
            mut ebpf,
            links,
            report,
            reset_reasons,
        } = probe::load(&settings)?;
        let attached = boot();
        let accounts = Accounts {
            denied_probes: report.denied().count() as u64,
            ..Accounts::default()
        };
        let notes = options.notes.then(|| Notes::new(&mut ebpf)).transpose()?;
        let mut map = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name}"))
        };
        let ring = RingBuf::try_from(map("EVENTS")?).context("reading the ring buffer")?;
        let losses = Losses::new(map("LOSS")?)?;
        let pace = Pace::new(map("WAKEUP")?, options.ring_bytes)?;
        let skips = Skips::new(&mut ebpf, losses.read().left)?;
        // SAFETY: the ring owns its map, whose descriptor stays the same and open as long as it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.context("polling the ring buffer")?;
        Ok(Self {
            ebpf,
            links,
            report,
            reset_reasons,
            ring,
            losses,
            skips,
            notes,
            pace,
            behind: false,
            attached: attached..u64::MAX,
            records: Records::new(made.contains(&Kind::Close)),
            wanted: options.kinds.clone(),
            accounts,
        })
    }

    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Waits until events may have come (a tenth of a second at most), then appends them.
    /// Appends nothing when there were none. Cancel-safe: nothing is lost when it is dropped.
    pub async fn next(&mut self, events: &mut Vec<Event>) -> Result<()> {
        if self.behind {
            // Signals and time go on all the same.
            tokio::task::yield_now().await;
        } else {
            tokio::select! {
                () = sleep_until(self.pace.next()) => {}
                ready = self.ring.readable() => {
                    ready.context("polling the ring buffer")?.clear_ready();
                }
            }
        }
        let found = self.drain(events, BATCH);
        self.behind = found == BATCH;
        self.pace.looked(found);
        self.count_losses(events);
        Ok(())
    }

    /// Detaches the probes, appends what was still on its way and returns the accounts.
    pub fn finish(mut self, events: &mut Vec<Event>) -> Result<Accounts> {
        self.attached.end = boot();
        let skipped = self.skips.so_far(&self.ebpf);
        std::mem::take(&mut self.links).detach();
        while self.drain(events, BATCH) == BATCH {}
        self.count_losses(events);
        let loss = self.losses.read();
        let skipped_events = self.skips.missed(&self.ebpf, skipped, loss.left)?;
        let accounts = &mut self.accounts;
        accounts.missed_returns = loss.entered.saturating_sub(loss.returned);
        accounts.skipped_events = skipped_events;
        Ok(accounts.clone())
    }

    /// The accounts so far, without what is only known when nothing is attached any more.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// See [`super::Source::open`].
    pub fn open(&self) -> usize {
        let ends = [Kind::Close, Kind::Reset];
        match ends.iter().any(|kind| self.wanted.contains(kind)) {
            true => self.records.open(),
            false => 0,
        }
    }

    /// See [`super::Source::hurry`].
    pub fn hurry(&mut self) {
        self.pace.hurry();
    }

    /// See [`super::Source::is_behind`].
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// Shows only what this process and its descendants do from now on.
    pub fn follow(&mut self, pid: u32) {
        self.records.follow(pid);
    }

    /// Sends news of processes from now on.
    pub fn tell_processes(&mut self, to: Sender<News>) {
        self.records.tell_processes(to);
    }

    /// Appends the events of at most `most` records; returns how many records there were.
    fn drain(&mut self, events: &mut Vec<Event>, most: usize) -> usize {
        self.records.clock.tick();
        if let Some(notes) = &mut self.notes {
            notes.say();
        }
        let ring = self.ring.get_mut();
        let mut count = 0;
        while count < most
            && let Some(item) = ring.next()
        {
            count += 1;
            match decode::decode(&item) {
                None => self.accounts.undecodable += 1,
                Some(Record::Socket(kind, record)) => {
                    if !self.attached.contains(&record.ts) {
                        continue;
                    }
                    if let Some(event) = self.records.socket(kind, &record, events)
                        && record.reason != 0
                    {
                        event.reason = (self.reset_reasons.iter())
                            .find_map(|&(n, name)| (n == record.reason).then_some(name));
                    }
                }
                Some(record) => self.records.process(record),
            }
        }
        count
    }

    /// Turns newly counted losses into an event.
    fn count_losses(&mut self, events: &mut Vec<Event>) {
        let loss = self.losses.read();
        let accounts = &mut self.accounts;
        let before = accounts.lost;
        accounts.lost = 0;
        accounts.lost_process = 0;
        accounts.lost_by_kind.clear();
        for kind in WireKind::ALL {
            let count = loss.full[kind as usize];
            match shown(kind).filter(|kind| self.wanted.contains(kind)) {
                Some(kind) if count > 0 => {
                    accounts.lost += count;
                    accounts.lost_by_kind.push((kind, count));
                }
                Some(_) => {}
                None => accounts.lost_process += count,
            }
        }
        accounts.untracked_sockets = loss.sockets;
        if accounts.lost > before {
            let now = self.records.clock.wall(boot());
            let mut event = Event::new(Kind::Lost, Origin::Live, now);
            event.count = Some(accounts.lost - before);
            events.push(event);
        }
    }
}
