//! Who a process is, for the events and rows of the sockets it holds.

use std::path::Path;
use std::sync::Arc;

use portwatch_common::Owner as Told;

use crate::event::{Comm, Context, Event};
use crate::machine::{Machine, Status};
use crate::process::Processes;

/// The owner of a socket as events tell it, as far as it can be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    pub pid: u32,
    pub ppid: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub comm: Option<Comm>,
    pub context: Arc<Context>,
}

impl Owner {
    pub fn put(&self, event: &mut Event) {
        event.pid = Some(self.pid);
        event.ppid = self.ppid;
        // Else that of the socket stays.
        event.uid = self.uid.or(event.uid);
        event.gid = self.gid;
        event.comm = self.comm;
        event.context = Some(self.context.clone());
    }
}

/// The processes of a proc file system, each read once until they are forgotten.
pub struct Owners {
    machine: Machine,
    processes: Processes,
}

impl Owners {
    pub fn new(root: Option<&Path>) -> Self {
        Self {
            machine: root.map_or_else(Machine::new, Machine::at),
            processes: Processes::default(),
        }
    }

    /// Processes are read anew from here on.
    pub fn forget(&mut self) {
        self.processes = Processes::default();
    }

    /// A running process; `None` when it is gone.
    pub fn owner(&mut self, pid: u32) -> Option<Owner> {
        let process = self.processes.get(pid, &mut self.machine);
        let (comm, parent) = process.map(|process| (process.comm, process.ppid)).unzip();
        if comm.is_none() && !self.machine.has(pid) {
            return None;
        }
        let Status { ppid, uid, gid, .. } = self.machine.status(pid);
        let told = Told {
            tgid: pid,
            ppid: parent.unwrap_or_default(),
            // This one has no name.
            uid: uid.unwrap_or(u32::MAX),
            ..Told::default()
        };
        Some(Owner {
            pid,
            // 0 may be that of the first process, or not be known.
            ppid: ppid.or(parent.filter(|&parent| parent != 0)),
            uid,
            gid,
            comm,
            context: self.processes.context(&told, u64::MAX, &mut self.machine),
        })
    }

    /// Name of a process.
    pub fn comm(&mut self, pid: u32) -> Option<String> {
        let process = self.processes.get(pid, &mut self.machine)?;
        Some(process.comm.text().into_owned())
    }

    /// What is known of the owner of a socket when nothing but its user is.
    pub fn user(&mut self, uid: u32) -> Option<Arc<Context>> {
        use crate::process::Lookup as _;
        let user = Some(self.machine.user(uid)?);
        Some(Arc::new(Context {
            user,
            ..Context::default()
        }))
    }
}
