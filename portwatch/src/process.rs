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
mod tests {
    use super::*;

    /// A machine where only process 1 can be looked up.
    struct Machine;

    impl Lookup for Machine {
        fn process(&mut self, pid: u32) -> Option<Process> {
            (pid == 1).then(|| Process {
                comm: "init".into(),
                ..Process::default()
            })
        }
        fn cgroup(&mut self, id: u64) -> Option<String> {
            (id == 7).then(|| "/system.slice/web.service".into())
        }
        fn cgroup_now(&mut self, pid: u32) -> Option<String> {
            (pid == 30).then(|| "/docker/now".into())
        }
        fn user(&mut self, uid: u32) -> Option<String> {
            (uid == 0).then(|| "root".into())
        }
    }

    fn program(ppid: u32, name: &str) -> Process {
        Process {
            ppid,
            comm: name.into(),
            exe: Some(format!("/bin/{name}")),
            ..Process::default()
        }
    }

    /// Numbers of the ancestors that are told of a process.
    fn ancestors(
        processes: &mut Processes,
        tgid: u32,
        ppid: u32,
        lookup: &mut impl Lookup,
    ) -> Vec<u32> {
        let context = processes.context(&owner(tgid, ppid), u64::MAX, lookup);
        context.parents.iter().flatten().map(|x| x.pid).collect()
    }

    fn owner(tgid: u32, ppid: u32) -> Owner {
        Owner {
            tgid,
            ppid,
            cgroup: 7,
            ..Owner::default()
        }
    }

    #[test]
    fn a_process_is_known_after_its_end_until_its_number_is_taken() {
        let mut processes = Processes::default();
        processes.exec(10, program(1, "sh"), 0);
        processes.fork(10, 20, "sh".into(), 0, &mut Machine);
        processes.exec(20, program(10, "nc"), 0);
        processes.exit(20, 5);
        let context = processes.context(&owner(20, 10), u64::MAX, &mut Machine);
        assert_eq!(context.exe.as_deref(), Some("/bin/nc"));
        assert_eq!(context.unit.as_deref(), Some("web.service"));
        assert_eq!(context.user.as_deref(), Some("root"));
        let names: Vec<&str> = context
            .parents
            .iter()
            .flatten()
            .map(|p| p.comm.as_str())
            .collect();
        assert_eq!(names, ["sh", "init"]);
        processes.fork(10, 20, "sh".into(), 0, &mut Machine);
        assert_eq!(
            processes
                .context(&owner(20, 10), u64::MAX, &mut Machine)
                .exe
                .as_deref(),
            Some("/bin/sh")
        );
    }

    #[test]
    fn a_parent_has_the_name_that_it_had_when_it_forked() {
        let mut processes = Processes::default();
        processes.exec(10, program(1, "python"), 0);
        processes.fork(10, 20, "python".into(), 0, &mut Machine);
        let names = |processes: &mut Processes, pid| -> Vec<String> {
            let context = processes.context(&owner(pid, 10), u64::MAX, &mut Machine);
            let parents = context.parents.iter().flatten();
            parents.map(|parent| parent.comm.clone()).collect()
        };
        assert_eq!(names(&mut processes, 20), ["python", "init"]);
        processes.fork(10, 21, "worker".into(), 0, &mut Machine);
        for pid in [20, 21] {
            assert_eq!(names(&mut processes, pid), ["worker", "init"]);
        }
    }

    #[test]
    fn what_is_said_of_one_that_ends_is_no_cgroup_to_move_to() {
        let mut processes = Processes::default();
        let program = |cgroup: &str| Process {
            cgroup: Some(cgroup.to_owned()),
            ..program(1, "sh")
        };
        processes.exec(10, program("/docker/1"), 0);
        processes.exec(10, program("/"), 0);
        let known = |processes: &mut Processes, pid| {
            let process = processes.get(pid, &mut Machine);
            process.and_then(|process| process.cgroup.clone())
        };
        assert_eq!(known(&mut processes, 10).as_deref(), Some("/docker/1"));
        processes.exec(11, program("/"), 0);
        assert_eq!(known(&mut processes, 11).as_deref(), Some("/"));
    }

    #[test]
    fn a_process_in_a_cgroup_of_version_1_is_where_it_is_now() {
        let mut processes = Processes::default();
        let cgroup = Some("/docker/before".to_string());
        for pid in [30, 31] {
            let process = Process {
                cgroup: cgroup.clone(),
                ..program(1, "sh")
            };
            processes.exec(pid, process, 0);
        }
        let mut told = |pid, cgroup| {
            let owner = Owner {
                cgroup,
                ..owner(pid, 1)
            };
            processes
                .context(&owner, u64::MAX, &mut Machine)
                .cgroup
                .clone()
        };
        assert_eq!(told(30, 7).as_deref(), Some("/system.slice/web.service"));
        assert_eq!(told(30, 1).as_deref(), Some("/docker/now"));
        assert_eq!(told(31, 1), cgroup);
        processes.exit(30, 1);
        let owner = Owner {
            cgroup: 1,
            ..owner(30, 1)
        };
        let context = processes.context(&owner, u64::MAX, &mut Machine);
        assert_eq!(context.cgroup, cgroup);
    }

