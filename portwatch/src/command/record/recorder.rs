//! The thread that records: events go into the table, the session and, when asked for, on stdout.
//! Whatever takes time is done here, so that the source is not kept waiting.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Error, Result, anyhow};
use blake3::Hash;
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use super::files::{Files, Open};
use super::processes::{End, Processes};
use crate::clock::{Clock, boot};
use crate::command::holders::Holders;
use crate::command::output::{Output, is_closed_pipe};
use crate::command::trace::summary::Summary;
use crate::event::{Event, Kind};
use crate::service;
use crate::session::{Finish, Run, SecretKey, Writer};
use crate::snapshot::Rows;
use crate::source::News;
use crate::source::live::Accounts;
use crate::table::{Limits, Table};
use crate::view::lines::Lines;

/// Most events of a batch.
const BATCH: u64 = 20_000;
/// Fewest events between two checkpoints, unless the table is small.
const CHECKPOINT: u64 = 50_000;
/// A table is small up to so many sockets.
const SMALL: u64 = 2_000;
/// Sockets a second that checkpoints of a small table may take: a quiet machine is to leave a small file.
const SOCKETS_PER_SECOND: u64 = 10;

/// Lines are printed in pieces of about this size.
const PIECE: usize = 256 << 10;

/// What the recorder is told.
pub enum Message {
    /// Events and what came of processes meanwhile.
    Events(Vec<Event>, Vec<News>),
    /// A snapshot begins.
    Watch,
    /// `None`: it could not be taken.
    Snapshot(Option<Box<Rows>>),
    /// What was recorded so far is to be stored; the accounts so far, as the source has them.
    Store(Accounts),
    Finish(Box<Farewell>),
}

/// How the recording ends.
pub struct Farewell {
    pub accounts: Accounts,
    pub reason: &'static str,
}

/// What the recorder tells while it works.
#[derive(Default)]
pub struct Shared {
    in_doubt: AtomicBool,
    enough: AtomicBool,
    events: AtomicU64,
    lost: AtomicU64,
    bytes: AtomicU64,
    notes: Mutex<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub events: u64,
    pub lost: u64,
    pub bytes: u64,
}

impl Shared {
    /// Whether something differed since this was asked last that another snapshot has to decide.
    pub fn in_doubt(&self) -> bool {
        self.in_doubt.swap(false, Relaxed)
    }

    pub fn has_enough(&self) -> bool {
        self.enough.load(Relaxed)
    }

