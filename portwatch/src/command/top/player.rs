//! A session as it is played: a moment of it as a scene, and how that goes on. Knows no clock.

use std::collections::VecDeque;

use anyhow::Result;

use crate::command::recorded::Part;
use crate::event::Event;
use crate::filter::Filter;
use crate::session::Session;
use crate::table::Limits;
use crate::view::top::{Control, EVENTS, Play, Scene};

/// Events read in one go.
const BATCH: usize = 1024;

pub struct Player {
    session: Session,
    part: Part,
    limits: Limits,
    /// Which events are shown.
    shown: Filter,
    pub scene: Scene,
    play: Play,
    /// The moment, in nanoseconds since the Unix epoch.
    at: u64,
    /// Number of the next event to be read, and those that were read and are not over yet.
    next: i64,
    ahead: VecDeque<Event>,
}

impl Player {
    /// At `at`, on its way from `play.first` to `play.ended`.
    ///
    /// # Errors
    /// When the session cannot be read, as with the other functions.
    pub fn new(
        session: Session,
        part: Part,
        limits: Limits,
        shown: Filter,
        play: Play,
        at: u64,
    ) -> Result<Self> {
        let mut scene = Scene::new(part.run.run.source.clone(), limits);
        scene.status.seeded = true;
        let missing = part.run.run.not_observed.as_ref();
        scene.status.missing = missing.map(|missing| format!("not observed: {missing}"));
        let mut player = Self {
            session,
            part,
            limits,
            shown,
            scene,
            play,
            at,
            next: 0,
            ahead: VecDeque::new(),
        };
        player.seek(at)?;
        Ok(player)
    }

    pub fn finish(self) -> Session {
        self.session
    }

    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn is_paused(&self) -> bool {
        self.play.paused
    }

    /// Goes on by this time of the one who looks, in nanoseconds, or less when `enough` says that this took
    /// long enough; stops at the end.
    ///
    /// # Errors
    /// As [`Player::new`].
    pub fn advance(&mut self, ns: u64, enough: impl Fn() -> bool) -> Result<()> {
        if self.play.paused {
            return Ok(());
        }
        let to = self
            .at
            .saturating_add(self.play.speed.distance(ns))
            .min(self.play.ended);
        while let Some(event) = self.upcoming()?.filter(|event| event.ts <= to) {
            self.at = self.at.max(event.ts);
            self.show(event);
            self.ahead.pop_front();
            if enough() {
                self.tick();
                return Ok(());
            }
        }
        self.at = to;
        self.play.paused = to >= self.play.ended;
        self.tick();
        Ok(())
    }

    /// What a key asks for.
    ///
    /// # Errors
    /// As [`Player::new`].
    pub fn control(&mut self, control: Control) -> Result<()> {
        let play = &mut self.play;
        match control {
            // From the end there is nowhere to go on to.
            Control::Pause if play.paused && self.at >= play.ended => {
                play.paused = false;
                return self.seek(self.play.first);
            }
            Control::Pause => play.paused = !play.paused,
            Control::Faster => play.speed = play.speed.faster(),
            Control::Slower => play.speed = play.speed.slower(),
            Control::Step => return self.step(),
            Control::Seek(seconds) => {
                let ns = seconds.unsigned_abs().saturating_mul(1_000_000_000);
                let to = match seconds < 0 {
                    true => self.at.saturating_sub(ns),
                    false => self.at.saturating_add(ns),
                };
                return self.seek(to);
            }
            Control::Start => return self.seek(self.play.first),
            Control::End => return self.seek(self.play.ended),
        }
        self.scene.status.play = Some(self.play);
        Ok(())
    }

    /// To the next event that is shown, and stops there.
    fn step(&mut self) -> Result<()> {
        self.play.paused = true;
        let ended = self.play.ended;
        loop {
            let Some(event) = self.upcoming()?.filter(|event| event.ts <= ended) else {
                self.at = ended;
                break;
            };
            self.ahead.pop_front();
            self.at = self.at.max(event.ts);
            if self.show(event) {
                break;
            }
        }
        self.tick();
        Ok(())
    }

    /// The scene as it was at that moment.
    fn seek(&mut self, to: u64) -> Result<()> {
        self.at = to.min(self.play.ended).max(self.play.first);
        let run = &self.part.run;
        let last = self.session.reached(run, self.at)?;
        self.scene.table = self.session.table_after(run, last, self.at, self.limits)?;
        self.scene.events.clear();
        let kept = i64::try_from(EVENTS).unwrap_or(i64::MAX);
        let first = run.events.start.max(last.saturating_sub(kept) + 1);
        let mut events = Vec::new();
        if first <= last {
            self.session
                .events(first, last, EVENTS, run.events.start, &mut events)?;
        }
        for event in events {
            if self.shown.matches(&event) {
                self.scene.show(event);
            }
        }
        self.next = last + 1;
        self.ahead.clear();
        self.tick();
        Ok(())
    }

    /// The next event; `None` at the end.
    fn upcoming(&mut self) -> Result<Option<Event>> {
        let last = self.part.run.events.end - 1;
        if self.ahead.is_empty() && self.next <= last {
            let mut events = Vec::new();
            let first = self.part.run.events.start;
            self.next = (self.session).events_on(self.next, last, BATCH, first, &mut events)?;
            self.ahead.extend(events);
        }
        Ok(self.ahead.front().cloned())
    }

    /// Takes in an event; whether it is one that is shown.
    fn show(&mut self, event: Event) -> bool {
        self.scene.table.apply(&event);
        let shown = self.shown.matches(&event);
        if shown {
            self.scene.show(event);
        }
        shown
    }

    fn tick(&mut self) {
        self.scene.table.tick(self.at);
        self.scene.status.play = Some(self.play);
    }
}
