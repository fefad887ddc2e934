//! Adding to a session: events become rows, what repeats is kept once, and each commit is a batch of the
//! chain.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use lru::LruCache;
use rusqlite::{Connection, Statement};

use super::cell::{Cell, Table, int, text};
use super::chain::{self, Batch};
use super::what::What;
use super::{Finish, Kept, Run};
use crate::event::{Cause, Comm, Context, Event, Family, Proto};
use crate::view::json::{list, peers};

/// Most entries of a dictionary remembered; one that was forgotten is stored once more.
const REMEMBERED: NonZeroUsize = const { NonZeroUsize::new(1 << 16).unwrap() };

/// What is known of a process besides its context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Nanoseconds since the Unix epoch.
    pub started: Option<u64>,
    /// BLAKE3 of the executable, hexadecimal.
    pub blake3: Option<String>,
}

/// Tells what is known of the program that a process runs.
pub type Describe = Box<dyn FnMut(Option<u32>, &Context) -> About>;
/// Makes a signature of the hash of a batch.
pub type Sign<'a> = &'a dyn Fn(&[u8; 32]) -> Vec<u8>;

/// Adds rows to a session. Nothing is stored before [`Writer::commit`].
pub struct Writer<'db> {
    db: &'db Connection,
    inserts: Vec<Statement<'db>>,
    batch: Batch,
    run: i64,
    addresses: LruCache<IpAddr, i64>,
    whats: LruCache<What, i64>,
    owners: LruCache<Owner, i64>,
    processes: LruCache<Program, i64>,
    about: Describe,
    /// Whether a transaction is open.
    open: bool,
}

/// What the rows of `raw_process` stand for.
#[derive(Clone)]
struct Program(Option<u32>, Arc<Context>);

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 && (Arc::ptr_eq(&self.1, &other.1) || self.1 == other.1)
    }
}

impl Eq for Program {}

impl Hash for Program {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0, &self.1.exe, &self.1.args).hash(state);
    }
}

/// What the rows of `raw_owner` stand for.
#[derive(Clone, PartialEq, Eq)]
struct Owner {
    pid: Option<u32>,
    tid: Option<u32>,
    ppid: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    comm: Option<Comm>,
    program: Option<Program>,
}

impl Hash for Owner {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.pid, self.tid, self.uid, self.comm).hash(state);
    }
}

impl<'db> Writer<'db> {
    /// `about` is asked once for each program that turns up.
    ///
    /// # Errors
    /// When the session cannot be read.
    pub fn new(db: &'db Connection, about: Describe) -> Result<Self> {
        let insert = |table: Table| {
            let marks = vec!["?"; table.width()].join(",");
            db.prepare(&format!("INSERT INTO {} VALUES ({marks})", table.name()))
        };
        let inserts = Table::ALL.into_iter().map(insert);
        Ok(Self {
            db,
            inserts: inserts.collect::<rusqlite::Result<_>>()?,
            batch: Batch::after(chain::last(db)?),
            run: 0,
            addresses: LruCache::new(REMEMBERED),
            whats: LruCache::new(REMEMBERED),
            owners: LruCache::new(REMEMBERED),
            processes: LruCache::new(REMEMBERED),
            about,
            open: false,
        })
    }

    /// Begins a run.
    ///
    /// # Errors
    /// When nothing can be written, as with the other functions.
    pub fn begin(&mut self, run: &Run) -> Result<()> {
        let before = self.batch.count(Table::Event);
        self.run = self.row(
            Table::Run,
            &[
                int(Some(run.began)),
                Cell::Int(before),
                text(run.host.as_ref()),
                text(run.kernel.as_ref()),
                text(run.arch.as_ref()),
                text(run.boot.as_ref()),
                int(run.netns),
                Cell::Text(&run.version),
                Cell::Text(&run.source),
                text(run.not_observed.as_ref()),
                text(run.command.as_ref()),
                text(run.plan.as_ref()),
                text(run.clock.as_ref()),
            ],
        )?;
        Ok(())
    }

    /// Adds an event; returns its number in the session.
    ///
    /// # Errors
    /// As [`Writer::begin`].
    pub fn event(&mut self, event: &Event) -> Result<i64> {
        self.batch.at(event.ts);
        let holders = holders(event);
        let cells = self.cells(event, holders.as_deref())?;
        self.row(Table::Event, &cells)
    }