    /// What is to be said since this was asked last, a line each.
    pub fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, text: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(text);
    }

    pub fn counts(&self) -> Counts {
        Counts {
            events: self.events.load(Relaxed),
            lost: self.lost.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}

/// Where events are printed.
pub struct Print {
    lines: Lines,
    output: Output,
}

impl Print {
    /// Prints what comes before the first event.
    pub fn new(lines: Lines, mut output: Output) -> Result<Self> {
        lines.header(&mut output.buffer);
        match output.flush() {
            Err(error) if !is_closed_pipe(&error) => Err(error),
            _ => Ok(Self { lines, output }),
        }
    }

    pub fn is_shared_stdout(&self) -> bool {
        self.output.is_shared_stdout()
    }
}

/// What was recorded.
pub struct Outcome {
    pub summary: Summary,
    pub accounts: Accounts,
    /// Name of the file, or of the first and the last that are there.
    pub files: String,
    /// The last file, and the hash that stands for all of it.
    pub head: (PathBuf, Option<Hash>),
    pub events: u64,
    /// Added to all files.
    pub bytes: u64,
    pub differences: u64,
    /// What became of the output. The session is whole.
    pub failure: Option<Error>,
}

/// All that is needed to record.
pub struct Recorder {
    /// As it is when a run begins, but for the time.
    pub run: Run,
    pub files: Files,
    /// Not only a command: snapshots come, the first of which is what was open before.
    pub whole: bool,
    pub hash_exe: bool,
    /// Signs every batch.
    pub key: Option<Arc<SecretKey>>,
    pub print: Option<Print>,
    /// Events still wanted, when there is a limit.
    pub left: Option<u64>,
    pub summary: Summary,
    pub holders: Holders,
    pub shared: Arc<Shared>,
}

impl Recorder {
    /// Records until it is told to finish.
    ///
    /// # Errors
    /// When the session cannot be written; what was stored before is whole.
    pub fn record(self, mut file: Open, messages: Receiver<Message>) -> Result<Outcome> {
        let mut recording = Recording {
            table: Table::new(Limits::default()),
            // What only a command does begins with nothing.
            seeded: !self.whole,
            processes: Rc::new(RefCell::new(Processes::new(self.hash_exe))),
            clock: Clock::new(),
            accounts: Accounts::default(),
            events: 0,
            bytes: 0,
            differences: 0,
            failure: None,
            recorder: self,
            messages,
        };
        loop {
            let path = file.path.clone();
            let ended = recording.fill(&file).and_then(|ended| {
                file.close()?;
                Ok(ended)
            });
            let ended = ended.map_err(plain).with_context(|| {
                format!(
                    "the recording into {} ended early, what was stored until then is whole",
                    path.display()
                )
            })?;
            let (head, is_last) = ended;
            match is_last {
                true => return Ok(recording.outcome((path, head))),
                false => {
                    let Recorder { files, shared, .. } = &mut recording.recorder;
                    shared.note(about_head(&path, head));
                    let next = files.next(|text| shared.note(text)).map_err(plain);
                    file = next.context("the recording ended early, its files are whole")?;
                }
            }
        }
    }
}

/// What to write down of a file that ended, as `verify` has it.
pub fn about_head(path: &Path, head: Option<Hash>) -> String {
    let name = path.display();
    head.map_or_else(
        || format!("{name}: no head"),
        |head| format!("{name}: head {head}"),
    )
}

/// An error of SQLite in fewer words, where it is about the disk.
fn plain(error: Error) -> Error {
    use rusqlite::{Error as Sql, ErrorCode};
    let mut causes = error.chain().filter_map(|x| x.downcast_ref::<Sql>());
    let code = causes.find_map(Sql::sqlite_error_code);
    match code {
        Some(ErrorCode::DiskFull) => anyhow!("the disk is full"),
        Some(ErrorCode::ReadOnly | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
            let why = error.root_cause().to_string();
            anyhow!("it cannot be written any more ({why})")
        }
        _ => error,
    }
}

/// A recording under way.
struct Recording {
    recorder: Recorder,
    messages: Receiver<Message>,
    table: Table,
    /// Whether the table has what was open before.
    seeded: bool,
    processes: Rc<RefCell<Processes>>,
    clock: Clock,
    /// Of the whole recording, as far as they are known.
    accounts: Accounts,
    /// In the files before this one, as are `bytes`.
    events: u64,
    bytes: u64,
    differences: u64,
    failure: Option<Error>,
}

/// The run in one file.
struct Filling<'db> {
    writer: Writer<'db>,
    key: Option<Arc<SecretKey>>,
    /// Events of the session before it.
    before: i64,
    /// Bytes of the session before it, and when it had just begun.
    bytes: u64,
    seed: u64,
    /// Events of the session at the last commit.
    stored: i64,
    /// Events of the session at the last checkpoint, and when that was.
    checkpoint: i64,
    checkpoint_ts: u64,
}

impl Filling<'_> {
    /// Events of this run.
    fn events(&self) -> u64 {
        (self.writer.events() - self.before).cast_unsigned()
    }

    fn since_checkpoint(&self) -> u64 {
        (self.writer.events() - self.checkpoint).cast_unsigned()
    }

    fn commit(&mut self) -> Result<()> {
        self.stored = self.writer.events();
        let key = self.key.as_deref();
        let sign = key.map(|key| move |hash: &[u8; 32]| key.sign(hash));
        self.writer
            .commit(sign.as_ref().map(|sign| sign as &dyn Fn(&_) -> _))
    }
}

