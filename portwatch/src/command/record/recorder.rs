//! The thread that records: events go into the table, the session and, when asked for, on stdout.
//! Whatever takes time is done here, so that the source is not kept waiting.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, Error, Result, anyhow};
use blake3::Hash;
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use super::files::{Files, Open};
use super::filling::Filling;
use super::outcome::{Outcome, about_head};
use super::print::Print;
use super::processes::{End, Processes};
use super::shared::{Counts, Message, Shared};
use crate::clock::{Clock, boot};
use crate::command::holders::Holders;
use crate::command::output::is_closed_pipe;
use crate::command::trace::summary::Summary;
use crate::event::{Event, Kind};
use crate::service;
use crate::session::{Finish, Run, SecretKey, Writer};
use crate::snapshot::Rows;
use crate::source::News;
use crate::source::accounts::Accounts;
use crate::table::{Limits, Table};

/// Most events of a batch.
const BATCH: u64 = 20_000;
/// Fewest events between two checkpoints, unless the table is small.
const CHECKPOINT: u64 = 50_000;
/// A table is small up to so many sockets.
const SMALL: u64 = 2_000;
/// Sockets a second that checkpoints of a small table may take: a quiet machine is to leave a small file.
const SOCKETS_PER_SECOND: u64 = 10;

/// All that is needed to record.
pub struct Recorder {
    /// As it is when a run begins, but for the time.
    pub run: Run,
    pub files: Files,
    /// Not only a command: snapshots come, the first of which is what was open before.
    pub whole: bool,
    /// Of the proc file system that is read; `None`: this machine's.
    pub proc_root: Option<PathBuf>,
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
        let processes = Processes::new(self.proc_root.clone(), self.hash_exe);
        let mut recording = Recording {
            table: Table::new(Limits::default()),
            // What only a command does begins with nothing.
            seeded: !self.whole,
            processes: Rc::new(RefCell::new(processes)),
            clock: Clock::new(),
            accounts: Accounts::default(),
            events: 0,
            bytes: 0,
            differences: 0,
            unsaid: 0,
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
    /// Sockets that went without an event, as far as the last checkpoint has it.
    unsaid: u64,
    failure: Option<Error>,
}

impl Recording {
    /// Records into one file; its head, and whether it is the last one.
    fn fill(&mut self, file: &Open) -> Result<(Hash, bool)> {
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
        let mut to = Filling::new(writer, bytes, began, self.recorder.key.clone());
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
    fn finish(&mut self, mut to: Filling<'_>, file: &Open, reason: &str) -> Result<Hash> {
        let open = self.table.kept().len() as u64;
        let dear = open > SMALL && to.since_checkpoint() < open;
        if self.seeded && self.differs(&to) && !dear {
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
        let mut later = events.into_iter();
        while let Some(mut event) = later.next() {
            if self.recorder.left == Some(0) {
                break;
            }
            event.service = service::of(&event);
            self.recorder.holders.tell(&mut event, later.as_slice());
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
            self.recorder.shared.enough();
        }
        self.print(Print::flush);
        let open = self.table.kept().len() as u64;
        if self.seeded && to.since_checkpoint() >= CHECKPOINT.max(4 * open) {
            self.checkpoint(to)?;
        }
        if to.pending() >= BATCH {
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
        self.print(|print| print.event(&event));
        Ok(())
    }

    /// Prints, when that was asked for. When it cannot be, there is nothing to go on for; what was
    /// recorded is finished.
    fn print(&mut self, work: impl FnOnce(&mut Print) -> Result<()>) {
        if let Some(Err(error)) = self.recorder.print.as_mut().map(work) {
            self.recorder.print = None;
            self.recorder.shared.enough();
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
        let scope = rows.scope.clone();
        for difference in self.table.reconcile(rows, &scope, now) {
            self.differences += 1;
            let mut event = difference.event(now);
            event.service = service::of(&event);
            self.put(to, event)?;
        }
        self.print(Print::flush);
        if self.table.in_doubt() {
            self.recorder.shared.doubt();
        }
        // What no event tells, as who holds a socket, is taken over from snapshots.
        let open = self.table.kept().len() as u64;
        let seconds = to.seconds_since_checkpoint(now);
        if open <= SMALL && self.differs(to) && seconds * SOCKETS_PER_SECOND >= open {
            self.checkpoint(to)?;
        }
        Ok(())
    }

    /// Whether sockets came or went since the last checkpoint.
    fn differs(&self, to: &Filling<'_>) -> bool {
        to.since_checkpoint() > 0 || self.table.unsaid() > self.unsaid
    }

    fn checkpoint(&mut self, to: &mut Filling<'_>) -> Result<()> {
        self.unsaid = self.table.unsaid();
        to.checkpoint(self.now().1, self.table.kept())
    }

    fn store(&mut self, to: &mut Filling<'_>, file: &Open) -> Result<()> {
        self.clock.tick();
        let (_, now) = self.now();
        self.table.tick(now);
        to.commit()?;
        file.is_there()?;
        if (self.recorder.print.as_ref()).is_some_and(Print::reader_left) {
            self.recorder.shared.enough();
        }
        self.recorder.shared.count(Counts {
            events: self.events + to.events(),
            lost: self.accounts.lost,
            bytes: self.bytes + file.bytes()?.saturating_sub(to.bytes),
        });
        Ok(())
    }

    fn outcome(self, head: (PathBuf, Hash)) -> Outcome {
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
