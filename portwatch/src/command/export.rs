//! `portwatch export FILE.db`: the events of a session for other tools.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, anyhow, bail};

use super::interrupt::asked_to_end;
use super::output::{Output, is_closed_pipe};
use super::recorded::Recording;
use super::{filter, say, screen, wrong_usage};
use crate::cli::{ExportArgs, ExportFormat};
use crate::event::Event;
use crate::exit::Exit;
use crate::filter::Filter;
use crate::session::{Recorded, Run, Session};
use crate::view::export::Documents;
use crate::view::lines::{Csv, Json, Lines};

/// Events read at a time.
const PIECE: usize = 1000;

/// Writes the events that pass the filters; a reader that leaves is a normal end.
///
/// # Errors
/// When the arguments make no sense, there is no session, or nothing can be written.
pub fn run(args: ExportArgs) -> Result<Exit> {
    let filter = filter::of_events(args.filter).map_err(wrong_usage)?;
    if args.format == ExportFormat::Parquet && !cfg!(feature = "parquet") {
        return Err(wrong_usage(anyhow!(
            "this portwatch was built without parquet: cargo build --release --features parquet makes one with it"
        )));
    }
    // What is wrong with the file is told as of a file, not as of a source.
    let mut session = Session::open(&args.file)?;
    let recording = Recording::open(&args.file, None)?;
    let (from, to) = recording.between(args.since.as_ref(), args.until.as_ref())?;
    // Who began a connection may be told before.
    let begins_early = matches!(args.format, ExportFormat::Ecs | ExportFormat::Ocsf);
    let interrupted = asked_to_end()?;
    let mut export = Export {
        runs: recording.runs.into_iter().map(|part| part.run).collect(),
        numbers: match begins_early {
            true => 1..=session.last_until(to)?,
            false => session.first_from(from)?..=session.last_until(to)?,
        },
        times: from..=to,
        session: &mut session,
        filter: &filter,
        interrupted: &interrupted,
        count: 0,
    };
    let mut output = Output::open(args.write.as_deref())?;
    let written = match args.format {
        ExportFormat::Jsonl => export.lines(Lines::Json(Json::new(None)), &mut output),
        ExportFormat::Csv => {
            let csv = Csv::new(None, screen::is_shown(args.write.is_none()));
            export.lines(Lines::Csv(csv), &mut output)
        }
        ExportFormat::Ecs => export.documents(&mut output, |run| Documents::ecs(run)),
        ExportFormat::Ocsf => export.documents(&mut output, |run| Documents::ocsf(run)),
        #[cfg(feature = "parquet")]
        ExportFormat::Parquet => export.parquet(&mut output),
        // Refused above.
        #[cfg(not(feature = "parquet"))]
        ExportFormat::Parquet => Ok(()),
    };
    match written {
        Err(error) if is_closed_pipe(&error) => return Ok(Exit::Fine),
        result => result?,
    }
    if args.write.is_some() {
        say(&format!("{} events written", export.count));
    }
    Ok(match filter.complaint() {
        Some(complaint) => {
            say(&complaint);
            Exit::Failed
        }
        None => Exit::Fine,
    })
}

struct Export<'a> {
    session: &'a mut Session,
    runs: Vec<Recorded>,
    /// Of the events that are read.
    numbers: RangeInclusive<i64>,
    /// Of those that are shown; nanoseconds since the Unix epoch.
    times: RangeInclusive<u64>,
    filter: &'a Filter,
    interrupted: &'a AtomicBool,
    /// Events written.
    count: u64,
}

impl Export<'_> {
    fn lines(&mut self, mut lines: Lines, output: &mut Output) -> Result<()> {
        lines.header(&mut output.buffer);
        for run in self.runs.clone() {
            self.events(&run, output, |out, event, shown| {
                if shown {
                    lines.event(out, event);
                }
            })?;
        }
        output.flush()
    }

    fn documents(
        &mut self,
        output: &mut Output,
        of_run: impl Fn(&Run) -> Documents<'_>,
    ) -> Result<()> {
        for run in self.runs.clone() {
            let mut documents = of_run(&run.run);
            self.events(&run, output, |out, event, shown| {
                documents.event(out, event, shown)
            })?;
        }
        Ok(())
    }

    #[cfg(feature = "parquet")]
    fn parquet(&mut self, output: &mut Output) -> Result<()> {
        let mut parquet = crate::view::export::parquet::Parquet::new()?;
        for run in self.runs.clone() {
            let mut trouble = Ok(());
            self.events(&run, output, |out, event, shown| {
                if shown && trouble.is_ok() {
                    trouble = parquet.event(out, event);
                }
            })?;
            trouble?;
        }
        parquet.end(&mut output.buffer)?;
        output.flush()
    }

    /// Reads the events of a run piece by piece; what `put` appends is written. It is told of all
    /// of them, and which of them are to be shown.
    fn events(
        &mut self,
        run: &Recorded,
        output: &mut Output,
        mut put: impl FnMut(&mut Vec<u8>, &Event, bool),
    ) -> Result<()> {
        let first = run.events.start;
        let last = *self.numbers.end().min(&(run.events.end - 1));
        let mut events = Vec::with_capacity(PIECE);
        let mut next = *self.numbers.start().max(&first);
        while next <= last {
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted: these are not all events");
            }
            events.clear();
            next = self.session.events(next, last, PIECE, first, &mut events)?;
            if events.is_empty() {
                bail!("event {next} is missing: portwatch verify tells more");
            }
            for event in &events {
                let shown = self.times.contains(&event.ts) && self.filter.matches(event);
                self.count += u64::from(shown);
                put(&mut output.buffer, event, shown);
            }
            output.flush()?;
        }
        Ok(())
    }
}
