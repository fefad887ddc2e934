//! The process cache: what is known of processes, also of those already gone. Sans-IO: it takes
//! records and a [`Lookup`] for processes that were there before the probes.

use std::collections::VecDeque;
use std::sync::Arc;

use portwatch_common::Owner;
use rustc_hash::FxHashMap;

use crate::container;
use crate::event::{Comm, Context, Peer};

/// A process as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub ppid: u32,
    pub comm: Comm,
    pub exe: Option<String>,
    pub args: Option<Arc<[String]>>,
    /// Path of its cgroup, where it was read rather than told by id.
    pub cgroup: Option<String>,
}

/// Answers what the records did not tell.
pub trait Lookup {
    /// A process that is running now.
    fn process(&mut self, pid: u32) -> Option<Process>;
    /// Path of a cgroup v2 directory by its id.
    fn cgroup(&mut self, id: u64) -> Option<String>;
    /// Path of the cgroup that a process is in now, where version 1 tells more than an id of version 2.
    fn cgroup_now(&mut self, pid: u32) -> Option<String>;
    fn user(&mut self, uid: u32) -> Option<String>;
}

/// How long the dead are remembered, in nanoseconds. Sockets that outlive their owner by more
/// keep what was known of it themselves.
const REMEMBER_NS: u64 = 60_000_000_000;
/// Most dead processes remembered.
const GRAVES: usize = 65_536;
/// The first process, whose number is never another's.
const INIT: u32 = 1;
/// Longest line of ancestors told.
const ANCESTORS: usize = 32;

/// What is known of all processes.
#[derive(Default)]
pub struct Processes {
    known: FxHashMap<u32, Entry>,
    /// The dead, in order of death.
    graves: VecDeque<(u64, u32)>,
    /// Grows when any process changes its program or ends: then ancestors may read differently.
    generation: u64,
}

#[derive(Default)]
struct Entry {
    process: Process,
    /// By which it is told from others that have its number; 0 where no record told.
    born: u64,
    /// The same of its parent.
    parent_born: u64,
    /// It is this since: its birth, or its exec; 0 where no record told.
    since: u64,
    /// What had this number before, and since when.
    before: Option<Box<(Process, u64)>>,
    died: Option<u64>,
    context: Option<Remembered>,
}

impl Entry {
    /// What it was at some time; of what was before only the last is known.
    fn at(&self, ts: u64) -> Option<&Process> {
        let before = self
            .before
            .as_deref()
            .map(|(process, since)| (process, *since));
        [(&self.process, self.since)]
            .into_iter()
            .chain(before)
            .find(|&(_, since)| since <= ts)
            .map(|(process, _)| process)
    }

    fn into_before(self) -> Box<(Process, u64)> {
        Box::new((self.process, self.since))
    }
}

/// A context, and what it was made from.
struct Remembered {
    generation: u64,
    ppid: u32,
    uid: u32,
    cgroup: u64,
    context: Arc<Context>,
}

impl Processes {
    /// A process that was running at the start. What records told meanwhile is newer.
    pub fn seed(&mut self, pid: u32, process: Process) {
        self.known.entry(pid).or_insert_with(|| Entry {
            process,
            ..Entry::default()
        });
    }

    /// A process was born at `ts`. `comm`: the name of the parent, which it may have given itself since it was last
    /// heard of.
    pub fn fork(&mut self, parent: u32, child: u32, comm: Comm, ts: u64, lookup: &mut impl Lookup) {
        self.rename(parent, comm);
        let (process, parent_born) = match self.entry(parent, lookup) {
            Some(entry) => (entry.process.clone(), entry.born),
            None => Default::default(),
        };
        let before = self.known.remove(&child).map(Entry::into_before);
        self.known.insert(
            child,
            Entry {
                process: Process {
                    ppid: parent,
                    ..process
                },
                born: ts,
                parent_born,
                since: ts,
                before,
                ..Entry::default()
            },
        );
    }

    fn rename(&mut self, pid: u32, comm: Comm) {
        if let Some(entry) = self.known.get_mut(&pid)
            && entry.process.comm.bytes() != comm.bytes()
        {
            entry.process.comm = comm;
            self.generation += 1;
        }
    }

    /// A process runs another program since `ts`.
    pub fn exec(&mut self, pid: u32, mut process: Process, ts: u64) {
        self.generation += 1;
        let parent_born = (self.known.get(&process.ppid)).map_or(0, |parent| parent.born);
        let before = self.known.remove(&pid);
        let born = (before.as_ref().filter(|before| before.died.is_none())).map_or(ts, |x| x.born);
        // Version 1 says that of whoever is about to end.
        if process.cgroup.as_deref().is_none_or(|path| path == "/") {
            // Another program in the same place.
            let before = before.as_ref().and_then(|x| x.process.cgroup.clone());
            process.cgroup = before.or(process.cgroup);
        }
        self.known.insert(
            pid,
            Entry {
                process,
                born,
                parent_born,
                since: ts,
                before: before.map(Entry::into_before),
                ..Entry::default()
            },
        );
    }

