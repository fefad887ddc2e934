//! The command line as it is written. What it means is worked out by the commands.

mod doctor;
mod export;
mod filter;
mod list;
mod probes;
mod query;
mod record;
mod report;
mod source;
mod top;
mod trace;
mod verify;
mod when;
mod who;

use std::ffi::OsString;

use clap::builder::{PossibleValue, UnknownArgumentValueParser};
use clap::error::ErrorKind;
use clap::{Arg, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::event::{Field, Kind};

pub use doctor::DoctorArgs;
pub use export::{ExportArgs, ExportFormat};
pub use filter::{EventFilterArgs, FilterArgs};
pub use list::{ListArgs, Sort};
pub use probes::ProbeArgs;
pub use query::QueryArgs;
pub use record::RecordArgs;
pub use report::ReportArgs;
pub use source::{MomentArgs, SourceArgs, SourceChoice, SpanArgs};
pub use top::TopArgs;
pub use trace::TraceArgs;
pub use verify::VerifyArgs;
pub use when::When;
pub use who::{Target, WhoArgs};

/// Who opens, listens on, connects, accepts and closes every port of this machine, as it happens
#[derive(Debug, Parser)]
#[command(
    name = "portwatch",
    version,
    override_usage = "portwatch [COMMAND] [OPTIONS]",
    max_term_width = 100
)]
#[command(after_help = "\
Which question, which command:
  who listens where, right now?           portwatch, the same as portwatch list
  every socket, in every state            portwatch -a
  who has port 8080, why does bind fail?  portwatch who 8080
  what happens as it happens?             portwatch trace
  the same as a table, on the screen      portwatch top
  what fails, and why?                    portwatch trace --failed
  the same, to be asked later on          portwatch record s.db
  which ports does a command use?         portwatch trace -- npm start
  what was it like at 03:12?              portwatch list --from s.db --at 03:12
  a recording as a page to look at?       portwatch report s.db
  what does a recording tell?             portwatch query s.db 'SELECT …'
  is a recording as it was made?          portwatch verify s.db
  other tools are to have it              portwatch export s.db
  what can this kernel give?              portwatch doctor

