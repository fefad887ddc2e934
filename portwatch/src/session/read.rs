//! Reading a session: rows become events and sockets again.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, ensure};
use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, params};
use serde_json::Value as Json;

use super::what::What;
use super::{Finish, Kept, Run};
use crate::event::{Cause, Comm, Context, Event, Family, Kind, Origin, Peer, Proto};
use crate::row::{Row, State};

/// Most entries of a dictionary kept in memory.
const KEPT: usize = 1 << 16;

/// An open session, maybe one that is still being written.
pub struct Session {
    db: Connection,
    addresses: HashMap<i64, IpAddr>,
    whats: HashMap<i64, What>,
    owners: HashMap<i64, Owner>,
    processes: HashMap<i64, Arc<Context>>,
}

/// A row of `raw_owner`.
#[derive(Clone)]
struct Owner {
    pid: Option<u32>,
    tid: Option<u32>,
    ppid: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    comm: Option<Comm>,
    context: Option<Arc<Context>>,
}

/// A recording in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub id: i64,
    pub run: Run,
    /// Numbers of its events in the session: from the first, up to before the end.
    pub events: std::ops::Range<i64>,
    /// `None`: it goes on, or was killed.
    pub finish: Option<Finish>,
}

/// A whole table at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The last event that is in it.
    pub event: i64,
    /// Nanoseconds since the Unix epoch.
    pub ts: u64,
    pub sockets: Vec<Kept>,
}

