//! listen(2), reported when it returns: only then is it certain whose the port is.

use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use portwatch_common::{Kind, Socket, flag};

use crate::{
    bind::errno,
    call::{self, Call},
    emit::{Details, emit, now},
    maps::offset,
    memory::{Direct, Memory, Probe},
    mptcp::{first_subflow, is_subflow},
    owner::owner,
    socket::{
        IPPROTO_MPTCP, IPPROTO_TCP, IPPROTO_UDP, fill, forget_peer, is_transport, key, new,
        protocol, sk_of,
    },
    sockets::find,
    twin::{Hook, twins},
};

/// A listen on this socket with this backlog returned `error`.
#[inline(never)]
pub fn returned<M: Memory>(sk: usize, backlog: u32, error: u16) {
    if !is_transport::<M>(sk) {
        return;
    }
    let protocol = protocol::<M>(sk);
    match protocol {
        IPPROTO_TCP if is_subflow::<M>(sk) => return,
        IPPROTO_TCP | IPPROTO_MPTCP | IPPROTO_UDP => {}
        _ => return,
    }
    let key = key::<M>(sk);
    let ts = now();
    let details = Details {
        error,
        ..Details::default()
    };
    if error != 0 {
        if let Some(socket) = find(sk, key) {
            unsafe { (*socket).flags &= !flag::LISTENING };
        }
        let mut socket = new::<M>(sk, owner());
        socket.backlog = backlog;
        forget_peer(&mut socket);
        return emit(Kind::Listen, ts, &socket, details);
    }
    let Some(socket) = find(sk, key) else { return };
    let socket = unsafe { &mut *socket };
    socket.backlog = match first_subflow(sk, protocol) {
        0 => unsafe { M::read(sk, offset!(sk_max_ack_backlog)) },
        first => unsafe { Probe::read(first, offset!(sk_max_ack_backlog)) },
    };
    if socket.flags & flag::LISTENING != 0 {
        socket.flags = socket.flags & flag::BOUND | flag::LIVE | flag::LISTENER;
        socket.since = socket.started;
        // An unbound socket got its port from listen; one whose attempt to connect failed has no peer.
        fill::<M>(sk, socket);
        forget_peer(socket);
    } else if socket.flags & flag::LISTENER != 0 {
        // It listens already, from now on with this backlog. Whoever says so, it stays whose it is.
        let told = Socket {
            owner: owner(),
            ..*socket
        };
        return emit(Kind::Listen, ts, &told, details);
    } else {
        return;
    }
    emit(Kind::Listen, ts, socket, details);
}

twins! {
    #[fexit(function = "inet_listen")]
    exit_inet_listen, exit_inet_listen_twin |ctx: FExitContext| Hook::Listen, ctx.arg(0), 0 => returned::<Direct>(sk_of::<Direct>(ctx.arg(0)), ctx.arg(1), errno(ctx.arg(2)))
}

twins! {
    #[fexit(function = "mptcp_listen")]
    exit_mptcp_listen, exit_mptcp_listen_twin |ctx: FExitContext| Hook::MptcpListen, ctx.arg(0), 0 => returned::<Direct>(sk_of::<Direct>(ctx.arg(0)), ctx.arg(1), errno(ctx.arg(2)))
}

// That of sockets which cannot, as those of udp.
twins! {
    #[fexit(function = "sock_no_listen")]
    exit_no_listen, exit_no_listen_twin |ctx: FExitContext| Hook::NoListen, ctx.arg(0), 0 => returned::<Direct>(sk_of::<Direct>(ctx.arg(0)), ctx.arg(1), errno(ctx.arg(2)))
}

#[kprobe]
pub fn kprobe_inet_listen(ctx: ProbeContext) -> u32 {
    call::enter(Call::Listen, ctx.arg(0), ctx.arg(1))
}

#[kretprobe]
pub fn kretprobe_inet_listen(ctx: RetProbeContext) -> u32 {
    if let Some([socket, backlog]) = call::leave(Call::Listen) {
        returned::<Probe>(sk_of::<Probe>(socket), backlog as u32, errno(ctx.ret()));
    }
    0
}

/// Apart from inet_listen, which it calls on kernels before 6.6.
#[kprobe]
pub fn kprobe_mptcp_listen(ctx: ProbeContext) -> u32 {
    call::enter(Call::MptcpListen, ctx.arg(0), ctx.arg(1))
}

#[kretprobe]
pub fn kretprobe_mptcp_listen(ctx: RetProbeContext) -> u32 {
    if let Some([socket, backlog]) = call::leave(Call::MptcpListen) {
        returned::<Probe>(sk_of::<Probe>(socket), backlog as u32, errno(ctx.ret()));
    }
    0
}