    /// A process ended at `ts` (any clock that the others use too).
    pub fn exit(&mut self, pid: u32, ts: u64) {
        self.generation += 1;
        if let Some(entry) = self.known.get_mut(&pid) {
            entry.died = Some(ts);
            self.graves.push_back((ts, pid));
        }
        while let Some(&(died, pid)) = self.graves.front() {
            if self.graves.len() <= GRAVES && ts.saturating_sub(died) <= REMEMBER_NS {
                break;
            }
            self.graves.pop_front();
            // The number may have a new holder.
            if self
                .known
                .get(&pid)
                .is_some_and(|entry| entry.died == Some(died))
            {
                self.known.remove(&pid);
            }
        }
    }

    /// What is known of an owner beyond what the kernel told with the event, as of `ts`.
    pub fn context(&mut self, owner: &Owner, ts: u64, lookup: &mut impl Lookup) -> Arc<Context> {
        let generation = self.generation;
        if let Some(Remembered { context, .. }) = (self.known.get(&owner.tgid))
            .filter(|entry| entry.since <= ts)
            .and_then(|entry| entry.context.as_ref())
            .filter(|r| (r.generation, r.ppid) == (generation, owner.ppid))
            .filter(|r| (r.uid, r.cgroup) == (owner.uid, owner.cgroup))
        {
            return context.clone();
        }
        let entry = self.entry(owner.tgid, lookup);
        let running = entry.is_some_and(|entry| entry.died.is_none());
        let process = entry
            .and_then(|entry| entry.at(ts))
            .cloned()
            .unwrap_or_default();
        let cgroup = match owner.cgroup {
            // Nobody told.
            0 => process.cgroup,
            id => match lookup.cgroup(id) {
                Some(path) if path != "/" => Some(path),
                // Version 2 may be there, but the limits are set in version 1. It may have been moved since
                // it was last read.
                root => (running.then(|| lookup.cgroup_now(owner.tgid)).flatten())
                    // Version 1 says that also of whoever is about to end.
                    .filter(|path| path != "/")
                    .or(process.cgroup)
                    .or(root),
            },
        };
        let context = Context {
            exe: process.exe,
            args: process.args,
            user: lookup.user(owner.uid),
            parents: Some(self.parents(owner.ppid, lookup)),
            container: cgroup.as_deref().and_then(container::container),
            unit: cgroup.as_deref().and_then(container::unit),
            cgroup,
        };
        let entry = self.known.entry(owner.tgid).or_default();
        if entry.since > ts {
            return Arc::new(context);
        }
        // One that reads the same is shared by all sockets that were made meanwhile.
        let before = entry.context.take().map(|before| before.context);
        let context =
            (before.filter(|before| **before == context)).unwrap_or_else(|| Arc::new(context));
        entry.context = Some(Remembered {
            generation,
            ppid: owner.ppid,
            uid: owner.uid,
            cgroup: owner.cgroup,
            context: context.clone(),
        });
        context
    }

    /// What is known of a process.
    pub fn get(&mut self, pid: u32, lookup: &mut impl Lookup) -> Option<&Process> {
        Some(&self.entry(pid, lookup)?.process)
    }

    fn parents(&mut self, mut pid: u32, lookup: &mut impl Lookup) -> Vec<Peer> {
        let mut parents: Vec<Peer> = Vec::new();
        while pid != 0 && parents.len() < ANCESTORS && parents.iter().all(|p| p.pid != pid) {
            let Some(entry) = self.entry(pid, lookup) else {
                break;
            };
            parents.push(Peer {
                pid,
                comm: entry.process.comm.text().into_owned(),
                sock: None,
            });
            pid = self.parent(pid, lookup);
        }
        parents
    }

    /// The parent of a known process, or the last one that it had; 0 when that is not known.
    fn parent(&mut self, pid: u32, lookup: &mut impl Lookup) -> u32 {
        let Some(entry) = self.known.get(&pid) else {
            return 0;
        };
        let (ppid, parent_born, died) = (entry.process.ppid, entry.parent_born, entry.died);
        // That of them which never ends needs no proof.
        if ppid <= INIT {
            return ppid;
        }
        let outlived = |parent: &Entry| match (parent.died, died) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(parent), Some(child)) => child <= parent,
        };
        if (self.entry(ppid, lookup))
            .is_some_and(|parent| parent.born == parent_born && outlived(parent))
        {
            return ppid;
        }
        // It was given another one when that one ended.
        let now = (died.is_none().then(|| lookup.process(pid)).flatten()).map_or(0, |x| x.ppid);
        let parent = self.entry(now, lookup).filter(|x| x.died.is_none());
        let Some(born) = parent.map(|parent| parent.born) else {
            return 0;
        };
        if let Some(entry) = self.known.get_mut(&pid) {
            entry.process.ppid = now;
            entry.parent_born = born;
        }
        now
    }

    fn entry(&mut self, pid: u32, lookup: &mut impl Lookup) -> Option<&Entry> {
        if let std::collections::hash_map::Entry::Vacant(vacant) = self.known.entry(pid) {
            let process = lookup.process(pid)?;
            vacant.insert(Entry {
                process,
                ..Entry::default()
            });
        }
        self.known.get(&pid)
    }
}

#[cfg(test)]
mod tests;
