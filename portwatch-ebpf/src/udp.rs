//! udp sockets: binds (explicit and implicit), connects and their end.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use portwatch_common::{Kind, Socket, flag};

use crate::{
    bind::errno,
    call::{self, Call},
    connect,
    emit::{Details, elapsed, emit, now},
    maps::offset,
    memory::{Direct, Memory, Probe},
    owner::owner,
    socket::{
        AF_INET, AF_INET6, IPPROTO_UDP, Name, family, fill, forget_peer, is_raw, key, new, protocol,
    },
    sockets::{find, forget, remember},
    tcp::ESTABLISHED,
    twin::{Hook, twins},
};

/// This socket got its port.
#[inline(never)]
pub fn bound<M: Memory>(sk: usize) {
    if protocol::<M>(sk) == IPPROTO_UDP {
        report_bind(new::<M>(sk, owner()));
    }
}

/// This socket got its port from the connect that has just returned: at that time it had no addresses.
#[inline(never)]
pub fn bound_by_connect<M: Memory>(sk: usize) {
    let socket = new::<M>(sk, owner());
    report_bind(Socket {
        laddr: [0; 2],
        raddr: [0; 2],
        rport: 0,
        ..socket
    });
}

#[inline(always)]
pub fn report_bind(mut socket: Socket) {
    let ts = now();
    socket.since = ts;
    socket.flags = flag::BOUND;
    remember(socket.cookie, &socket);
    emit(Kind::Bind, ts, &socket, Details::default());
}

/// A connect of this socket to `name` returned `error`.
#[inline(never)]
pub fn connected<M: Memory>(sk: usize, name: Name, error: u16) {
    if protocol::<M>(sk) != IPPROTO_UDP {
        return;
    }
    if error != 0 {
        return connect::failed::<M>(sk, name, error);
    }
    let key = key::<M>(sk);
    let ts = now();
    let details = Details::default();
    match find(sk, key) {
        Some(socket) => {
            let socket = unsafe { &mut *socket };
            socket.owner = owner();
            fill::<M>(sk, socket);
            emit(Kind::Connect, ts, socket, details);
        }
        None => {
            // Bound before the probes were there.
            let mut socket = new::<M>(sk, owner());
            socket.flags = flag::BOUND;
            remember(key, &socket);
            emit(Kind::Connect, ts, &socket, details);
        }
    }
}

/// The end of a socket: reported when it was bound.
#[inline(always)]
pub fn released<M: Memory>(sk: usize) {
    let key = key::<M>(sk);
    if let Some(socket) = find(sk, key) {
        let socket = unsafe { &mut *socket };
        if socket.raddr != [0; 2] && !has_peer::<M>(sk) {
            dissolved::<M>(sk, socket);
        }
        close(socket);
        forget(sk, key);
    }
}

/// Whether it is connected: a connect that succeeds may also have dissolved the association.
#[inline(always)]
pub fn has_peer<M: Memory>(sk: usize) -> bool {
    unsafe { M::read::<u8>(sk, offset!(sk_state)) as i32 == ESTABLISHED }
}

/// It has no peer any more, and the local address of its bind; a port that bind did not ask for was given back.
#[inline(never)]
pub fn dissolved<M: Memory>(sk: usize, socket: &mut Socket) {
    let port = socket.lport;
    fill::<M>(sk, socket);
    // IPv6 sockets keep it.
    forget_peer(socket);
    if socket.lport == 0 {
        socket.lport = port;
        socket.flags &= !flag::BOUND;
    }
}

#[inline(always)]
pub fn close(socket: &Socket) {
    let ts = now();
    let details = Details {
        cause: portwatch_common::Cause::Local as u8,
        elapsed: elapsed(ts, socket.since),
        ..Details::default()
    };
    emit(Kind::Close, ts, socket, details);
}

/// A v6 socket connects to a v4-mapped address through the v4 function: the outer one counts.
#[inline(always)]
fn function_returned<M: Memory>(sk: usize, name: usize, function: u16, ret: i32) {
    if family::<M>(sk) == function && !is_raw::<M>(sk) {
        connected::<M>(sk, Name::Kernel(name), errno(ret));
    }
}

twins! {
    #[fexit(function = "udp_lib_get_port")]
    exit_udp_lib_get_port, exit_udp_lib_get_port_twin |ctx: FExitContext| Hook::UdpPort, ctx.arg(0), 0 => {
        if ctx.arg::<i32>(3) == 0 {
            bound::<Direct>(ctx.arg(0));
        }
    }
}

twins! {
    #[fexit(function = "__ip4_datagram_connect")]
    exit_ip4_datagram_connect, exit_ip4_datagram_connect_twin |ctx: FExitContext| Hook::UdpConnect4, ctx.arg(0), 0 => function_returned::<Direct>(ctx.arg(0), ctx.arg(1), AF_INET, ctx.arg(3))
}

twins! {
    #[fexit(function = "__ip6_datagram_connect")]
    exit_ip6_datagram_connect, exit_ip6_datagram_connect_twin |ctx: FExitContext| Hook::UdpConnect6, ctx.arg(0), 0 => function_returned::<Direct>(ctx.arg(0), ctx.arg(1), AF_INET6, ctx.arg(3))
}

twins! {
    #[fentry(function = "udp_destroy_sock")]
    entry_udp_destroy_sock, entry_udp_destroy_sock_twin |ctx: FEntryContext| Hook::UdpDestroy4, ctx.arg(0), 0 => released::<Direct>(ctx.arg(0))
}

twins! {
    #[fentry(function = "udpv6_destroy_sock")]
    entry_udpv6_destroy_sock, entry_udpv6_destroy_sock_twin |ctx: FEntryContext| Hook::UdpDestroy6, ctx.arg(0), 0 => released::<Direct>(ctx.arg(0))
}

#[kprobe]
pub fn kprobe_udp_lib_get_port(ctx: ProbeContext) -> u32 {
    call::enter(Call::UdpPort, ctx.arg(0), None)
}

#[kretprobe]
pub fn kretprobe_udp_lib_get_port(ctx: RetProbeContext) -> u32 {
    if let Some([sk, _]) = call::leave(Call::UdpPort)
        && ctx.ret::<i32>() == 0
    {
        bound::<Probe>(sk);
    }
    0
}

#[kprobe]
pub fn kprobe_ip4_datagram_connect(ctx: ProbeContext) -> u32 {
    call::enter(Call::UdpConnect4, ctx.arg(0), ctx.arg(1))
}

#[kretprobe]
pub fn kretprobe_ip4_datagram_connect(ctx: RetProbeContext) -> u32 {
    if let Some([sk, name]) = call::leave(Call::UdpConnect4) {
        function_returned::<Probe>(sk, name, AF_INET, ctx.ret());
    }
    0
}

#[kprobe]
pub fn kprobe_ip6_datagram_connect(ctx: ProbeContext) -> u32 {
    call::enter(Call::UdpConnect6, ctx.arg(0), ctx.arg(1))
}

#[kretprobe]
pub fn kretprobe_ip6_datagram_connect(ctx: RetProbeContext) -> u32 {
    if let Some([sk, name]) = call::leave(Call::UdpConnect6) {
        function_returned::<Probe>(sk, name, AF_INET6, ctx.ret());
    }
    0
}

#[kprobe]
pub fn kprobe_udp_destroy_sock(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        released::<Probe>(sk);
    }
    0
}