impl Recording {
    /// Records into one file; its head, and whether it is the last one.
    fn fill(&mut self, file: &Open) -> Result<(Option<Hash>, bool)> {
        let processes = Rc::clone(&self.processes);
        let about = Box::new(move |pid, context: &_| processes.borrow_mut().about(pid, context));
        let mut writer = Writer::new(&file.db, about)?;
        // What is in a new file is all ours.
        let bytes = if writer.events() > 0 {
            file.bytes()?
        } else {
            0
        };
        let (boot, began) = self.now();
        writer.begin(&Run {
            began,
            clock: Some(json!({ "boot_ns": boot, "wall_ns": began }).to_string()),
            ..self.recorder.run.clone()
        })?;
        let mut to = Filling {
            before: writer.events(),
            bytes,
            seed: 0,
            stored: writer.events(),
            checkpoint: writer.events(),
            checkpoint_ts: began,
            writer,
            key: self.recorder.key.clone(),
        };
        if self.seeded {
            self.checkpoint(&mut to)?;
        }
        to.commit()?;
        to.seed = file.bytes()?;
        self.recorder.files.taken();
        while let Some(message) = self.messages.blocking_recv() {
            match message {
                Message::Events(events, news) => self.events(&mut to, events, news)?,
                Message::Watch => self.table.watch(),
                Message::Snapshot(rows) => {
                    let first = !self.seeded;
                    self.snapshot(&mut to, rows)?;
                    if first {
                        to.commit()?;
                        to.seed = file.bytes()?;
                    }
                }
                Message::Store(accounts) => {
                    self.accounts = accounts;
                    self.store(&mut to, file)?;
                    let limits = self.recorder.files.limits;
                    let reached = limits.reached(file, file.bytes()?, to.seed);
                    // Each file is to have what was open before it.
                    if let Some(reason) = reached.filter(|_| self.seeded) {
                        return Ok((self.finish(to, file, reason)?, false));
                    }
                }
                Message::Finish(end) => {
                    let reason = match &self.failure {
                        Some(error) => format!("{error:#}"),
                        None => end.reason.to_owned(),
                    };
                    self.accounts = end.accounts;
                    return Ok((self.finish(to, file, &reason)?, true));
                }
            }
        }
        // The source has failed, which is told by who asked it.
        to.commit()?;
        Ok((to.writer.head(), true))
    }

    /// Ends the run in this file; returns the head.
    fn finish(&mut self, mut to: Filling<'_>, file: &Open, reason: &str) -> Result<Option<Hash>> {
        let open = self.table.kept().len() as u64;
        let dear = open > SMALL && to.since_checkpoint() < open;
        if self.seeded && to.since_checkpoint() > 0 && !dear {
            self.checkpoint(&mut to)?;
        }
        to.writer.finish(&Finish {
            ended: self.now().1,
            reason: reason.to_owned(),
            complete: self.accounts.complete(),
            accounts: serde_json::to_string(&self.accounts)?,
        })?;
        to.commit()?;
        self.events += to.events();
        self.bytes += file.bytes()?.saturating_sub(to.bytes);
        Ok(to.writer.head())
    }

    fn events(&mut self, to: &mut Filling<'_>, events: Vec<Event>, news: Vec<News>) -> Result<()> {
        for news in &news {
            if let News::Started { pid, at } = *news {
                self.processes.borrow_mut().started(pid, at);
            }
        }
        for mut event in events {
            if self.recorder.left == Some(0) {
                break;
            }
            event.service = service::of(&event);
            self.recorder.holders.tell(&mut event);
            self.table.apply(&event);
            if event.kind != Kind::Lost {
                self.recorder.left = self.recorder.left.map(|left| left - 1);
            }
            self.put(to, event)?;
        }
        for news in news {
            if let News::Ended { pid, at, status } = news {
                let end = End { pid, at, status };
                let owned = self.processes.borrow_mut().ended(end);
                if owned {
                    to.writer.exit(pid, at, status)?;
                }
            }
        }
        if self.recorder.left == Some(0) {
            self.recorder.shared.enough.store(true, Relaxed);
        }
        self.flush();
        let open = self.table.kept().len() as u64;
        if self.seeded && to.since_checkpoint() >= CHECKPOINT.max(4 * open) {
            self.checkpoint(to)?;
        }
        if (to.writer.events() - to.stored).cast_unsigned() >= BATCH {
            to.commit()?;
        }
        Ok(())
    }