impl Session {
    /// # Errors
    /// When it is no session, or of a newer version.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            db: super::file::readable(path)?,
            addresses: HashMap::new(),
            whats: HashMap::new(),
            owners: HashMap::new(),
            processes: HashMap::new(),
        })
    }

    /// For questions in SQL; nothing can be changed through it.
    pub fn connection(&self) -> &Connection {
        &self.db
    }

    /// Number of the last event that is there now.
    ///
    /// # Errors
    /// When the file is damaged, as with the other functions.
    pub fn last_event(&self) -> Result<i64> {
        let sql = "SELECT ifnull(max(events), 0) FROM raw_batch";
        Ok(self.db.query_row(sql, [], |row| row.get(0))?)
    }

    /// All recordings in their order.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn runs(&self) -> Result<Vec<Recorded>> {
        let sql = "SELECT r.id, r.before, r.began, r.host, r.kernel, r.arch, r.boot, r.netns,
                          r.version, r.source, r.not_observed, r.command, r.plan, r.clock,
                          f.ended, f.reason, f.complete, f.accounts
                   FROM raw_run r LEFT JOIN raw_finish f ON f.run = r.id ORDER BY r.id";
        let mut statement = self.db.prepare(sql)?;
        let rows = statement.query_map([], |row| {
            let ended: Option<i64> = row.get(14)?;
            Ok(Recorded {
                id: row.get(0)?,
                events: row.get::<_, i64>(1)?.saturating_add(1)..i64::MAX,
                run: Run {
                    began: row.get::<_, i64>(2)?.cast_unsigned(),
                    host: row.get(3)?,
                    kernel: row.get(4)?,
                    arch: row.get(5)?,
                    boot: row.get(6)?,
                    netns: row.get(7)?,
                    version: row.get(8)?,
                    source: row.get(9)?,
                    not_observed: row.get(10)?,
                    command: row.get(11)?,
                    plan: row.get(12)?,
                    clock: row.get(13)?,
                },
                finish: match ended {
                    Some(ended) => Some(Finish {
                        ended: ended.cast_unsigned(),
                        reason: row.get(15)?,
                        complete: row.get(16)?,
                        accounts: row.get(17)?,
                    }),
                    None => None,
                },
            })
        })?;
        let mut runs: Vec<Recorded> = rows.collect::<rusqlite::Result<_>>()?;
        let mut end = self.last_event()?.saturating_add(1);
        for run in runs.iter_mut().rev() {
            run.events.end = end;
            ensure!(
                (1..=end).contains(&run.events.start),
                "the session's runs do not follow one another: portwatch verify tells what was done to it"
            );
            end = run.events.start;
        }
        Ok(runs)
    }

    /// Number of an event before which nothing happened at `ts` (nanoseconds since the Unix epoch) or
    /// later. Some that happened before may follow it.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn first_from(&self, ts: u64) -> Result<i64> {
        // Batches are few, compared with events.
        let sql = "SELECT ifnull(max(events), 0) + 1 FROM raw_batch
                   WHERE id < (SELECT min(id) FROM raw_batch WHERE last_ts >= ?)";
        let any = "SELECT EXISTS (SELECT 1 FROM raw_batch WHERE last_ts >= ?)";
        let ts = ts.min(i64::MAX.cast_unsigned()).cast_signed();
        match self.db.query_row(any, [ts], |row| row.get(0))? {
            true => Ok(self.db.query_row(sql, [ts], |row| row.get(0))?),
            false => Ok(self.last_event()? + 1),
        }
    }

    /// Number of the event after which nothing happened at `ts` or before; the counterpart.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn last_until(&self, ts: u64) -> Result<i64> {
        let sql = "SELECT ifnull(max(events), 0) FROM raw_batch WHERE first_ts <= ?";
        let ts = ts.min(i64::MAX.cast_unsigned()).cast_signed();
        Ok(self.db.query_row(sql, [ts], |row| row.get(0))?)
    }

    /// Appends up to `most` events with numbers from `from` up to and with `to`, in their order, with
    /// `seq` as their number in their run, which begins with event `first`. Returns the number to go on
    /// from.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn events(
        &mut self,
        from: i64,
        to: i64,
        most: usize,
        first: i64,
        events: &mut Vec<Event>,
    ) -> Result<i64> {
        let sql = "SELECT * FROM raw_event WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?";
        let mut next = from;
        let mut dictionaries = Dictionaries::of(self);
        let mut statement = dictionaries.db.prepare_cached(sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![from, to, most])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let mut event = dictionaries.event(row, 1)?;
            event.seq = (id - first + 1).cast_unsigned();
            events.push(event);
            next = id + 1;
        }
        Ok(next)
    }

    /// The latest events about servers on this local port until `ts` (nanoseconds since the Unix epoch):
    /// up to `most` of those wanted, the last one last.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn latest_of_port(
        &mut self,
        port: u16,
        ts: u64,
        most: usize,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Vec<Event>> {
        let to = self.last_until(ts)?;
        let sql = "SELECT * FROM raw_event WHERE lport = ? AND remote IS NULL AND id <= ?
                   ORDER BY id DESC";
        let mut dictionaries = Dictionaries::of(self);
        let mut statement = dictionaries.db.prepare_cached(sql)?;
        let mut rows = statement.query(params![port, to])?;
        let mut events = Vec::new();
        while events.len() < most
            && let Some(row) = rows.next()?
        {
            let event = dictionaries.event(row, 1)?;
            if event.ts <= ts && wanted(&event) {
                events.push(event);
            }
        }
        events.reverse();
        Ok(events)
    }

    /// When those of these processes were started that ran at `ts`, as far as it is known; nanoseconds
    /// since the Unix epoch.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn started(&self, pids: &HashSet<u32>, ts: u64) -> Result<HashMap<u32, u64>> {
        let sql = "SELECT pid, started FROM raw_process WHERE started <= ? ORDER BY started";
        let ts = ts.min(i64::MAX.cast_unsigned()).cast_signed();
        let mut statement = self.db.prepare(sql)?;
        let mut rows = statement.query([ts])?;
        let mut started = HashMap::new();
        while let Some(row) = rows.next()? {
            if let (Some(pid), Some(at)) = (number(row, 0)?, number(row, 1)?)
                && pids.contains(&pid)
            {
                started.insert(pid, at);
            }
        }
        Ok(started)
    }

    /// The last checkpoint of a run that holds nothing of what came after this event, and was taken at
    /// `ts` or before; `None` when there is none.
    ///
    /// # Errors
    /// As [`Session::last_event`].
    pub fn checkpoint(&mut self, run: i64, event: i64, ts: u64) -> Result<Option<Checkpoint>> {
        let sql = "SELECT id, event, ts FROM raw_checkpoint
                   WHERE run = ? AND event <= ? AND ts <= ? ORDER BY id DESC LIMIT 1";
        let ts = ts.min(i64::MAX.cast_unsigned()).cast_signed();
        let found = (self.db).query_row(sql, params![run, event, ts], |row| {
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, i64>(2)?))
        });
        let Some((id, event, ts)) = found.optional()? else {
            return Ok(None);
        };
        // Rows of a checkpoint lie together; where they are is found by halving.
        let sql = "SELECT * FROM raw_open WHERE id > ? AND checkpoint = ? ORDER BY id";
        let before = self.opens_before(id)?;
        let mut dictionaries = Dictionaries::of(self);
        let mut statement = dictionaries.db.prepare(sql)?;
        let mut rows = statement.query(params![before, id])?;
        let mut sockets = Vec::new();
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>(1)? != id {
                break;
            }
            let event = dictionaries.event(row, 2)?;
            let state: String = row.get(21)?;
            let state = State::parse(&state).ok_or_else(|| anyhow!("no state '{state}'"))?;
            sockets.push(Kept {
                row: Row {
                    event,
                    state,
                    since: number(row, 22)?,
                    recv_queue: number(row, 23)?,
                    send_queue: number(row, 24)?,
                    inode: number(row, 25)?,
                    v6only: row.get(26)?,
                },
                bound: row.get(27)?,
                told: row.get(28)?,
            });
        }
        Ok(Some(Checkpoint {
            event,
            ts: ts.cast_unsigned(),
            sockets,
        }))
    }

    /// Number of the last row of `raw_open` that belongs to an earlier checkpoint.
    pub(super) fn opens_before(&self, checkpoint: i64) -> Result<i64> {
        let mut statement = (self.db).prepare("SELECT checkpoint FROM raw_open WHERE id = ?")?;
        let last = "SELECT ifnull(max(id), 0) FROM raw_open";
        let (mut low, mut high) = (0, self.db.query_row(last, [], |row| row.get(0))?);
        while low < high {
            let middle = low + (high - low + 1) / 2;
            let of_earlier =
                statement.query_row([middle], |row| row.get::<_, i64>(0))? < checkpoint;
            if of_earlier {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }
}

/// What rows refer to, read when it is needed.
struct Dictionaries<'a> {
    db: &'a Connection,
    addresses: &'a mut HashMap<i64, IpAddr>,
    whats: &'a mut HashMap<i64, What>,
    owners: &'a mut HashMap<i64, Owner>,
    processes: &'a mut HashMap<i64, Arc<Context>>,
}