    /// Adds the end of a process; `status` as wait(2) gives it.
    ///
    /// # Errors
    /// As [`Writer::begin`].
    pub fn exit(&mut self, pid: u32, ts: u64, status: Option<u32>) -> Result<()> {
        let run = Cell::Int(self.run);
        self.row(
            Table::Exit,
            &[run, int(Some(pid)), int(Some(ts)), int(status)],
        )?;
        Ok(())
    }

    /// Adds all that is open now, at `ts`.
    ///
    /// # Errors
    /// As [`Writer::begin`].
    pub fn checkpoint(&mut self, ts: u64, rows: impl IntoIterator<Item = Kept>) -> Result<()> {
        let run = Cell::Int(self.run);
        let event = Cell::Int(self.batch.count(Table::Event));
        let checkpoint = self.row(Table::Checkpoint, &[run, event, int(Some(ts))])?;
        for Kept { row, bound, told } in rows {
            let holders = holders(&row.event);
            let event = self.cells(&row.event, holders.as_deref())?;
            let mut cells = vec![Cell::Int(checkpoint)];
            cells.extend(event);
            cells.extend([
                Cell::Text(row.state.as_str()),
                int(row.since),
                int(row.recv_queue),
                int(row.send_queue),
                int(row.v6only.map(u32::from)),
                Cell::Int(bound.into()),
                Cell::Int(told.into()),
            ]);
            self.row(Table::Open, &cells)?;
        }
        Ok(())
    }

    /// Ends the run.
    ///
    /// # Errors
    /// As [`Writer::begin`].
    pub fn finish(&mut self, finish: &Finish) -> Result<()> {
        let cells = [
            Cell::Int(self.run),
            int(Some(finish.ended)),
            Cell::Text(&finish.reason),
            Cell::Int(finish.complete.into()),
            Cell::Text(&finish.accounts),
        ];
        self.row(Table::Finish, &cells)?;
        Ok(())
    }

    /// Number of events in the session, those not committed yet among them.
    pub fn events(&self) -> i64 {
        self.batch.count(Table::Event)
    }

    /// Hash of the last batch that was stored, which stands for all of the session; zeros before the first.
    pub fn head(&self) -> blake3::Hash {
        self.batch.head()
    }

    /// Stores what was added since the last time, as one batch; `sign` makes a signature of its hash.
    ///
    /// # Errors
    /// When it cannot be stored; the batches before are not touched.
    pub fn commit(&mut self, sign: Option<Sign<'_>>) -> Result<()> {
        if !self.open {
            return Ok(());
        }
        let mut sealed = self.batch.seal(self.run);
        sealed.signature = sign.map(|sign| sign(&sealed.hash));
        sealed.insert(self.db)?;
        self.db.execute_batch("COMMIT")?;
        self.open = false;
        self.batch = Batch::after(Some(sealed));
        Ok(())
    }

