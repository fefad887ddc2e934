//! Hooks at the root cgroup, for what the last tier cannot see otherwise, and news of cgroups.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{bpf_get_socket_cookie, bpf_probe_read_kernel_str},
    macros::{btf_tracepoint, cgroup_sock, cgroup_sock_addr, sock_ops},
    programs::{BtfTracePointContext, SockAddrContext, SockContext, SockOpsContext},
};
use portwatch_common::{Bytes16, Kind, PATH_MAX, Socket, flag};

use crate::{
    maps::offset,
    memory::{Memory, Probe},
    owner::owner_by_address,
    process,
    socket::{AF_INET6, IPPROTO_UDP, netns, number},
    sockets::{look_up, take_out},
    twin::{Hook, twins},
    udp,
};

const ALLOW: i32 = 1;
const BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB: u32 = 5;

/// Gives every new socket its cookie, which programs that may not make one then find.
#[cgroup_sock(sock_create)]
pub fn cgroup_sock_create(ctx: SockContext) -> i32 {
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    ALLOW
}

/// The same for accepted sockets, where tracing programs cannot make cookies.
#[sock_ops]
pub fn sock_ops_established(ctx: SockOpsContext) -> u32 {
    if ctx.op() == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    }
    1
}

/// The end of a udp socket.
#[cgroup_sock(sock_release)]
pub fn cgroup_sock_release(ctx: SockContext) -> i32 {
    if unsafe { (*ctx.sock).protocol } == IPPROTO_UDP as u32 {
        let key = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
        if let Some(socket) = look_up(key) {
            udp::close(unsafe { &*socket });
            take_out(key);
        }
    }
    ALLOW
}

/// An unconnected send: a socket that was not bound has just been.
#[cgroup_sock_addr(sendmsg4)]
pub fn cgroup_sendmsg4(ctx: SockAddrContext) -> i32 {
    sends(ctx.sock_addr);
    ALLOW
}

#[cgroup_sock_addr(sendmsg6)]
pub fn cgroup_sendmsg6(ctx: SockAddrContext) -> i32 {
    sends(ctx.sock_addr);
    ALLOW
}

#[inline(always)]
fn sends(ctx: *mut bpf_sock_addr) {
    let key = unsafe { bpf_get_socket_cookie(ctx.cast()) };
    if unsafe { (*ctx).protocol } != IPPROTO_UDP as u32 || has_port(key) {
        return;
    }
    let sk: *mut bpf_sock = unsafe { (*ctx).__bindgen_anon_1.sk };
    if sk.is_null() {
        return;
    }
    // The socket's, not the hook's: a v6 socket may send to a v4-mapped address.
    let family = unsafe { (*sk).family } as u16;
    udp::report_bind(Socket {
        cookie: key,
        family,
        protocol: IPPROTO_UDP,
        laddr: local_address(sk, family),
        lport: unsafe { (*sk).src_port } as u16,
        netns: netns(number(sk as usize) as usize),
        owner: owner_by_address(),
        ..Socket::default()
    });
}

/// Whether a socket has the port that it is known by. It has none after a bind that left that to the first send.
#[inline(always)]
fn has_port(key: u64) -> bool {
    look_up(key)
        .is_some_and(|socket| unsafe { (*socket).flags & flag::BOUND != 0 && (*socket).lport != 0 })
}

/// What it was bound to before: an association that was dissolved leaves the address, but not the port.
#[inline(always)]
fn local_address(sk: *const bpf_sock, family: u16) -> Bytes16 {
    let pair = |low: u32, high: u32| (high as u64) << 32 | low as u64;
    unsafe {
        if family != AF_INET6 {
            return [(*sk).src_ip4 as u64, 0];
        }
        let [a, b, c, d] = [0, 1, 2, 3].map(|at| read_volatile(&(*sk).src_ip6[at]));
        [pair(a, b), pair(c, d)]
    }
}

twins! {
    #[btf_tracepoint(function = "cgroup_mkdir")]
    cgroup_mkdir, cgroup_mkdir_twin |ctx: BtfTracePointContext| Hook::Mkdir, ctx.arg(0), 0 => cgroup_made(&ctx)
}

/// A new cgroup, so that its path is known even if it is gone when its processes' events are shown.
#[inline(always)]
fn cgroup_made(ctx: &BtfTracePointContext) {
    let (cgroup, path): (usize, usize) = (ctx.arg(0), ctx.arg(1));
    let hierarchy: i32 = unsafe {
        let root: usize = Probe::read(cgroup, offset!(cgroup_root));
        Probe::read(root, offset!(cgroup_hierarchy))
    };
    // Ids of version 1 hierarchies overlap with those of the one that counts.
    if hierarchy != 0 {
        return;
    }
    let id = unsafe {
        let node: usize = Probe::read(cgroup, offset!(cgroup_kn));
        Probe::read(node, offset!(kernfs_id))
    };
    process::send(Kind::Cgroup, |scratch| {
        scratch.head.cgroup = id;
        let length = unsafe {
            bpf_probe_read_kernel_str(
                scratch.text.as_mut_ptr().cast(),
                PATH_MAX as u32,
                path as *const _,
            )
        };
        scratch.head.exe_len = if length > 0 { length as u16 } else { 0 };
    });
}
