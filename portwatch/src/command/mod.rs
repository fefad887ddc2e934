//! What each subcommand does, from its arguments to the exit code.

mod compare;
mod doctor;
mod export;
mod file;
mod filter;
mod holders;
mod interrupt;
mod list;
mod netns;
mod output;
mod query;
mod record;
mod recorded;
mod report;
mod screen;
mod signals;
mod top;
mod trace;
mod verify;
mod who;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Error, Result};
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};
use crate::exit::Exit;
use crate::sanitize;

/// How often to look whether the reader of our output is still there, when nothing is written.
const READER_CHECK: Duration = Duration::from_millis(500);

/// How long a full pipe on stderr that does not block is waited for, in milliseconds.
const PATIENCE: i32 = 1000;

/// Arguments that parse but make no sense: exit code 2.
#[derive(Debug)]
struct WrongUsage(Error);

/// Waits for so long; forever when no time is given.
async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Parses the command line of this process and carries it out.
pub fn main() -> ExitCode {
    signals::begin();
    let cli = match Cli::parse_words(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return tell(&error).into(),
    };
    match run(cli) {
        Ok(exit) => exit,
        Err(error) => {
            say(&format!("{error:#}"));
            if error.is::<WrongUsage>() {
                Exit::WrongUsage
            } else {
                Exit::Failed
            }
        }
    }
    .into()
}

/// Prints what clap has to say: help and version, or what is wrong with the usage.
fn tell(error: &clap::Error) -> Exit {
    use std::io::Write as _;
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    match (error.kind(), printed) {
        (ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, Err(error))
            if error.kind() != std::io::ErrorKind::BrokenPipe =>
        {
            say(&format!("writing to stdout: {error}"));
            Exit::Failed
        }
        (ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, _) => Exit::Fine,
        // Nobody may be there to read it, which changes nothing.
        _ => Exit::WrongUsage,
    }
}

fn run(cli: Cli) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Trace(args) => trace::run(*args).await,
            Command::Record(args) => record::run(*args).await,
            Command::Top(args) => top::run(*args).await,
            Command::List(args) => list::run(*args).await,
            Command::Who(args) => who::run(args).await,
            Command::Report(args) => report::run(&args),
            Command::Query(args) => query::run(args),
            Command::Verify(args) => verify::run(&args),
            Command::Export(args) => export::run(*args),
            Command::Doctor(args) => doctor::run(&args),
        }
    })
}

/// One line on stderr. Nobody may be there to read it, which is no reason to stop.
fn say(text: &str) {
    // Names of files and what is in them may be hostile.
    let lines: Vec<_> = text.lines().map(sanitize::escaped).collect();
    let line = format!("portwatch: {}\n", lines.join("\n"));
    let _ = output::write_all(std::io::stderr(), line.as_bytes(), PATIENCE);
}

impl std::fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:#}\nFor more information, try 'portwatch COMMAND --help'.",
            self.0
        )
    }
}

impl std::error::Error for WrongUsage {}

/// Marks an error as the user's.
fn wrong_usage(error: Error) -> Error {
    Error::new(WrongUsage(error))
}
