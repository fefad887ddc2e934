//! `portwatch list`: the sockets of this moment as a table.

mod followed;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::output::{Output, is_closed_pipe};
use super::recorded::Past;
use super::trace::Particular;
use super::{filter, netns, say, screen, wrong_usage};
use crate::cli::{self, ListArgs, Sort};
use crate::exit::Exit;
use crate::filter::Filter;
use crate::group;
use crate::row::{self, Row, State};
use crate::service;
use crate::snapshot;
use crate::source::live;
use crate::view::rows::{Layout, Rows, Style, Text};

/// Takes a snapshot, or follows events for a while, and shows what is asked for.
///
/// # Errors
/// When the arguments make no sense, not even /proc can be read, or the table cannot be written.
pub async fn run(args: ListArgs) -> Result<Exit> {
    let here = [("--duration", args.duration.is_some())];
    let session = args.source.session(&here, &args.moment.given());
    let session = session.map_err(wrong_usage)?.map(Path::to_owned);
    let wanted = Wanted {
        all: args.all,
        states: args.state,
        filter: filter::new::<Row>(args.filter).map_err(wrong_usage)?,
    };
    let source = args.source.options(&args.probes, live::RING_BYTES);
    let particular = Particular::of(&args.source, &args.probes);
    let past = match session {
        Some(path) => Some(Past::read(&path, &args.moment)?),
        None => None,
    };
    let columns = (!args.fields.is_empty()).then_some(args.fields);
    let view = match args.output {
        cli::Output::Json => Rows::Json(columns),
        cli::Output::Csv => Rows::Csv(columns, screen::is_shown(true)),
        cli::Output::Text => {
            let layout = match columns {
                Some(columns) => Layout::Chosen(columns),
                None if wanted.only_servers() => Layout::Servers,
                None => Layout::All,
            };
            let style = match &past {
                Some(past) => past.style(args.numeric),
                None => style(args.numeric, args.source.proc_root.as_deref()),
            };
            Rows::Text(Text::new(layout, style))
        }
    };

    let (rows, limits): (Box<dyn Iterator<Item = Row>>, _) = match (past, args.duration) {
        (Some(past), _) => (in_order(past.rows), past.limits),
        (None, Some(duration)) => {
            let snapshot = followed::rows(&source, duration, &particular).await?;
            (in_order(snapshot.rows), snapshot.limits)
        }
        (None, None) => {
            let mut rows = snapshot::rows(&snapshot::Options {
                listening: wanted.only_servers(),
                holders: true,
                tcp_info: true,
                in_order: true,
                ..source.snapshot()
            })?;
            let limits = std::mem::take(&mut rows.limits);
            (Box::new(rows), limits)
        }
    };
    let named = group::servers(rows).map(|mut row| {
        row.event.service = service::of(&row.event);
        row
    });
    let rows = named.filter(|row| wanted.matches(row));
    let mut output = Output::open(None)?;
    if args.sort == Sort::default() {
        // Each is made as it is printed: all of them together take several times the room, and the time.
        view.put(&mut output.buffer, rows);
    } else {
        let mut rows: Vec<Row> = rows.collect();
        row::sort(&mut rows, args.sort.column, args.sort.descending);
        view.put(&mut output.buffer, rows);
    }
    match output.flush() {
        Err(error) if is_closed_pipe(&error) => return Ok(Exit::Fine),
        result => result?,
    }
    hint(&limits);
    Ok(match wanted.filter.complaint() {
        Some(complaint) => {
            say(&complaint);
            Exit::Failed
        }
        None => Exit::Fine,
    })
}

fn in_order(mut rows: Vec<Row>) -> Box<dyn Iterator<Item = Row>> {
    rows.sort_by_key(Row::place);
    Box::new(rows.into_iter())
}

/// Tells what could not be seen, in one line.
pub fn hint(limits: &[String]) {
    if !limits.is_empty() {
        say(&limits.join("; "));
    }
}

/// Which rows are shown.
struct Wanted {
    all: bool,
    /// Empty: servers.
    states: Vec<State>,
    filter: Filter,
}

impl Wanted {
    fn only_servers(&self) -> bool {
        !self.all && self.states.is_empty()
    }

    fn matches(&self, row: &Row) -> bool {
        let state = match self.states.is_empty() {
            true => self.all || group::serves(row),
            false => self.states.contains(&row.state),
        };
        state && self.filter.matches_row(row)
    }
}

/// How tables of rows look here and now. `proc_root`: see [`netns`].
pub fn style(numeric: bool, proc_root: Option<&Path>) -> Style {
    let lines = screen::style(numeric, true, netns::home(proc_root));
    Style {
        colour: lines.colour,
        numeric,
        width: match screen::width(libc::STDOUT_FILENO) {
            Some(width) => width.into(),
            None if screen::is_shown(true) => 80,
            // There is room, but one long value should not make all lines long.
            None => 240,
        },
        zone: lines.zone,
        now: now(),
        netns: lines.netns,
        netns_names: netns::names(proc_root),
    }
}

/// Nanoseconds since the Unix epoch.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |x| u64::try_from(x.as_nanos()).unwrap_or(u64::MAX))
}