impl<'a> Dictionaries<'a> {
    fn of(session: &'a mut Session) -> Self {
        Self {
            db: &session.db,
            addresses: &mut session.addresses,
            whats: &mut session.whats,
            owners: &mut session.owners,
            processes: &mut session.processes,
        }
    }

    /// From the columns that events and sockets have in common, from this one on.
    fn event(&mut self, row: &SqlRow<'_>, at: usize) -> Result<Event> {
        let kind: u8 = row.get(at + 1)?;
        let found = Kind::ALL.get(usize::from(kind));
        let kind = found.with_context(|| format!("no kind {kind} of event"))?;
        let what = self.what(row.get(at + 2)?)?;
        let ts = row.get::<_, i64>(at)?.cast_unsigned();
        let mut event = Event::new(*kind, what.origin, ts);
        what.put(&mut event);
        if let Some(owner) = row.get(at + 3)? {
            let owner = self.owner(owner)?;
            event.pid = owner.pid;
            event.tid = owner.tid;
            event.ppid = owner.ppid;
            event.uid = owner.uid;
            event.gid = owner.gid;
            event.comm = owner.comm;
            event.context.clone_from(&owner.context);
        }
        event.laddr = self.address(row.get(at + 4)?)?;
        event.lport = number(row, at + 5)?;
        event.raddr = self.address(row.get(at + 6)?)?;
        event.rport = number(row, at + 7)?;
        event.sock = number(row, at + 8)?;
        event.latency_us = number(row, at + 9)?;
        event.duration_us = number(row, at + 10)?;
        event.rx_bytes = number(row, at + 11)?;
        event.tx_bytes = number(row, at + 12)?;
        event.rtt_us = number(row, at + 13)?;
        event.retrans = number(row, at + 14)?;
        event.accepted = number(row, at + 15)?;
        event.backlog = number(row, at + 16)?;
        event.count = number(row, at + 17)?;
        event.holders = peers(row.get(at + 18)?)?;
        Ok(event)
    }

    fn address(&mut self, id: Option<i64>) -> Result<Option<IpAddr>> {
        let Some(id) = id else { return Ok(None) };
        if let Some(address) = self.addresses.get(&id) {
            return Ok(Some(*address));
        }
        let sql = "SELECT address FROM raw_address WHERE id = ?";
        let mut statement = self.db.prepare_cached(sql)?;
        let text: String = statement.query_row([id], |row| row.get(0))?;
        let address = text
            .parse()
            .with_context(|| format!("no address '{text}'"))?;
        remember(self.addresses, id, address);
        Ok(Some(address))
    }

    fn what(&mut self, id: i64) -> Result<What> {
        if let Some(what) = self.whats.get(&id) {
            return Ok(*what);
        }
        let sql = "SELECT origin, proto, family, netns, errno, cause, reason, service
                   FROM raw_what WHERE id = ?";
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query([id])?;
        let row = rows.next()?.context("an event refers to nothing")?;
        let what = What {
            origin: spelled(row, 0, Origin::parse)?.context("an event without origin")?,
            proto: spelled(row, 1, Proto::parse)?,
            family: spelled(row, 2, Family::parse)?,
            netns: number(row, 3)?,
            error: number(row, 4)?,
            cause: spelled(row, 5, Cause::parse)?,
            reason: row.get::<_, Option<String>>(6)?.map(interned),
            service: row.get::<_, Option<String>>(7)?.map(interned),
        };
        remember(self.whats, id, what);
        Ok(what)
    }

