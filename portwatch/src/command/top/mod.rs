//! `portwatch top`: the live table on the screen. Events and snapshots go into the table, keys to
//! the screen, and what changed is drawn a few times a second.

mod player;
mod playing;
mod terminal;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crossterm::event::{Event as Input, EventStream};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::MissedTickBehavior;

use super::compare::{Compare, Step};
use super::list::hint;
use super::signals::{Asked, ScreenSignals};
use super::trace::{Particular, not_observed, of_processes, polling, summary, unused};
use super::{filter, netns, say, wrong_usage};
use crate::cli::{FilterArgs, TopArgs};
use crate::clock::{Clock, boot};
use crate::event::{Event, Kind};
use crate::exit::Exit;
use crate::filter::Filter;
use crate::service;
use crate::snapshot::Rows;
use crate::source::Source;
use crate::table::Limits;
use crate::view::time;
use crate::view::top::{Action, Look, Scene, Screen};

use terminal::Terminal;

/// Shortest time between two drawings, unless a key asks for one.
const REDRAW: Duration = Duration::from_millis(250);
/// Room kept for events.
const BATCH: usize = 1024;
/// Size of the kernel's event buffer, unless told otherwise: it counts twice in what is resident, beside a
/// table that may be large.
const RING_BYTES: u32 = 4 << 20;
/// Drawing may take a tenth of the time.
const SHARE: u32 = 10;

/// Shows the screen until someone quits it.
///
/// # Errors
/// When the arguments make no sense, there is no terminal, or the kernel cannot be traced.
pub async fn run(args: TopArgs) -> Result<Exit> {
    Terminal::check().map_err(wrong_usage)?;
    let past = [args.moment.given(), args.span.given()].concat();
    let session = args.source.session(&[], &past).map_err(wrong_usage)?;
    if let Some(path) = session {
        return playing::run(&args, path).await;
    }
    keep_no_memory();
    let (rows, events) = filter::of_both(&args.filter).map_err(wrong_usage)?;
    let look = Look {
        colour: std::env::var_os("NO_COLOR").is_none_or(|x| x.is_empty()),
        numeric: args.numeric,
        netns: netns::home(args.source.proc_root.as_deref()),
        netns_names: netns::names(args.source.proc_root.as_deref()),
        zone: time::local(),
    };
    let limits = Limits {
        closed_ns: u64::try_from(args.keep.as_nanos()).unwrap_or(u64::MAX),
        ..Limits::default()
    };
    let mut signals = ScreenSignals::new().context("waiting for signals")?;
    let particular = Particular::of(&args.source, &args.probes);
    let options = args.source.options(&args.probes, RING_BYTES);
    let mut source = Source::start(&options)?;
    let (name, missing) = describe(&source);
    let mut scene = Scene::new(name, limits);
    scene.status.missing.clone_from(&missing);
    let asks = args.filter != FilterArgs::default();
    let mut top = Top {
        screen: Screen::new(look, asks.then_some(rows)),
        scene,
        events,
        compare: Compare::new(options.snapshot()),
        proc_root: options.poll.proc_root,
        clock: Clock::new(),
        drawn: None,
    };
    unused(&source, &particular)
        .iter()
        .for_each(|text| say(text));
    let mut terminal = Terminal::enter()?;
    let ended = top.follow(&mut source, &mut signals, &mut terminal).await;
    // First of all the terminal: detaching takes a moment.
    drop(terminal);
    ended?;
    // The screen's first line has room for a part of what could not be seen.
    let missing = not_observed(&source);
    match &source {
        Source::Live(_) => of_processes().iter().for_each(|text| say(text)),
        Source::Poll(poll, why) => say(&polling(poll, why.as_ref())),
        Source::Session(_) => {}
    }
    hint(&top.scene.status.limits);
    let accounts = source.finish(&mut Vec::new())?;
    say(&summary::verdict(&accounts, missing.as_deref()));
    let differences = top.scene.status.differences;
    if differences > 0 {
        say(&format!(
            "{} between events and snapshots of the kernel's sockets, repaired",
            summary::plural(differences, "difference")
        ));
    }
    // Of rows it is asked again with each drawing, so events are what counts first.
    let complaint = top.events.complaint().or_else(|| top.screen.complaint());
    Ok(match complaint {
        Some(complaint) => {
            say(&complaint);
            Exit::Failed
        }
        None => Exit::Fine,
    })
}

/// Where events come from, and what is missing because of that.
fn describe(source: &Source) -> (String, Option<String>) {
    match source {
        Source::Live(live) => {
            let missing = not_observed(source);
            let missing = missing.map(|missing| format!("not observed: {missing}"));
            (format!("{} probes", live.report().tier), missing)
        }
        Source::Poll(poll, why) => ("polling".to_owned(), Some(polling(poll, why.as_ref()))),
        Source::Session(_) => ("a session".to_owned(), None),
    }
}

struct Top {
    screen: Screen,
    scene: Scene,
    /// Which events are shown.
    events: Filter,
    compare: Compare,
    proc_root: Option<PathBuf>,
    clock: Clock,
    /// What was drawn last: version of the table, second. `None`: draw in any case.
    drawn: Option<(u64, u64)>,
}