    /// Records an event, and prints it.
    fn put(&mut self, to: &mut Filling<'_>, mut event: Event) -> Result<()> {
        event.seq = (to.writer.event(&event)? - to.before).cast_unsigned();
        // An attempt may have an outcome only when the process has ended.
        let ended = self.processes.borrow_mut().owns(&event);
        if let Some(End { pid, at, status }) = ended {
            to.writer.exit(pid, at, status)?;
        }
        self.recorder.summary.seen(&event);
        self.recorder.summary.shown(event.kind);
        if let Some(print) = &mut self.recorder.print {
            print.lines.event(&mut print.output.buffer, &event);
            if print.output.buffer.len() >= PIECE {
                self.flush();
            }
        }
        Ok(())
    }

    /// Prints what waits for it. When that cannot be, there is nothing to go on for; what was recorded
    /// is finished.
    fn flush(&mut self) {
        let Some(print) = &mut self.recorder.print else {
            return;
        };
        if let Err(error) = print.output.flush() {
            self.recorder.print = None;
            self.recorder.shared.enough.store(true, Relaxed);
            self.failure = (!is_closed_pipe(&error)).then_some(error);
        }
    }

    /// `None`: none could be taken.
    fn snapshot(&mut self, to: &mut Filling<'_>, rows: Option<Box<Rows>>) -> Result<()> {
        if !self.seeded {
            self.seeded = true;
            self.table.seed(rows.into_iter().flatten());
            for kept in self.table.kept() {
                self.processes.borrow_mut().owns(&kept.row.event);
            }
            return self.checkpoint(to);
        }
        let Some(rows) = rows else { return Ok(()) };
        let (_, now) = self.now();
        for difference in self.table.reconcile(rows, now) {
            self.differences += 1;
            let mut event = difference.event(now);
            event.service = service::of(&event);
            self.put(to, event)?;
        }
        self.flush();
        if self.table.in_doubt() {
            self.recorder.shared.in_doubt.store(true, Relaxed);
        }
        // What no event tells, as who holds a socket, is taken over from snapshots.
        let open = self.table.kept().len() as u64;
        let seconds = now.saturating_sub(to.checkpoint_ts) / 1_000_000_000;
        if open <= SMALL && to.since_checkpoint() > 0 && seconds * SOCKETS_PER_SECOND >= open {
            self.checkpoint(to)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, to: &mut Filling<'_>) -> Result<()> {
        let (_, now) = self.now();
        to.checkpoint = to.writer.events();
        to.checkpoint_ts = now;
        to.writer.checkpoint(now, self.table.kept())
    }

    fn store(&mut self, to: &mut Filling<'_>, file: &Open) -> Result<()> {
        self.clock.tick();
        let (_, now) = self.now();
        self.table.tick(now);
        to.commit()?;
        file.is_there()?;
        if (self.recorder.print.as_ref()).is_some_and(|print| print.output.reader_left()) {
            self.recorder.shared.enough.store(true, Relaxed);
        }
        let shared = &self.recorder.shared;
        shared.events.store(self.events + to.events(), Relaxed);
        shared.lost.store(self.accounts.lost, Relaxed);
        let bytes = file.bytes()?.saturating_sub(to.bytes);
        shared.bytes.store(self.bytes + bytes, Relaxed);
        Ok(())
    }

    fn outcome(self, head: (PathBuf, Option<Hash>)) -> Outcome {
        Outcome {
            files: self.recorder.files.names(),
            head,
            summary: self.recorder.summary,
            accounts: self.accounts,
            events: self.events,
            bytes: self.bytes,
            differences: self.differences,
            failure: self.failure,
        }
    }

    /// `CLOCK_BOOTTIME` in nanoseconds, and the same moment in nanoseconds since the Unix epoch.
    fn now(&self) -> (u64, u64) {
        let boot = boot();
        (boot, self.clock.wall(boot))
    }
}