    /// The columns that events and sockets of checkpoints have in common.
    fn cells<'a>(&mut self, event: &'a Event, holders: Option<&'a str>) -> Result<[Cell<'a>; 20]> {
        let what = self.what(event)?;
        let owner = self.owner(event)?;
        let local = self.address(event.laddr)?;
        let remote = self.address(event.raddr)?;
        Ok([
            int(Some(event.ts)),
            Cell::Int(event.kind as i64),
            Cell::Int(what),
            owner.map_or(Cell::Null, Cell::Int),
            local.map_or(Cell::Null, Cell::Int),
            int(event.lport),
            remote.map_or(Cell::Null, Cell::Int),
            int(event.rport),
            int(event.sock),
            int(event.inode),
            int(event.latency_us),
            int(event.duration_us),
            int(event.rx_bytes),
            int(event.tx_bytes),
            int(event.rtt_us),
            int(event.retrans),
            int(event.accepted),
            int(event.backlog),
            int(event.count),
            text(holders),
        ])
    }

    fn address(&mut self, address: Option<IpAddr>) -> Result<Option<i64>> {
        let Some(address) = address else {
            return Ok(None);
        };
        if let Some(&id) = self.addresses.get(&address) {
            return Ok(Some(id));
        }
        let id = self.row(Table::Address, &[Cell::Text(&address.to_string())])?;
        self.addresses.put(address, id);
        Ok(Some(id))
    }

    fn what(&mut self, event: &Event) -> Result<i64> {
        let what = What::of(event);
        if let Some(&id) = self.whats.get(&what) {
            return Ok(id);
        }
        let error = what.error.map(crate::errno::name);
        let id = self.row(
            Table::What,
            &[
                Cell::Text(what.origin.as_str()),
                text(what.proto.map(Proto::as_str)),
                text(what.family.map(Family::as_str)),
                int(what.netns),
                text(error.as_deref()),
                int(what.error),
                text(what.cause.map(Cause::as_str)),
                text(what.reason),
                text(what.service),
            ],
        )?;
        self.whats.put(what, id);
        Ok(id)
    }

    fn owner(&mut self, event: &Event) -> Result<Option<i64>> {
        let program = event.context.clone().map(|x| Program(event.pid, x));
        let owner = Owner {
            pid: event.pid,
            tid: event.tid,
            ppid: event.ppid,
            uid: event.uid,
            gid: event.gid,
            comm: event.comm,
            program,
        };
        if let Some(&id) = self.owners.get(&owner) {
            return Ok(Some(id));
        }
        let nobody = [owner.pid, owner.tid, owner.ppid, owner.uid, owner.gid] == [None; 5];
        if nobody && owner.comm.is_none() && owner.program.is_none() {
            return Ok(None);
        }
        let process = match &owner.program {
            Some(program) => Cell::Int(self.process(program)?),
            None => Cell::Null,
        };
        let comm = match &owner.comm {
            None => Cell::Null,
            Some(comm) => match std::str::from_utf8(comm.bytes()) {
                // Nothing but NUL behind it.
                Ok(text) if comm.0[text.len()..].iter().all(|&byte| byte == 0) => Cell::Text(text),
                _ => Cell::Blob(&comm.0),
            },
        };
        let id = self.row(
            Table::Owner,
            &[
                process,
                int(owner.pid),
                int(owner.tid),
                int(owner.ppid),
                int(owner.uid),
                int(owner.gid),
                comm,
            ],
        )?;
        self.owners.put(owner, id);
        Ok(Some(id))
    }

    fn process(&mut self, program: &Program) -> Result<i64> {
        if let Some(&id) = self.processes.get(program) {
            return Ok(id);
        }
        let Program(pid, context) = program;
        let about = (self.about)(*pid, context);
        let args = context.args.as_deref().map(|x| json(x, list));
        let parents = context.parents.as_deref().map(|x| json(x, peers));
        let id = self.row(
            Table::Process,
            &[
                int(*pid),
                text(context.exe.as_ref()),
                text(args.as_ref()),
                text(context.user.as_ref()),
                text(parents.as_ref()),
                text(context.cgroup.as_ref()),
                text(context.container.as_ref()),
                text(context.unit.as_ref()),
                int(about.started),
                text(about.blake3.as_ref()),
            ],
        )?;
        self.processes.put(program.clone(), id);
        Ok(id)
    }

    /// Adds a row and gives it the next number of its table.
    fn row(&mut self, table: Table, cells: &[Cell<'_>]) -> Result<i64> {
        if !self.open {
            self.db.execute_batch("BEGIN IMMEDIATE")?;
            self.open = true;
        }
        let id = self.batch.row(table, cells);
        let insert = &mut self.inserts[table as usize];
        insert.raw_bind_parameter(1, id)?;
        for (at, cell) in cells.iter().enumerate() {
            insert.raw_bind_parameter(at + 2, cell)?;
        }
        insert.raw_execute().context("writing the session")?;
        Ok(id)
    }
}

fn holders(event: &Event) -> Option<String> {
    event.holders.as_deref().map(|x| json(x, peers))
}

/// Items as JSON text.
fn json<T>(items: &[T], put: impl Fn(&mut Vec<u8>, &[T])) -> String {
    let mut out = Vec::new();
    put(&mut out, items);
    String::from_utf8(out).unwrap_or_default()
}
