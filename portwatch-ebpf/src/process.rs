//! Births, deaths and programs of processes, so that user space knows those already gone.

use core::ptr::write_volatile;

use aya_ebpf::{
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_uid_gid,
        generated::{bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_ringbuf_output},
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use portwatch_common::{ARGS_MAX, Kind, MISSING, NO_STATUS, PATH_MAX, ProcessRecord, TextRecord};

use crate::{
    body::{SCHED_PROCESS_EXEC, run},
    emit::{lost, now, wakeup},
    maps::{EVENTS, SCRATCH, SCRATCHES, Scratch, constant, offset, opaque},
    memory::{Direct, Memory, Probe},
    twin::{Hook, twins},
};

/// Most directories between the root and an executable.
const DEPTH: usize = 48;
/// Longest name of a directory entry, with its NUL.
const NAME_MAX: usize = 256;

#[inline(always)]
fn forked(ctx: &BtfTracePointContext) {
    let (parent, child): (usize, usize) = (ctx.arg(0), ctx.arg(1));
    let (tgid, pid): (u32, u32) = unsafe {
        (
            Direct::read(child, offset!(task_tgid)),
            Direct::read(child, offset!(task_pid)),
        )
    };
    if tgid == pid {
        let (ppid, leader): (u32, usize) = unsafe {
            (
                Direct::read(parent, offset!(task_tgid)),
                Probe::read(parent, offset!(task_group_leader)),
            )
        };
        send_short(
            Kind::Fork,
            ProcessRecord {
                tgid,
                ppid,
                comm: unsafe { Probe::read(leader, offset!(task_comm)) },
                ..ProcessRecord::default()
            },
        );
    }
}

twins! {
    #[btf_tracepoint(function = "sched_process_fork")]
    sched_process_fork, sched_process_fork_twin |ctx: BtfTracePointContext| Hook::Fork, ctx.arg(1), 0 => forked(&ctx)
}

#[inline(always)]
fn exited(ctx: &BtfTracePointContext) {
    let task: usize = ctx.arg(0);
    let live: u32 = unsafe {
        let signal: usize = Probe::read(task, offset!(task_signal));
        Probe::read(signal, offset!(signal_live))
    };
    if live == 0 {
        let status = match offset!(task_exit_code) {
            MISSING => NO_STATUS,
            // Of the last thread: that of the group, when the process ended by exit_group or a signal.
            member => unsafe { Direct::read(task, member) },
        };
        send_short(
            Kind::Exit,
            ProcessRecord {
                status,
                tgid: unsafe { Direct::read(task, offset!(task_tgid)) },
                ..ProcessRecord::default()
            },
        );
    }
}

twins! {
    #[btf_tracepoint(function = "sched_process_exit")]
    sched_process_exit, sched_process_exit_twin |ctx: BtfTracePointContext| Hook::Exit, ctx.arg(0), 0 => exited(&ctx)
}

#[inline(always)]
fn send_short(kind: Kind, record: ProcessRecord) {
    let Some(mut entry) = EVENTS.reserve::<ProcessRecord>(0) else {
        return lost(kind);
    };
    entry.write(ProcessRecord {
        kind: kind as u8,
        ts: now(),
        ..record
    });
    entry.submit(wakeup());
}

twins! {
    #[btf_tracepoint(function = "sched_process_exec")]
    sched_process_exec, sched_process_exec_twin |ctx: BtfTracePointContext| Hook::Exec, ctx.arg(0), 0 => run!(SCHED_PROCESS_EXEC, &ctx)
}

#[inline(always)]
pub fn executed(ctx: &BtfTracePointContext) {
    let task: usize = ctx.arg(0);
    send(Kind::Exec, |scratch| {
        let ids = bpf_get_current_uid_gid();
        unsafe {
            let parent: usize = Probe::read(task, offset!(task_real_parent));
            let mm: usize = Probe::read(task, offset!(task_mm));
            scratch.head.comm = [
                Direct::read(task, offset!(task_comm)),
                Direct::read(task, offset!(task_comm) + 8),
            ];
            scratch.head.tgid = Direct::read(task, offset!(task_tgid));
            scratch.head.ppid = Probe::read(parent, offset!(task_tgid));
            scratch.head.uid = ids as u32;
            scratch.head.gid = (ids >> 32) as u32;
            scratch.head.cgroup = bpf_get_current_cgroup_id();
            executable(scratch, Probe::read(mm, offset!(mm_exe_file)));
            arguments(
                scratch,
                Probe::read(mm, offset!(mm_arg_start)),
                Probe::read(mm, offset!(mm_arg_end)),
            );
        }
    });
}

/// Puts together a record in this CPU's scratch memory and sends it.
#[inline(always)]
pub fn send(kind: Kind, write: impl FnOnce(&mut Scratch)) {
    let Some(scratch) = free_scratch() else {
        return lost(kind);
    };
    let scratch = unsafe { &mut *scratch };
    unsafe { write_volatile(&mut scratch.busy, 1) };
    scratch.head = TextRecord {
        kind: kind as u8,
        ts: now(),
        ..TextRecord::default()
    };
    write(scratch);
    let text = scratch.head.exe_len as u64 + scratch.head.args_len as u64;
    let size = (opaque(text) & 0x3fff).min((PATH_MAX + ARGS_MAX) as u64);
    let size = size + size_of::<TextRecord>() as u64;
    let sent = unsafe {
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            (&raw mut *scratch).cast(),
            size,
            wakeup(),
        )
    };
    unsafe { write_volatile(&mut scratch.busy, 0) };
    if sent != 0 {
        lost(kind);
    }
}

