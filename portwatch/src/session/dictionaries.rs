//! From rows to events: what rows refer to by number, and columns as the fields they stand for.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow};
use rusqlite::{Connection, Row as SqlRow};
use serde_json::Value as Json;

use super::what::What;
use crate::event::{Cause, Comm, Context, Event, Family, Kind, Origin, Peer, Proto};

/// Most entries of a dictionary kept in memory.
const KEPT: usize = 1 << 16;

/// What rows refer to, read when it is needed.
pub struct Dictionaries<'a> {
    pub db: &'a Connection,
    known: &'a mut Known,
}

/// What was read of them.
#[derive(Default)]
pub struct Known {
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

impl<'a> Dictionaries<'a> {
    pub fn new(db: &'a Connection, known: &'a mut Known) -> Self {
        Self { db, known }
    }

    /// From the columns that events and sockets have in common, from this one on.
    ///
    /// # Errors
    /// When the row, or what it refers to, is none that a recording makes.
    pub fn event(&mut self, row: &SqlRow<'_>, at: usize) -> Result<Event> {
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
        event.inode = number(row, at + 9)?;
        event.latency_us = number(row, at + 10)?;
        event.duration_us = number(row, at + 11)?;
        event.rx_bytes = number(row, at + 12)?;
        event.tx_bytes = number(row, at + 13)?;
        event.rtt_us = number(row, at + 14)?;
        event.retrans = number(row, at + 15)?;
        event.accepted = number(row, at + 16)?;
        event.backlog = number(row, at + 17)?;
        event.count = number(row, at + 18)?;
        event.holders = peers(row.get(at + 19)?)?;
        Ok(event)
    }

    fn address(&mut self, id: Option<i64>) -> Result<Option<IpAddr>> {
        let Some(id) = id else { return Ok(None) };
        if let Some(address) = self.known.addresses.get(&id) {
            return Ok(Some(*address));
        }
        let sql = "SELECT address FROM raw_address WHERE id = ?";
        let mut statement = self.db.prepare_cached(sql)?;
        let text: String = statement.query_row([id], |row| row.get(0))?;
        let address = text
            .parse()
            .with_context(|| format!("no address '{text}'"))?;
        remember(&mut self.known.addresses, id, address);
        Ok(Some(address))
    }

    fn what(&mut self, id: i64) -> Result<What> {
        if let Some(what) = self.known.whats.get(&id) {
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
        remember(&mut self.known.whats, id, what);
        Ok(what)
    }

    fn owner(&mut self, id: i64) -> Result<&Owner> {
        if !self.known.owners.contains_key(&id) {
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
            remember(&mut self.known.owners, id, owner);
        }
        self.known.owners.get(&id).context("no owner")
    }

    fn process(&mut self, id: i64) -> Result<Arc<Context>> {
        if let Some(context) = self.known.processes.get(&id) {
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
            args: (args
                .map(|text| serde_json::from_str::<Vec<_>>(&text))
                .transpose())
            .context("arguments that are no list")?
            .map(Arc::from),
            user: row.get(2)?,
            parents: peers(row.get(3)?)?,
            cgroup: row.get(4)?,
            container: row.get(5)?,
            unit: row.get(6)?,
        });
        remember(&mut self.known.processes, id, context.clone());
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
///
/// # Errors
/// When it is none, or has more.
pub fn number<T: TryFrom<u64>>(row: &SqlRow<'_>, at: usize) -> Result<Option<T>> {
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
