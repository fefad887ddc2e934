//! A session as commands ask for it: which recording, which moment or part, and what is said of it.

mod past;
mod times;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use jiff::tz::TimeZone;

use super::list::now;
use super::wrong_usage;
use crate::cli::When;
use crate::sanitize;
use crate::session::{self, Recorded, Session};
use crate::view::time;

pub use past::{Past, home};

use times::{first_after, moment};

/// A session that was opened.
pub struct Recording {
    pub session: Session,
    /// In their order, at least one.
    pub runs: Vec<Part>,
    /// Someone is writing it.
    pub goes_on: bool,
    path: PathBuf,
    pub zone: TimeZone,
}

/// One recording of a session.
#[derive(Clone, Debug)]
pub struct Part {
    pub run: Recorded,
    /// Nanoseconds since the Unix epoch; of one that is being written the end is now.
    pub began: u64,
    pub ended: u64,
}

impl Recording {
    /// All recordings of a session, or one.
    ///
    /// # Errors
    /// When there is no such session or recording.
    pub fn open(path: &Path, run: Option<i64>) -> Result<Self> {
        let hint = "--from takes poll, or the file of a session";
        let goes_on = session::is_being_written(path).context(hint)?;
        let session = Session::open(path)?;
        let mut runs = Vec::new();
        for run in session.runs()? {
            let (began, ended) = session.span(&run)?;
            runs.push(Part { run, began, ended });
        }
        let goes_on = goes_on && runs.last().is_some_and(|last| last.run.finish.is_none());
        if let Some(last) = runs.last_mut().filter(|_| goes_on) {
            last.ended = last.ended.max(now());
        }
        if runs.is_empty() {
            return Err(anyhow!("{} holds no recording yet", path.display()));
        }
        if let Some(id) = run {
            let count = runs.len();
            runs.retain(|part| part.run.id == id);
            if runs.is_empty() {
                let error = anyhow!("{} has no run {id}: there are 1 to {count}", path.display());
                return Err(wrong_usage(error));
            }
        }
        Ok(Self {
            session,
            runs,
            goes_on,
            path: path.to_owned(),
            zone: time::local(),
        })
    }

    /// First and last moment, in nanoseconds since the Unix epoch.
    fn span(&self) -> (u64, u64) {
        let ends = self.runs.iter().map(|part| (part.began, part.ended));
        ends.fold((u64::MAX, 0), |(began, ended), part| {
            (began.min(part.0), ended.max(part.1))
        })
    }

    /// The recording of a moment, and that moment; without one, the end.
    ///
    /// # Errors
    /// When it is outside of all of them.
    pub fn moment(&self, at: Option<&When>) -> Result<(Part, u64)> {
        let of_last = || self.runs.last().map(|last| (last, last.ended));
        let (part, ts) = match at {
            None => of_last().context("no recording")?,
            Some(at) => {
                let ts = self.nearest(at);
                // Its beginning may be written in whole seconds, or as it is shown, in milliseconds.
                let covers = |part: &&Part| {
                    let begins = |unit: u64| ts == part.began - part.began % unit;
                    (part.began..=part.ended).contains(&ts)
                        || begins(1_000_000_000)
                        || begins(1_000_000)
                };
                let part = self.runs.iter().rev().find(covers);
                (part.ok_or_else(|| self.outside(ts))?, ts)
            }
        };
        Ok((part.clone(), ts.max(part.began)))
    }

    /// From when until when, as far as it is limited. A time of day as the end is the first one after the
    /// beginning.
    ///
    /// # Errors
    /// When nothing of the session is in between.
    pub fn between(&self, since: Option<&When>, until: Option<&When>) -> Result<(u64, u64)> {
        let from = since.map_or(0, |since| self.nearest(since));
        let to = until.map_or(u64::MAX, |until| match (since, until) {
            (Some(_), When::TimeOfDay(time)) => first_after(*time, from, &self.zone),
            _ => self.nearest(until),
        });
        let covers = |part: &Part| part.began <= to && part.ended >= from;
        if !self.runs.iter().any(covers) && from <= to {
            return Err(self.outside(if since.is_some() { from } else { to }));
        }
        if to < from {
            let (from, to) = (time::exact(from, &self.zone), time::exact(to, &self.zone));
            return Err(wrong_usage(anyhow!(
                "--until ({to}) is before --since ({from})"
            )));
        }
        Ok((from, to))
    }

    /// That moment. A time of day is the last one in the session; where there is none, the one that is
    /// nearest to it.
    fn nearest(&self, when: &When) -> u64 {
        const DAY: u64 = 86_400_000_000_000;
        let (began, ended) = self.span();
        let last = moment(when, ended, &self.zone);
        let next = last.saturating_add(DAY);
        let is_nearer = next.saturating_sub(ended) < began.saturating_sub(last);
        match when {
            When::TimeOfDay(_) if last < began && is_nearer => next,
            _ => last,
        }
    }

    /// The last recording that has something of this time.
    pub fn latest_in(&self, since: u64, until: u64) -> Option<Part> {
        let covers = |part: &&Part| part.began <= until && part.ended >= since;
        self.runs.iter().rev().find(covers).cloned()
    }

    /// The first moment of a recording of which it is known what was open.
    ///
    /// # Errors
    /// When the session cannot be read.
    pub fn beginning(&self, part: &Part) -> Result<u64> {
        let known_from = self.session.known_from(&part.run)?;
        Ok(known_from.unwrap_or(part.began))
    }

    fn outside(&self, ts: u64) -> anyhow::Error {
        let spans: Vec<String> = self.runs.iter().map(|part| self.times(part)).collect();
        wrong_usage(anyhow!(
            "{} is outside of {}, which covers {}",
            time::exact(ts, &self.zone),
            self.path.display(),
            spans.join(" and ")
        ))
    }

    fn times(&self, part: &Part) -> String {
        format!(
            "{} to {}",
            time::exact(part.began, &self.zone),
            time::exact(part.ended, &self.zone)
        )
    }

    /// What a recording is, in one line.
    pub fn describe(&self, part: &Part) -> String {
        format!("{}, {}", self.name(part), self.times(part))
    }

    /// The same of a moment.
    pub fn describe_moment(&self, part: &Part, ts: u64) -> String {
        let at = time::exact(ts, &self.zone);
        format!("{}, as of {at}", self.name(part))
    }

    fn name(&self, part: &Part) -> String {
        let run = &part.run.run;
        let mut text = self.path.display().to_string();
        if part.run.id > 1 || self.runs.len() > 1 {
            text.push_str(&format!(", run {}", part.run.id));
        }
        text.push_str(&format!(": {}", sanitize::text(run.source.as_bytes())));
        if let Some(host) = &run.host {
            text.push_str(&format!(" on {}", sanitize::text(host.as_bytes())));
        }
        text
    }

    /// What is not known of a recording, for people; `None`: it came to its end.
    pub fn cut_off(&self, part: &Part) -> Option<String> {
        if part.run.finish.is_some() {
            return None;
        }
        let last = self.runs.last().map(|last| last.run.id);
        Some(match self.goes_on && last == Some(part.run.id) {
            true => "the recording goes on".to_owned(),
            false => format!(
                "the recording was cut off at {}, and what was lost until then is not known",
                time::exact(part.ended, &self.zone)
            ),
        })
    }
}
