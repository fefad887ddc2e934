//! What a session tells of a moment: its open sockets.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Result;

use super::Recording;
use crate::cli::MomentArgs;
use crate::command::list::style;
use crate::command::say;
use crate::row::Row;
use crate::session::{Recorded, Session};
use crate::table::Limits;
use crate::view::rows::Style;

pub struct Past {
    pub session: Session,
    pub run: Recorded,
    /// Nanoseconds since the Unix epoch.
    pub ts: u64,
    pub rows: Vec<Row>,
    /// What is not known, each a sentence.
    pub limits: Vec<String>,
    /// Why sockets may be missing, be they open as they may.
    pub unseen: Option<&'static str>,
    /// The network namespace that goes without saying.
    pub netns: Option<u32>,
}

impl Past {
    /// Says on stderr which moment it is.
    ///
    /// # Errors
    /// When the session cannot be read, or the moment is outside of it.
    pub fn read(path: &Path, moment: &MomentArgs) -> Result<Self> {
        let recording = Recording::open(path, moment.run)?;
        let (part, ts) = recording.moment(moment.at.as_ref())?;
        say(&recording.describe_moment(&part, ts));
        let mut session = recording.session;
        let table = session.table_at(&part.run, ts, Limits::default())?;
        let unseen = if part.run.run.command.is_some() {
            Some("the recording holds the sockets of one command only")
        } else if session.known_from(&part.run)?.is_none() {
            Some("what was open before the recording is not known")
        } else {
            None
        };
        let mut limits: Vec<String> = unseen.map(str::to_owned).into_iter().collect();
        if table.lost() > 0 {
            limits.push(format!("{} events were lost until then", table.lost()));
        }
        let open = table.iter().filter(|sight| sight.end.is_none());
        let rows: Vec<Row> = open.map(|sight| sight.row()).collect();
        Ok(Self {
            netns: home(part.run.run.netns, &rows),
            session,
            run: part.run,
            ts,
            rows,
            limits,
            unseen,
        })
    }

    /// How tables look: ages and the day are those of the moment.
    pub fn style(&self, numeric: bool) -> Style {
        Style {
            now: self.ts,
            netns: self.netns,
            // Namespaces of this machine have nothing to do with it.
            netns_names: HashMap::new(),
            ..style(numeric, None)
        }
    }
}

/// The namespace that was told to go without saying, else the one with most sockets.
pub fn home(told: Option<u32>, rows: &[Row]) -> Option<u32> {
    told.or_else(|| {
        let mut counts = BTreeMap::<u32, usize>::new();
        for netns in rows.iter().filter_map(|row| row.event.netns) {
            *counts.entry(netns).or_default() += 1;
        }
        counts.into_iter().max_by_key(|x| x.1).map(|x| x.0)
    })
}
