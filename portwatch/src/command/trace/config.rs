//! From the arguments of `trace` to what it will do; what cannot be is refused before anything
//! starts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::Particular;
use super::child::check_tree;
use crate::cli::{self, SpanArgs, TraceArgs};
use crate::command::{filter, netns, screen};
use crate::filter::Filter;
use crate::source::{self, live};
use crate::view::lines::{Csv, Json, Lines, Text};

/// A trace that can start.
pub struct Config {
    pub source: source::Options,
    /// Instead of the source, when one was named.
    pub session: Option<Asked>,
    pub filter: Filter,
    pub lines: Lines,
    /// `None`: stdout.
    pub write: Option<PathBuf>,
    pub count: Option<u64>,
    pub duration: Option<Duration>,
    pub require_complete: bool,
    pub particular: Particular,
    /// At least one word.
    pub command: Option<Vec<OsString>>,
}

/// Which part of a session is to be shown.
pub struct Asked {
    pub path: PathBuf,
    pub span: SpanArgs,
    pub run: Option<i64>,
}

impl Config {
    pub fn new(args: TraceArgs) -> Result<Self> {
        let here = [("a command", !args.command.is_empty())];
        let past = [&args.span.given()[..], &[("--run", args.run.is_some())]].concat();
        let session = args.source.session(&here, &past)?.map(|path| Asked {
            path: path.to_owned(),
            span: args.span.clone(),
            run: args.run,
        });
        if !args.command.is_empty() {
            check_tree(args.source.proc_root.as_deref())?;
        }
        let fields = (!args.fields.is_empty()).then_some(args.fields);
        let lines = match args.output {
            cli::Output::Text => {
                let home = netns::home(args.source.proc_root.as_deref());
                let style = screen::style(args.numeric, args.write.is_none(), home);
                Lines::Text(Text::new(fields.as_deref(), style))
            }
            cli::Output::Json => Lines::Json(Json::new(fields)),
            cli::Output::Csv => {
                Lines::Csv(Csv::new(fields, screen::is_shown(args.write.is_none())))
            }
        };
        let filter = filter::of_events(args.filter)?;
        let mut source = args.source.options(&args.probes, live::RING_BYTES);
        source.live.kinds.retain(|&kind| filter.allows(kind));
        source.live.notes = args.kernel_notes;
        source.command = !args.command.is_empty();
        Ok(Self {
            particular: Particular {
                kernel_notes: args.kernel_notes,
                ..Particular::of(&args.source, &args.probes)
            },
            source,
            session,
            filter,
            lines,
            write: args.write,
            count: args.count,
            duration: args.duration,
            require_complete: args.require_complete,
            command: (!args.command.is_empty()).then_some(args.command),
        })
    }
}
