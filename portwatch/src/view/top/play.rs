//! A session that is played: what the first line says of it, and its keys.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::tz::TimeZone;

use crate::view::{human, time};

/// How it is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Play {
    /// When the recording began and ended, in nanoseconds since the Unix epoch.
    pub began: u64,
    pub ended: u64,
    /// The first moment that can be shown, when it was known what was open.
    pub first: u64,
    pub paused: bool,
    pub speed: Speed,
}

/// How many times as fast as it happened: a power of two from 1/2 to 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed(i32);

/// What a key does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Stop, or go on.
    Pause,
    Faster,
    Slower,
    /// To the next event.
    Step,
    /// By seconds.
    Seek(i64),
    Start,
    End,
}

impl Speed {
    const SLOWEST: i32 = -1;
    const FASTEST: i32 = 6;

    pub fn faster(self) -> Self {
        Self((self.0 + 1).min(Self::FASTEST))
    }

    pub fn slower(self) -> Self {
        Self((self.0 - 1).max(Self::SLOWEST))
    }

    /// How far it goes in this time, both in nanoseconds.
    pub fn distance(self, ns: u64) -> u64 {
        match self.0 {
            0.. => ns.saturating_mul(1 << self.0),
            _ => ns >> -self.0,
        }
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0.. => write!(f, "x{}", 1 << self.0),
            _ => write!(f, "x1/{}", 1 << -self.0),
        }
    }
}

impl Play {
    /// The moment, and how far that is: `2026-11-23 03:12:07 x4, 2m05s of 1h02m`.
    pub fn position(&self, now: u64, zone: &TimeZone) -> String {
        let mut text = format!("{} {}, ", time::dated(now, zone), self.speed);
        human::push_us(&mut text, now.saturating_sub(self.began) / 1000);
        text.push_str(" of ");
        human::push_us(&mut text, self.ended.saturating_sub(self.began) / 1000);
        text
    }
}

/// What a key does, if it is one of these.
pub fn control(key: KeyEvent) -> Option<Control> {
    let shift = key.modifiers.contains(KeyModifiers::SHIFT);
    let seconds = if shift { 60 } else { 10 };
    Some(match key.code {
        KeyCode::Char(' ' | 'p') => Control::Pause,
        // the same key without Shift
        KeyCode::Char('+' | '=') => Control::Faster,
        KeyCode::Char('-') => Control::Slower,
        KeyCode::Char('.') => Control::Step,
        KeyCode::Left => Control::Seek(-seconds),
        KeyCode::Right => Control::Seek(seconds),
        KeyCode::Home => Control::Start,
        KeyCode::End => Control::End,
        _ => return None,
    })
}
