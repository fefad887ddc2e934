//! `portwatch record`: events from their source into a session. What takes time is done by a thread of
//! its own (`recorder.rs`), which `feed.rs` feeds; here is what begins and ends both.

mod executables;
mod feed;
mod files;
mod filling;
mod outcome;
mod print;
mod processes;
mod progress;
mod recorder;
mod shared;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use anyhow::{Context as _, Result, anyhow};
use caps::Capability;
use serde_json::json;

use super::compare::Compare;
use super::holders::Holders;
use super::output::Output;
use super::signals::Signals;
use super::trace::child;
use super::trace::summary::Summary;
use super::trace::{Particular, greet, not_observed, verdict};
use super::{netns, say, screen, wrong_usage};
use crate::cli::{self, RecordArgs};
use crate::exit::Exit;
use crate::privileges;
use crate::sanitize;
use crate::session::{Run, SecretKey};
use crate::source::{self, Source, live};
use crate::view::doctor::plan_json;
use crate::view::lines::{Csv, Json, Lines, Text};

use feed::Feed;
use files::Files;
use outcome::Outcome;
use print::Print;
use progress::Progress;
use recorder::Recorder;
use shared::Shared;

/// Messages that may wait for the recorder, each with the events of one drain of the ring. When they do,
/// the source is left alone, and the kernel counts what its ring has no room for.
const WAITING: usize = 8;

/// A busy machine is to be recorded too: this and all later threads go before others of the same
/// niceness, as auditd(8) does with its priority_boost. The command was started before.
const NICER: i32 = -10;

/// Records until something ends it.
///
/// # Errors
/// When the arguments make no sense, nothing can be seen, or the session cannot be written.
pub async fn run(args: RecordArgs) -> Result<Exit> {
    if args
        .source
        .session(&[], &[])
        .map_err(wrong_usage)?
        .is_some()
    {
        let text = "record --from takes poll only: trace, list, who and top show a session";
        return Err(wrong_usage(anyhow!(text)));
    }
    if args.max_files.is_some() && args.max_size.is_none() && args.max_age.is_none() {
        let text =
            "--max-files is for files that follow each other: give --max-size or --max-age, too";
        return Err(wrong_usage(anyhow!(text)));
    }
    if args.file == Path::new("-") {
        let text = "a session cannot be written to stdout: name a file, such as s.db (-o json prints events, too)";
        return Err(wrong_usage(anyhow!(text)));
    }
    let command = (!args.command.is_empty()).then_some(&args.command);
    if command.is_some() {
        child::check_tree(args.source.proc_root.as_deref()).map_err(wrong_usage)?;
    }
    let mut signals = Signals::new().context("waiting for signals")?;
    let key = args.sign.as_deref().map(SecretKey::load).transpose()?;
    if key.as_ref().is_some_and(SecretKey::is_exposed) {
        say("others may read the key: chmod 600 it");
    }
    let key = key.map(Arc::new);
    let (files, file) = Files::open(&args, key.as_deref())?;
    let options = source::Options {
        command: command.is_some(),
        ..args.source.options(&args.probes, live::RING_BYTES)
    };
    let mut source = Source::start(&options)?;
    greet(&mut source, &Particular::of(&args.source, &args.probes));
    let home = netns::home(args.source.proc_root.as_deref());
    let print = (args.output).map(|output| print(output, args.numeric, home));
    let print = print.transpose()?;
    let (news_sender, news) = mpsc::channel();
    source.tell_processes(news_sender);
    let to_stderr = print.as_ref().is_some_and(Print::is_shared_stdout);
    let started = command.map(|words| child::start(words, to_stderr, &mut source));
    let mut running = match started.transpose()? {
        None => None,
        Some(Ok(running)) => Some(running),
        Some(Err(failure)) => {
            say(&failure.message);
            return Ok(failure.exit);
        }
    };
    // Polling goes on to need them.
    if let Source::Live(_) = source {
        // Who may not do so is as fast as all others.
        let _ = rustix::process::nice(NICER);
        privileges::give_up(&still_needed(command.is_some(), &args.file))?;
    }

    let missing = not_observed(&source);
    let shared = Arc::new(Shared::default());
    if let Source::Poll(poll, _) = &mut source {
        let shared = shared.clone();
        poll.tell(Box::new(move |text| shared.note(text.to_owned())));
    }
    let recorder = Recorder {
        run: about(&source, home, missing.clone(), command.map(Vec::as_slice)),
        files,
        whole: command.is_none(),
        proc_root: args.source.proc_root,
        hash_exe: args.hash_exe,
        key,
        print,
        left: args.count,
        summary: Summary::new(missing),
        holders: Holders::new(true),
        shared: Arc::clone(&shared),
    };
    let (to, messages) = tokio::sync::mpsc::channel(WAITING);
    // Started here, it has no more capabilities than this thread has left.
    let thread = std::thread::Builder::new().name("recorder".to_owned());
    // In this order: where there is no thread, the file is closed before the recorder deletes it.
    let work = (file, messages, recorder);
    let thread = thread.spawn(move || {
        let (file, messages, recorder) = work;
        recorder.record(file, messages)
    });
    let thread = thread.context("starting a thread")?;
    let shown = args.output.is_none() && command.is_none();
    let compare = (command.is_none()).then(|| Compare::new(options.snapshot()));
    let mut feed = Feed::new(to, news, compare, shared, Progress::new(shown));
    let why = feed
        .follow(&mut source, &mut signals, args.duration, running.as_mut())
        .await;
    let result = match why {
        Ok(why) => feed.finish(source, why, thread).await,
        // Detaches: the command must not pay for a recording that failed.
        Err(error) => {
            drop(source);
            feed.join(thread).await.and(Err(error))
        }
    };
    let result = result.and_then(Outcome::tell);
    // Whatever became of the recording, the command is in the foreground until it ends.
    let Some(running) = running else {
        return Ok(verdict(result?, args.require_complete));
    };
    if let Err(error) = &result {
        say(&format!("{error:#}; the command runs on"));
    }
    let exit = running.ended(&mut signals).await;
    match result {
        Err(_) => Ok(Exit::Failed),
        Ok(_) if exit.code() != 0 => Ok(exit),
        Ok(complete) => Ok(verdict(complete, args.require_complete)),
    }
}

