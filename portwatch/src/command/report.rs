//! `portwatch report`: a session as an HTML page.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::file::{self, Existing};
use super::output::{Output, but_for_a_closed_pipe};
use super::say;
use super::trace::summary::verdict;
use crate::cli::ReportArgs;
use crate::event::Event;
use crate::exit::Exit;
use crate::session::survey::Survey;
use crate::session::{self, Session};
use crate::view::human;
use crate::view::report::Report;

/// From this many events on, it takes a while.
const MANY: i64 = 500_000;

/// Makes the page and says where it is.
///
/// # Errors
/// When the session cannot be read or the page cannot be written.
pub fn run(args: &ReportArgs) -> Result<Exit> {
    let to = match &args.output {
        Some(path) if path.as_os_str() == "-" => None,
        Some(path) => Some(path.clone()),
        None => Some(args.session.with_extension("html")),
    };
    let existing = match args.force {
        true => Existing::Overwritten,
        false => Existing::KeptWithoutForce,
    };
    if let Some(path) = &to {
        // Before all the work.
        file::is_free(path, existing)?;
    } else {
        ensure!(
            !std::io::stdout().is_terminal(),
            "a page is nothing for a terminal: name a file with -o"
        );
    }
    let mut session = Session::open(&args.session)?;
    let many = session.last_event()? >= MANY && std::io::stderr().is_terminal();
    // One moment for all questions, also while the session is being written.
    session.connection().execute_batch("BEGIN")?;
    let survey = Survey::of(&session, |what| {
        if many {
            say(&format!("counting {what}"));
        }
    });
    let survey = survey.with_context(|| format!("reading {}", args.session.display()))?;
    let events = sample(&mut session, args.events);
    let events = events.with_context(|| format!("reading {}", args.session.display()))?;
    session.connection().execute_batch("COMMIT")?;
    let proof = match args.verify {
        true => Some(session::verify(&args.session, None)?),
        false => None,
    };
    let altered = proof.as_ref().and_then(|proof| proof.fault.clone());
    let report = Report {
        accounts: accounts(&survey),
        survey,
        events,
        verdict: proof,
        name: name(&args.session),
        now: u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0),
    };
    let html = report.html();
    match &to {
        None => {
            let mut output = Output::open(None)?;
            output.buffer = html.into_bytes();
            but_for_a_closed_pipe(output.flush())?;
        }
        Some(path) => {
            write(path, &html, existing)?;
            let mut size = String::new();
            human::push_bytes(&mut size, html.len() as u64);
            say(&format!("{}: {size}, {}", path.display(), told(&report)));
        }
    }
    Ok(match altered {
        None => Exit::Fine,
        Some(fault) => {
            say(&format!("the session was altered: {}", fault.what));
            Exit::Failed
        }
    })
}

/// What each run that was finished says of losses, as it was said at its end.
fn accounts(survey: &Survey) -> Vec<(i64, String)> {
    let said = survey.runs.iter().filter_map(|run| {
        let accounts = serde_json::from_str(&run.finish.as_ref()?.accounts);
        let said = accounts.map_or_else(
            |_| "the accounts of its losses are not readable".to_owned(),
            |accounts| verdict(&accounts, run.run.not_observed.as_deref()),
        );
        Some((run.id, said))
    });
    said.collect()
}

/// What is in the page, in a few words.
fn told(report: &Report) -> String {
    let (shown, all) = (report.events.len() as u64, report.survey.totals.events);
    match shown < all {
        true => format!("{all} events, {shown} of them in the table"),
        false => format!("{all} events"),
    }
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

fn write(path: &Path, html: &str, existing: Existing) -> Result<()> {
    let mut file = file::create(path, existing)?;
    let written = file.write_all(html.as_bytes());
    if written.is_err() {
        // Half a page is none, and would be in the way of the next.
        let _ = file::remove(path);
    }
    written.with_context(|| format!("writing {}", path.display()))
}

/// Up to `most` events with their numbers, evenly spread.
fn sample(session: &mut Session, most: u32) -> Result<Vec<(i64, Event)>> {
    let last = session.last_event()?;
    let most = i64::from(most);
    let mut events = Vec::new();
    let mut found = Vec::new();
    if last <= most {
        session.events(1, last, usize::MAX, 1, &mut found)?;
        return Ok(numbered(1, found));
    }
    // The first and the last are among them.
    for at in 0..most {
        let id = match most {
            1 => last,
            _ => 1 + i64::try_from(i128::from(last - 1) * i128::from(at) / i128::from(most - 1))?,
        };
        session.events(id, id, 1, 1, &mut found)?;
        events.extend(numbered(id, std::mem::take(&mut found)));
    }
    Ok(events)
}

fn numbered(first: i64, events: Vec<Event>) -> Vec<(i64, Event)> {
    (first..).zip(events).collect()
}