Without root, list and who show the sockets of this network namespace, with the owners of your own \
processes only; trace and top poll, and miss what is short-lived. Without a command, options are those \
of list. Each command explains itself: portwatch list --help")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Parses the words of a command line, the name of the program first. Without a command it is
    /// `list`.
    ///
    /// # Errors
    /// On wrong usage, and when help or version is asked for, which is to be printed then.
    pub fn parse_words(words: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut words: Vec<OsString> = words.collect();
        let is_own = |word: &OsString| {
            let own = ["-h", "--help", "-V", "--version"];
            !word.as_encoded_bytes().starts_with(b"-") || own.iter().any(|x| word == x)
        };
        if !words.get(1).is_some_and(is_own) {
            words.insert(words.len().min(1), "list".into());
        }
        let ends_open = words.last().is_some_and(|word| word == "--");
        let cli = Self::try_parse_from(words)?;
        // Else everything would be traced, where a script's command came out empty.
        let no_command = match &cli.command {
            Command::Trace(args) => args.command.is_empty(),
            Command::Record(args) => args.command.is_empty(),
            _ => false,
        };
        if ends_open && no_command {
            let message = "no command after --";
            return Err(Self::command().error(ErrorKind::MissingRequiredArgument, message));
        }
        Ok(cli)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    List(Box<ListArgs>),
    Who(WhoArgs),
    Trace(Box<TraceArgs>),
    Top(Box<TopArgs>),
    Record(Box<RecordArgs>),
    Report(ReportArgs),
    Query(QueryArgs),
    Verify(VerifyArgs),
    Export(Box<ExportArgs>),
    Doctor(DoctorArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    Text,
    Json,
}

/// A flag about a session that other commands have, to be told what this one has instead.
fn elsewhere(name: &'static str, instead: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("TIME")
        .hide(true)
        .allow_hyphen_values(true)
        .value_parser(UnknownArgumentValueParser::suggest(instead))
}

const MOMENT: &str = "a moment of a session is named with --at";
const SPAN: &str = "a part of a session is named with --since and --until";

// By hand, as these are spelled by the schema.
impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        Kind::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

impl ValueEnum for Field {
    fn value_variants<'a>() -> &'a [Self] {
        Field::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Column;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// clap breaks lines that are too long for the terminal, so what it is to break has to be whole.
    #[test]
    fn help_fits_into_80_columns() {
        let portwatch = Cli::command();
        for command in portwatch.get_subcommands().chain([&portwatch]) {
            let help = (command.get_after_long_help()).or(command.get_after_help());
            let help = help.unwrap().to_string();
            let mut lines = help.lines().peekable();
            while let Some(line) = lines.next() {
                let is_whole = lines
                    .peek()
                    .is_none_or(|next| next.is_empty() || next.starts_with(" "));
                let is_prose = !line.starts_with(' ') && is_whole;
                let fits = line.chars().count() <= 80;
                assert!(fits || is_prose, "{}: {line}", command.get_name());
            }
        }
    }

    #[test]
    fn help_explains_every_name() {
        let help = |name: &str| {
            let mut command = Cli::command();
            let command = command.find_subcommand_mut(name).unwrap();
            command.get_after_long_help().unwrap().to_string()
        };
        let explained = |help: &str, name: &str| {
            let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
            help.split(|c: char| !is_of_name(c))
                .any(|word| word == name)
        };
        let (trace, list) = (help("trace"), help("list"));
        for field in Field::ALL {
            assert!(explained(&trace, field.as_str()), "trace: {field}");
        }
        for column in Column::ALL {
            assert!(explained(&list, column.as_str()), "list: {column:?}");
        }
    }

    #[test]
    fn record_offers_no_file_as_its_source() {
        let mut command = Cli::command();
        let record = command.find_subcommand_mut("record").unwrap();
        let help = record.render_long_help().to_string();
        assert!(help.contains("poll records what polling sees"), "{help}");
        assert!(!help.contains("the FILE of a session"), "{help}");
    }

    #[test]
    fn wrong_usage_says_what_would_be_right() {
        for (line, expected) in [
            ("trace -P http", "nor a range FIRST-LAST"),
            ("trace -P 9-8", "write 8-9"),
            ("trace -e conect", "connect"),
            ("trace -F dport", "rport"),
            ("trace -d soon", "write seconds, or 500ms"),
            ("trace --net example.com", "write 10.0.0.0/8"),
            ("trace --ring-size 3M", "powers of two"),
            ("trace --probes ebpf", "trampoline"),
            ("trace -o yaml", "csv"),
            ("trace --from poll --probes kprobe", "cannot be used with"),
            (
                "trace --proc-root /proc --probes kprobe",
                "cannot be used with",
            ),
            ("trace --from poll --ring-size 8M", "cannot be used with"),
            ("top --proc-root / --ring-size 8M", "cannot be used with"),
            (
                "record s.db --from poll --ring-size 8M",
                "cannot be used with",
            ),
            ("trace --from poll --kernel-notes", "cannot be used with"),
            ("trace --interval 0", "no time at all"),
            ("trace -c 0", "'0' is not a number of events from 1"),
            ("trace --since 03:12", "--from <SOURCE>"),
            ("trace --from s.db --until noon", "write 03:12, 03:12:07"),
            ("list --from s.db --since 03:12", "named with --at"),
            ("list --from s.db --since -1s", "named with --at"),
            ("who 80 --from s.db --until -1s", "named with --at"),
            ("trace --from s.db --at -1s", "with --since and --until"),
            ("export s.db --at -1s", "with --since and --until"),
            ("query s.db", "query [OPTIONS] <FILE.db> <SQL|--schema>"),
            ("query s.db x --schema", "cannot be used with"),
            ("report s.db --events -1", "-1 is not in 1..=1000000"),
            ("--comm=", "it is empty: write names"),
            ("--netns=", "it is empty: write names"),
            ("trace --container=", "it is empty: write names"),
            ("--at 03:12", "--from <SOURCE>"),
            (
                "top --from s.db --at 01:00 --since -1m",
                "cannot be used with",
            ),
            ("who 80 --from s.db --run 0", "'0' is not a number from 1"),
            ("trace curl", "[-- <COMMAND>...]"),
            ("trase", "trace"),
            ("record", "<FILE>"),
            ("record s.db --max-size 4K", "at least 1M"),
            ("record s.db --max-size much", "write bytes, or 512K"),
            ("record s.db -n", "--output"),
            ("who", "[ADDR[%DEV]:]PORT"),
            ("who http", "write 8080, 127.0.0.1:8080 or [::1]:8080"),
            ("trace -t --", "no command after --"),
            ("record s.db --", "no command after --"),
            ("record s.db --max-files 0", "number of files from 1"),
            ("record s.db --max-files x", "number of files from 1"),
            ("record s.db --max-age -1", "'-1' is not a time"),
            (
                "trace -p -1",
                "'-1' is neither a number from 0 to 4294967295",
            ),
            ("-P -1", "'-1' is neither a number from 0 to 65535"),
            ("trace -d -1", "'-1' is not a time"),
            ("trace --interval -5", "'-5' is not a time"),
            ("trace --ring-size -1", "'-1' is not a size"),
            ("trace -c -1", "'-1' is not a number of events"),
            (
                "list -F dport",
                "no column 'dport'; there are: proto, state",
            ),
            ("list --sort --pid", "no column '-pid'"),
            (
                "--state listening",
                "no state 'listening'; there are: listen, ",
            ),
            (
                "verify s.db --expect 3f0e",
                "write the 64 hexadecimal digits",
            ),
            ("list --probes kprobe", "--duration <TIME>"),
            ("--interval 50ms", "--duration <TIME>"),
            ("--ring-size 8M", "--duration <TIME>"),
            ("who 80 --probes kprobe", "--wait"),
            ("who 80 --ring-size 8M", "--wait"),
        ] {
            let words = std::iter::once("portwatch").chain(line.split_whitespace());
            let error = Cli::parse_words(words.map(Into::into)).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(expected), "{line}: {error}");
        }
    }
}
