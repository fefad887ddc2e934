//! The acting process. Only to be asked in process context: elsewhere the current task is a bystander.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_task, bpf_get_current_uid_gid,
    generated::bpf_get_current_task_btf,
};
use portwatch_common::Owner;

use crate::{
    maps::{config, offset},
    memory::{Direct, Memory, Probe},
};

/// The current task as the owner of what happens now, for tracing programs.
#[inline(always)]
pub fn owner() -> Owner {
    if config!(task_btf_helper) == 1 {
        from_task::<Direct>(
            unsafe { bpf_get_current_task_btf() } as usize,
            Ids::current(),
        )
    } else {
        owner_by_address()
    }
}

/// The same for programs that get no typed tasks.
#[inline(always)]
pub fn owner_by_address() -> Owner {
    from_task::<Probe>(unsafe { bpf_get_current_task() } as usize, Ids::current())
}

/// What helpers tell of the current task, and structures of any other.
pub struct Ids {
    uid: u32,
    gid: u32,
    cgroup: u64,
}

impl Ids {
    #[inline(always)]
    fn current() -> Self {
        let ids = bpf_get_current_uid_gid();
        let cgroup = unsafe { bpf_get_current_cgroup_id() };
        Self {
            uid: ids as u32,
            gid: (ids >> 32) as u32,
            cgroup,
        }
    }

    #[inline(always)]
    pub fn of(task: usize) -> Self {
        unsafe {
            let cred: usize = Probe::read(task, offset!(task_cred));
            let groups: usize = Probe::read(task, offset!(task_cgroups));
            let cgroup: usize = Probe::read(groups, offset!(css_set_default));
            let node: usize = Probe::read(cgroup, offset!(cgroup_kn));
            Self {
                uid: Probe::read(cred, offset!(cred_uid)),
                gid: Probe::read(cred, offset!(cred_gid)),
                cgroup: Probe::read(node, offset!(kernfs_id)),
            }
        }
    }
}

/// Pointers in a task are read as plain numbers: see [`crate::memory::Direct`].
#[inline(always)]
pub fn from_task<M: Memory>(task: usize, ids: Ids) -> Owner {
    unsafe {
        let parent: usize = Probe::read(task, offset!(task_real_parent));
        // An io_uring worker belongs to the process, but carries a name of its own.
        let leader: usize = Probe::read(task, offset!(task_group_leader));
        Owner {
            tgid: M::read(task, offset!(task_tgid)),
            tid: M::read(task, offset!(task_pid)),
            ppid: Probe::read(parent, offset!(task_tgid)),
            uid: ids.uid,
            gid: ids.gid,
            _reserved: 0,
            cgroup: ids.cgroup,
            comm: Probe::read(leader, offset!(task_comm)),
        }
    }
}