    fn owner(&mut self, id: i64) -> Result<&Owner> {
        if !self.owners.contains_key(&id) {
            let sql = "SELECT process, pid, tid, ppid, uid, gid, comm FROM raw_owner WHERE id = ?";
            let mut statement = self.db.prepare_cached(sql)?;
            let mut rows = statement.query([id])?;
            let row = rows.next()?.context("an event refers to no owner")?;
            let process: Option<i64> = row.get(0)?;
            let owner = Owner {
                pid: number(row, 1)?,
                tid: number(row, 2)?,
                ppid: number(row, 3)?,
                uid: number(row, 4)?,
                gid: number(row, 5)?,
                comm: comm(row, 6)?,
                context: process.map(|id| self.process(id)).transpose()?,
            };
            remember(self.owners, id, owner);
        }
        self.owners.get(&id).context("no owner")
    }

    fn process(&mut self, id: i64) -> Result<Arc<Context>> {
        if let Some(context) = self.processes.get(&id) {
            return Ok(context.clone());
        }
        let sql = "SELECT exe, args, user, parents, cgroup, container, unit
                   FROM raw_process WHERE id = ?";
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query([id])?;
        let row = rows.next()?.context("an owner refers to no process")?;
        let args: Option<String> = row.get(1)?;
        let context = Arc::new(Context {
            exe: row.get(0)?,
            args: (args.map(|text| serde_json::from_str(&text)).transpose())
                .context("arguments that are no list")?,
            user: row.get(2)?,
            parents: peers(row.get(3)?)?,
            cgroup: row.get(4)?,
            container: row.get(5)?,
            unit: row.get(6)?,
        });
        remember(self.processes, id, context.clone());
        Ok(context)
    }
}

/// Keeps an entry; when there are too many, begins anew.
fn remember<T>(map: &mut HashMap<i64, T>, id: i64, entry: T) {
    if map.len() >= KEPT {
        map.clear();
    }
    map.insert(id, entry);
}

/// A number in as many bits as it is to have.
fn number<T: TryFrom<u64>>(row: &SqlRow<'_>, at: usize) -> Result<Option<T>> {
    let number: Option<i64> = row.get(at)?;
    let convert = |x: i64| {
        let wrong = |_| anyhow!("{x} is out of range");
        T::try_from(x.cast_unsigned()).map_err(wrong)
    };
    number.map(convert).transpose()
}

fn spelled<T>(row: &SqlRow<'_>, at: usize, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    let text: Option<String> = row.get(at)?;
    let read = |text: String| parse(&text).with_context(|| format!("'{text}' is no value here"));
    text.map(read).transpose()
}

fn comm(row: &SqlRow<'_>, at: usize) -> Result<Option<Comm>> {
    use rusqlite::types::ValueRef;
    let bytes = match row.get_ref(at)? {
        ValueRef::Null => return Ok(None),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => return Err(anyhow!("a number is no comm")),
    };
    let mut comm = [0; 16];
    let place = comm.get_mut(..bytes.len()).context("a comm is too long")?;
    place.copy_from_slice(bytes);
    Ok(Some(Comm(comm)))
}

/// From JSON: `[{"pid":…,"comm":…,"sock":…}]`.
fn peers(text: Option<String>) -> Result<Option<Vec<Peer>>> {
    let Some(text) = text else { return Ok(None) };
    let items: Vec<Json> = serde_json::from_str(&text).context("processes that are no list")?;
    let peer = |item: &Json| {
        let pid = item.get("pid")?.as_u64()?.try_into().ok()?;
        let comm = item.get("comm")?.as_str()?.to_owned();
        let sock = item.get("sock").and_then(Json::as_u64);
        Some(Peer { pid, comm, sock })
    };
    let peers: Option<Vec<Peer>> = items.iter().map(peer).collect();
    Ok(Some(
        peers.context("a list of other things than processes")?,
    ))
}

/// Names of reasons and services live as long as the program; there are few of them.
fn interned(text: String) -> &'static str {
    static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Default::default);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    match names.get(text.as_str()) {
        Some(name) => name,
        None => {
            let name: &'static str = text.leak();
            names.insert(name);
            name
        }
    }
}
