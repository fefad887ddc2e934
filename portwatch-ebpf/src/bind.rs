//! bind(2) of tcp and udp sockets, as it returns. Successful ones of udp are reported in udp.rs,
//! where implicit binds are seen too.

use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use portwatch_common::{Kind, flag};

use crate::{
    call::{self, Call},
    emit::{Details, emit, now},
    maps::offset,
    memory::{Direct, Memory, Probe},
    mptcp::is_subflow,
    owner::owner,
    socket::{IPPROTO_TCP, IPPROTO_UDP, Name, key, new, protocol, read_name},
    sockets::{find, remember},
    twin::{Hook, twins},
};

/// A bind of this socket returned `error`. `name` is the address asked for.
#[inline(always)]
pub fn bound<M: Memory>(sk: usize, name: Name, error: u16) {
    match protocol::<M>(sk) {
        // The MPTCP socket it belongs to is bound by mptcp_bind.
        IPPROTO_TCP if is_subflow::<M>(sk) => {}
        IPPROTO_UDP if error == 0 => {}
        IPPROTO_TCP | IPPROTO_UDP => report::<M>(sk, name, error),
        _ => {}
    }
}

/// Reports a bind, and remembers the socket when it succeeded.
#[inline(never)]
pub fn report<M: Memory>(sk: usize, name: Name, error: u16) {
    let key = key::<M>(sk);
    let ts = now();
    let mut socket = new::<M>(sk, owner());
    if error != 0 {
        if !read_name(name, socket.family, &mut socket.laddr, &mut socket.lport) {
            socket.lport = 0;
            socket.flags = flag::NAMELESS;
        }
    } else {
        socket.since = ts;
        socket.flags = flag::BOUND;
        remember(key, &socket);
    }
    emit(
        Kind::Bind,
        ts,
        &socket,
        Details {
            error,
            ..Details::default()
        },
    );
}

/// Whether this socket's bind is on record already.
#[inline(always)]
pub fn known(sk: usize, key: u64) -> bool {
    find(sk, key).is_some_and(|socket| unsafe { (*socket).flags } & flag::BOUND != 0)
}

twins! {
    #[fexit(function = "__inet_bind")]
    exit_inet_bind, exit_inet_bind_twin |ctx: FExitContext| Hook::Bind4, ctx.arg(0), 0 => bound::<Direct>(ctx.arg(0), Name::Kernel(ctx.arg(1)), errno(ctx.arg(4)))
}

twins! {
    #[fexit(function = "__inet6_bind")]
    exit_inet6_bind, exit_inet6_bind_twin |ctx: FExitContext| Hook::Bind6, ctx.arg(0), 0 => bound::<Direct>(ctx.arg(0), Name::Kernel(ctx.arg(1)), errno(ctx.arg(4)))
}

#[inline(always)]
fn mptcp_bound(ctx: &FExitContext) {
    let sk: usize = unsafe { Direct::read(ctx.arg(0), offset!(socket_sk)) };
    report::<Direct>(sk, Name::Kernel(ctx.arg(1)), errno(ctx.arg(3)));
}

twins! {
    #[fexit(function = "mptcp_bind")]
    exit_mptcp_bind, exit_mptcp_bind_twin |ctx: FExitContext| Hook::MptcpBind, ctx.arg(0), 0 => mptcp_bound(&ctx)
}

#[kprobe]
pub fn kprobe_inet_bind(ctx: ProbeContext) -> u32 {
    call::enter(Call::Bind, ctx.arg(0), ctx.arg(1))
}

#[kretprobe]
pub fn kretprobe_inet_bind(ctx: RetProbeContext) -> u32 {
    if let Some([sk, name]) = call::leave(Call::Bind) {
        bound::<Probe>(sk, Name::Kernel(name), errno(ctx.ret()));
    }
    0
}

#[kprobe]
pub fn kprobe_mptcp_bind(ctx: ProbeContext) -> u32 {
    call::enter(Call::MptcpBind, ctx.arg(0), ctx.arg(1))
}

#[kretprobe]
pub fn kretprobe_mptcp_bind(ctx: RetProbeContext) -> u32 {
    if let Some([socket, name]) = call::leave(Call::MptcpBind) {
        let sk: usize = unsafe { Probe::read(socket, offset!(socket_sk)) };
        report::<Probe>(sk, Name::Kernel(name), errno(ctx.ret()));
    }
    0
}

/// The errno in a function's return value; 0 for success.
#[inline(always)]
pub fn errno(ret: i32) -> u16 {
    if ret < 0 { -ret as u16 } else { 0 }
}
