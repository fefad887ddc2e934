//! Sockets that were open before the probes: one walk over all open files of all processes gives
//! them their cookies and their owners. Live news wins over what is found here.

use aya_ebpf::helpers::generated::bpf_sock_from_file;
use portwatch_common::flag;

use crate::{
    maps::offset,
    memory::{Direct, Memory},
    owner::{Ids, from_task},
    socket::{IPPROTO_UDP, is_stream, is_transport, key, new, protocol, sk_of},
    sockets::{find, remember_first},
    tcp::{CLOSE, LISTEN, SYN_SENT},
};

/// Context of `iter/task_file`, from kernel/bpf/task_iter.c.
#[repr(C)]
pub struct TaskFile {
    meta: usize,
    task: usize,
    fd: u32,
    file: usize,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn open_sockets(ctx: *const TaskFile) -> i32 {
    let (task, file) = unsafe { ((*ctx).task, (*ctx).file) };
    if task == 0 || file == 0 {
        return 0;
    }
    let socket = unsafe { bpf_sock_from_file(file as *mut _) } as usize;
    if socket == 0 {
        return 0;
    }
    let sk = sk_of::<Direct>(socket);
    if is_transport::<Direct>(sk) {
        found(sk, task);
    }
    0
}

#[inline(always)]
fn found(sk: usize, task: usize) {
    let protocol = protocol::<Direct>(sk);
    let key = key::<Direct>(sk);
    if !is_stream(protocol) && protocol != IPPROTO_UDP {
        return;
    }
    let state: u8 = unsafe { Direct::read(sk, offset!(sk_state)) };
    let mut socket = new::<Direct>(sk, from_task::<Direct>(task, Ids::of(task)));
    socket.flags = match state as i32 {
        _ if protocol == IPPROTO_UDP && socket.lport == 0 => return,
        _ if protocol == IPPROTO_UDP => flag::BOUND,
        LISTEN => flag::BOUND | flag::LIVE | flag::LISTENER,
        SYN_SENT => flag::CONNECTING,
        CLOSE if socket.lport == 0 => return,
        CLOSE => flag::BOUND,
        _ => flag::LIVE,
    };
    if find(sk, key).is_none() {
        // Live news of it wins.
        remember_first(key, &socket);
    }
}