/// Memory on this CPU that no interrupted program is using.
#[inline(always)]
fn free_scratch() -> Option<*mut Scratch> {
    for slot in 0..SCRATCHES {
        if let Some(scratch) = SCRATCH.get_ptr_mut(slot)
            && constant(unsafe { &(*scratch).busy }) == 0
        {
            return Some(scratch);
        }
    }
    None
}

/// Writes the names on the way from a file up to the root, across mounts, each with its NUL.
/// Their length is kept in the record, not in a register: the verifier then sees the same state
/// after every step, whichever way it went.
#[inline(always)]
fn executable(scratch: &mut Scratch, file: usize) {
    unsafe {
        let mut dentry: usize = Probe::read(file, offset!(file_path_dentry));
        let mut mnt: usize = Probe::read(file, offset!(file_path_mnt));
        for _ in 0..DEPTH {
            let root: usize = Probe::read(mnt, offset!(vfsmount_root));
            let parent: usize = Probe::read(dentry, offset!(dentry_parent));
            // A file in no directory, as memfd_create(2) makes them, is named all the same.
            let named = constant(&scratch.head.exe_len) > 0;
            if dentry == root || dentry == parent && named {
                let mount = mnt - offset!(mount_mnt) as usize;
                let above: usize = Probe::read(mount, offset!(mount_parent));
                if above == mount || above == 0 {
                    return;
                }
                dentry = Probe::read(mount, offset!(mount_mountpoint));
                mnt = above + offset!(mount_mnt) as usize;
                continue;
            }
            let at = constant(&scratch.head.exe_len) as usize & (PATH_MAX - 1);
            if at > PATH_MAX - NAME_MAX {
                break;
            }
            let name: usize = Probe::read(dentry, offset!(dentry_name));
            let length = bpf_probe_read_kernel_str(
                scratch.text.as_mut_ptr().add(at).cast(),
                NAME_MAX as u32,
                name as *const _,
            );
            write_volatile(&mut scratch.head.exe_len, at as u16 + length as u16);
            dentry = parent;
        }
        // Half a path would be another file's.
        write_volatile(&mut scratch.head.exe_len, 0);
    }
}

/// Copies the arguments behind the executable's names.
#[inline(always)]
fn arguments(scratch: &mut Scratch, start: usize, end: usize) {
    let at = constant(&scratch.head.exe_len) as usize & (PATH_MAX - 1);
    let length = (end - start) as u64;
    if length > ARGS_MAX as u64 {
        scratch.head.truncated = 1;
    }
    let length = (opaque(length)).min(ARGS_MAX as u64 - 1);
    let read = unsafe {
        bpf_probe_read_user(
            scratch.text.as_mut_ptr().add(at).cast(),
            length as u32,
            start as *const _,
        )
    };
    if read == 0 {
        scratch.head.args_len = length as u32;
    }
}