impl Top {
    async fn follow(
        &mut self,
        source: &mut Source,
        signals: &mut ScreenSignals,
        terminal: &mut Terminal,
    ) -> Result<()> {
        let mut keys = EventStream::new();
        let mut redraw = tokio::time::interval(REDRAW);
        redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = Vec::new();
        self.draw(terminal)?;
        // When the source was asked last.
        let mut asked = self.now();
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => match signal {
                    Asked::End => return Ok(()),
                    Asked::Stop => {
                        terminal.suspend()?;
                        self.draw(terminal)?;
                    }
                },
                input = keys.next() => {
                    if self.input(input, terminal)?.is_break() {
                        return Ok(());
                    }
                    // More may have come, as when text is pasted: one drawing for all.
                    while let Some(input) = keys.next().now_or_never() {
                        if self.input(input, terminal)?.is_break() {
                            return Ok(());
                        }
                    }
                    self.draw(terminal)?;
                }
                step = self.compare.next() => match step {
                    Step::Ask => {
                        source.hurry();
                        asked = self.now();
                    }
                    Step::Begin => self.scene.table.watch(),
                    Step::Compare(rows) => self.compare(rows),
                },
                _ = redraw.tick() => {
                    self.clock.tick();
                    let now = self.now();
                    self.scene.table.tick(now);
                    let version = self.scene.table.version();
                    let changed = !self.screen.is_frozen() && self.drawn != Some((version, second(now)));
                    if changed || self.drawn.is_none() {
                        let took = self.draw(terminal)?;
                        redraw.reset_after(REDRAW.max(took * SHARE));
                    }
                }
                more = source.next(&mut events) => {
                    more?;
                    // Where there is more than fits, the last one tells how far we are.
                    self.compare.told(events.last().map_or(asked, |event| event.ts));
                    asked = self.now();
                    for event in events.drain(..) {
                        self.event(event);
                    }
                    // A burst takes megabytes, and is over.
                    events.shrink_to(BATCH);
                }
            }
        }
    }

    fn event(&mut self, mut event: Event) {
        event.service = service::of(&event);
        self.scene.table.apply(&event);
        if event.kind == Kind::Lost {
            self.compare.hurry(false);
        }
        if self.events.matches(&event) {
            self.scene.show(event);
        }
    }

    fn compare(&mut self, rows: Result<Box<Rows>>) {
        match rows {
            Ok(rows) => self.snapshot(rows),
            Err(error) => {
                let text = format!("open sockets cannot be read: {error:#}");
                self.scene.status.limits = vec![text];
                self.scene.status.seeded = true;
            }
        }
        self.drawn = None;
    }

    fn snapshot(&mut self, rows: Box<Rows>) {
        let now = self.now();
        // Some may have got a name since.
        let names = netns::names(self.proc_root.as_deref());
        self.screen.name_namespaces(names);
        let status = &mut self.scene.status;
        status.limits.clone_from(&rows.limits);
        if !status.seeded {
            status.seeded = true;
            return self.scene.table.seed(rows);
        }
        let scope = rows.scope.clone();
        let differences = self.scene.table.reconcile(rows, &scope, now);
        status.differences += differences.len() as u64;
        for difference in differences {
            let event = difference.event(now);
            if self.events.matches(&event) {
                self.scene.show(event);
            }
        }
        if self.scene.table.in_doubt() {
            self.compare.hurry(false);
        }
    }

    /// Something from the terminal; breaks when that is the end.
    fn input(
        &mut self,
        input: Option<std::io::Result<Input>>,
        terminal: &mut Terminal,
    ) -> Result<std::ops::ControlFlow<()>> {
        use std::ops::ControlFlow::{Break, Continue};
        let Input::Key(key) = input
            .context("the terminal is gone")?
            .context("reading keys")?
        else {
            return Ok(Continue(()));
        };
        match self.screen.key(key, &self.scene, self.now()) {
            Some(Action::Quit) => return Ok(Break(())),
            Some(Action::Suspend) => terminal.suspend()?,
            Some(Action::Refresh) => self.compare.hurry(true),
            Some(Action::Play(_)) | None => {}
        }
        Ok(Continue(()))
    }

    /// Draws, and tells how long it took.
    fn draw(&mut self, terminal: &mut Terminal) -> Result<Duration> {
        let started = Instant::now();
        let now = self.now();
        self.drawn = Some((self.scene.table.version(), second(now)));
        terminal
            .draw(|frame| self.screen.draw(frame, &self.scene, now))
            .context("drawing")?;
        Ok(started.elapsed())
    }

    /// Nanoseconds since the Unix epoch, on the clock of the events.
    fn now(&self) -> u64 {
        self.clock.wall(boot())
    }
}

/// What a snapshot took goes back to the system at once. Left to itself glibc's allocator learns from
/// the first one to keep as much for the next.
fn keep_no_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator's.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
}

/// Ages are shown in seconds.
fn second(now: u64) -> u64 {
    now / 1_000_000_000
}
