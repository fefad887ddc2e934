//! Who a process is, for the events and rows of the sockets it holds.

use std::path::Path;
use std::sync::Arc;

use portwatch_common::Owner as Told;

use crate::event::{Comm, Context, Event};
use crate::machine::Machine;
use crate::process::Processes;

/// The owner of a socket as events tell it.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    pub pid: u32,
    pub ppid: u32,
    pub uid: u32,
    pub gid: u32,
    pub comm: Comm,
    pub context: Arc<Context>,
}

impl Owner {
    pub fn put(&self, event: &mut Event) {
        event.pid = Some(self.pid);
        event.ppid = Some(self.ppid);
        event.uid = Some(self.uid);
        event.gid = Some(self.gid);
        event.comm = Some(self.comm);
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

    /// A running process; `None` when it is gone or cannot be read.
    pub fn owner(&mut self, pid: u32) -> Option<Owner> {
        let process = self.processes.get(pid, &mut self.machine)?;
        let (ppid, comm) = (process.ppid, process.comm);
        let (uid, gid) = self.machine.ids(pid)?;
        let told = Told {
            tgid: pid,
            ppid,
            uid,
            gid,
            ..Told::default()
        };
        Some(Owner {
            pid,
            ppid,
            uid,
            gid,
            comm,
            context: self.processes.context(&told, &mut self.machine),
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