    #[test]
    fn a_context_is_shared_until_something_in_it_changes() {
        let mut processes = Processes::default();
        processes.exec(10, program(1, "sh"), 0);
        let first = processes.context(&owner(10, 1), u64::MAX, &mut Machine);
        assert!(Arc::ptr_eq(
            &first,
            &processes.context(&owner(10, 1), u64::MAX, &mut Machine)
        ));
        // others come and go
        processes.fork(10, 20, "sh".into(), 0, &mut Machine);
        processes.exec(20, program(10, "nc"), 0);
        processes.exit(20, 1);
        assert!(Arc::ptr_eq(
            &first,
            &processes.context(&owner(10, 1), u64::MAX, &mut Machine)
        ));
        let nobody = Owner {
            uid: 65534,
            ..owner(10, 1)
        };
        assert_eq!(
            processes.context(&nobody, u64::MAX, &mut Machine).user,
            None
        );
        processes.exec(10, program(1, "cat"), 0);
        assert_eq!(
            processes
                .context(&owner(10, 1), u64::MAX, &mut Machine)
                .exe
                .as_deref(),
            Some("/bin/cat")
        );
    }

    #[test]
    fn the_dead_are_forgotten_but_not_those_who_took_their_numbers() {
        let mut processes = Processes::default();
        for pid in [10, 11] {
            processes.exec(pid, program(1, "sh"), 0);
            processes.exit(pid, 0);
        }
        processes.exec(11, program(1, "cat"), 0);
        processes.exit(99, REMEMBER_NS + 1);
        processes.exec(12, program(1, "sh"), 0);
        processes.exit(12, REMEMBER_NS + 2);
        assert!(!processes.known.contains_key(&10));
        assert!(processes.known.contains_key(&11));
        assert!(processes.known.contains_key(&12));
    }

    /// A machine where process 20 has this parent now.
    struct Orphan(u32);

    impl Lookup for Orphan {
        fn process(&mut self, pid: u32) -> Option<Process> {
            match pid {
                20 => Some(program(self.0, "b")),
                _ => Machine.process(pid),
            }
        }
        fn cgroup(&mut self, _: u64) -> Option<String> {
            None
        }
        fn cgroup_now(&mut self, _: u32) -> Option<String> {
            None
        }
        fn user(&mut self, _: u32) -> Option<String> {
            None
        }
    }

    #[test]
    fn who_ended_before_is_no_ancestor_nor_is_who_took_its_number() {
        // 5 begot 10, that 20, that 30
        let line = || {
            let mut processes = Processes::default();
            processes.seed(5, program(1, "reaper"));
            processes.fork(5, 10, "reaper".into(), 1, &mut Machine);
            processes.fork(10, 20, "reaper".into(), 2, &mut Machine);
            processes
        };
        let mut processes = line();
        assert_eq!(
            ancestors(&mut processes, 30, 20, &mut Machine),
            [20, 10, 5, 1]
        );
        processes.exit(10, 3);
        processes.fork(20, 30, "b".into(), 4, &mut Machine);
        // while it is on its way to another parent
        assert_eq!(ancestors(&mut processes, 30, 20, &mut Orphan(10)), [20]);
        processes.exit(99, 5);
        assert_eq!(
            ancestors(&mut processes, 30, 20, &mut Orphan(5)),
            [20, 5, 1]
        );
        processes.fork(1, 10, "innocent".into(), 6, &mut Machine);
        processes.exit(99, 7);
        assert_eq!(ancestors(&mut processes, 30, 20, &mut Machine), [20, 5, 1]);

        let mut processes = line();
        processes.exit(10, 3);
        processes.fork(1, 10, "innocent".into(), 4, &mut Machine);
        assert_eq!(ancestors(&mut processes, 30, 20, &mut Machine), [20]);
        assert_eq!(ancestors(&mut processes, 31, 20, &mut Orphan(1)), [20, 1]);

        let mut processes = line();
        processes.exit(20, 3);
        processes.exit(10, 4);
        assert_eq!(
            ancestors(&mut processes, 30, 20, &mut Machine),
            [20, 10, 5, 1]
        );
        let mut processes = line();
        processes.exit(10, 3);
        processes.exit(20, 4);
        assert_eq!(ancestors(&mut processes, 30, 20, &mut Machine), [20]);
    }

    #[test]
    fn a_process_is_what_it_was_at_the_time() {
        let mut processes = Processes::default();
        processes.fork(1, 10, "init".into(), 10, &mut Machine);
        processes.exec(10, program(1, "sh"), 20);
        processes.exec(10, program(1, "nc"), 30);
        let exe = |processes: &mut Processes, ts| {
            let context = processes.context(&owner(10, 1), ts, &mut Machine);
            context.exe.clone()
        };
        // Longer ago than is known.
        assert_eq!(exe(&mut processes, 19), None);
        for (ts, there) in [(30, "/bin/nc"), (29, "/bin/sh"), (30, "/bin/nc")] {
            assert_eq!(exe(&mut processes, ts).as_deref(), Some(there));
        }
        processes.exit(10, 40);
        processes.fork(1, 10, "init".into(), 50, &mut Machine);
        assert_eq!(exe(&mut processes, 45).as_deref(), Some("/bin/nc"));
        assert_eq!(exe(&mut processes, 50), None);
    }

    #[test]
    fn ancestors_that_form_a_ring_end_somewhere() {
        let mut processes = Processes::default();
        processes.exec(10, program(20, "a"), 0);
        processes.exec(20, program(10, "b"), 0);
        assert_eq!(
            processes
                .context(&owner(10, 20), u64::MAX, &mut Machine)
                .parents
                .as_ref()
                .map(Vec::len),
            Some(2)
        );
    }
}
