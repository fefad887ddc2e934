//! `portwatch query FILE.db SQL`: what a session answers to a question in SQL.

use std::io::Read as _;

use anyhow::{Context as _, Error, Result, anyhow, ensure};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::interrupt::asked_to_end;
use super::output::{Output, is_closed_pipe};
use super::{screen, wrong_usage};
use crate::cli::{self, QueryArgs};
use crate::exit::Exit;
use crate::session::question::{self, Refusal};
use crate::view::answer::Answer;

/// Rows are written when there is this much of them.
const PIECE: usize = 64 << 10;
/// Longest question from stdin.
const LONGEST: u64 = 1 << 20;

/// Answers; a reader that leaves is a normal end.
///
/// # Errors
/// When there is no session, the SQL is wrong, or the answer cannot be given or written.
pub fn run(args: QueryArgs) -> Result<Exit> {
    let db = question::open(&args.file, asked_to_end()?)?;
    let mut output = Output::open(None)?;
    let answered = match args.sql {
        Some(sql) => answer(&db, &sql, args.output, &mut output),
        None => schema(&db, args.output, &mut output),
    };
    match answered {
        Err(error) if is_closed_pipe(&error) => Ok(Exit::Fine),
        result => result.map(|()| Exit::Fine),
    }
}

fn answer(db: &Connection, sql: &str, format: cli::Output, output: &mut Output) -> Result<()> {
    let sql = match sql {
        "-" => from_stdin().map_err(wrong_usage)?,
        sql => sql.to_owned(),
    };
    let mut statement = question::prepare(db, &sql).map_err(error)?;
    let columns = statement.column_names();
    let columns: Vec<String> = columns.into_iter().map(Into::into).collect();
    let count = columns.len();
    let mut answer = new(columns, format);
    answer.header(&mut output.buffer);
    let failed = |failed| error(question::refusal(db, failed));
    let mut rows = statement.query([]).map_err(failed)?;
    let mut any = false;
    let outcome = loop {
        match rows.next() {
            Ok(Some(row)) => {
                let values = (0..count).map(|column| row.get_ref(column));
                let values: Vec<ValueRef<'_>> = values.collect::<rusqlite::Result<_>>()?;
                answer.row(&mut output.buffer, &values);
                any = true;
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(failed(error)),
        }
        if output.buffer.len() >= PIECE {
            output.flush()?;
        }
    };
    if outcome.is_err() && !any {
        // Not even a header.
        return outcome;
    }
    answer.end(&mut output.buffer);
    output.flush()?;
    outcome
}

fn new(columns: Vec<String>, format: cli::Output) -> Answer {
    let colour = screen::is_coloured(true);
    Answer::new(columns, format, screen::is_shown(true), colour)
}

fn from_stdin() -> Result<String> {
    let mut sql = String::new();
    let mut stdin = std::io::stdin().take(LONGEST + 1);
    stdin
        .read_to_string(&mut sql)
        .context("reading SQL from stdin")?;
    ensure!(sql.len() as u64 <= LONGEST, "more than a megabyte of SQL");
    Ok(sql)
}

fn error(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Wrong(what) => wrong_usage(anyhow!(what)),
        Refusal::Interrupted => anyhow!("interrupted: these are not all rows"),
        Refusal::Failed(error) => Error::new(error)
            .context("reading the session (portwatch verify tells whether it is whole)"),
    }
}

/// The views with their columns.
fn schema(db: &Connection, format: cli::Output, output: &mut Output) -> Result<()> {
    let views = question::views(db)?;
    let columns = ["view", "columns"].map(str::to_owned).to_vec();
    let mut answer = new(columns, format);
    answer.header(&mut output.buffer);
    for (name, columns) in &views {
        let columns = match format {
            cli::Output::Json => serde_json::to_string(columns)?,
            _ => columns.join(" "),
        };
        let row = [name, &columns].map(|x| ValueRef::Text(x.as_bytes()));
        answer.row(&mut output.buffer, &row);
    }
    answer.end(&mut output.buffer);
    output.flush()
}