/// How events are printed, with the names of the columns printed already.
fn print(output: cli::Output, numeric: bool, home: Option<u32>) -> Result<Print> {
    let lines = match output {
        cli::Output::Text => Lines::Text(Text::new(None, screen::style(numeric, true, home))),
        cli::Output::Json => Lines::Json(Json::new(None)),
        cli::Output::Csv => Lines::Csv(Csv::new(None, screen::is_shown(true))),
    };
    Print::new(lines, Output::open(None)?)
}

/// Capabilities besides those of a trace.
fn still_needed(command: bool, file: &Path) -> Vec<Capability> {
    let mut needed = match command {
        // Signals are passed on to the command, which may run as another user.
        true => vec![Capability::CAP_KILL],
        // Snapshots are taken in all network namespaces, and ask what carries MPTCP.
        false => vec![Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN],
    };
    // The journal, and the files of a rotation, come and go beside the session.
    if !files::is_ours(files::directory(file)) {
        needed.push(Capability::CAP_DAC_OVERRIDE);
    }
    needed
}

/// What is known of a run before it begins.
fn about(
    source: &Source,
    netns: Option<u32>,
    missing: Option<String>,
    command: Option<&[OsString]>,
) -> Run {
    let read = |path: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned())
    };
    Run {
        began: 0,
        host: read("/proc/sys/kernel/hostname"),
        kernel: read("/proc/sys/kernel/osrelease"),
        arch: Some(std::env::consts::ARCH.to_owned()),
        boot: read("/proc/sys/kernel/random/boot_id"),
        netns,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        source: match source {
            Source::Live(live) => format!("{} probes", live.report().tier),
            Source::Poll(..) | Source::Session(_) => "polling".to_owned(),
        },
        not_observed: missing,
        command: command.map(|words| {
            let words = words.iter().map(|x| sanitize::utf8(x.as_encoded_bytes()));
            let words: Vec<_> = words.collect();
            json!(words).to_string()
        }),
        plan: match source {
            Source::Live(live) => Some(plan_json(live.report())),
            Source::Poll(..) | Source::Session(_) => None,
        },
        clock: None,
    }
}
