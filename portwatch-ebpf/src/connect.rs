//! connect(2) as it returns: attempts that fail at once, which never reach SYN-SENT or leave it
//! within the call. All other outcomes come with the state change.

use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use portwatch_common::{Kind, Socket, flag};

use crate::{
    bind::errno,
    call::{self, Call},
    emit::{Details, elapsed, emit, now},
    memory::{Direct, Memory, Probe},
    mptcp::{is_subflow, subflow_failed},
    owner::owner,
    socket::{
        AF_INET, AF_INET6, IPPROTO_MPTCP, IPPROTO_TCP, Name, family, forget_peer, is_stream, key,
        new, protocol, read_name,
    },
    sockets::find,
    twin::{Hook, twins},
};

const EINTR: u16 = 4;
const EISCONN: u16 = 106;
const ECONNABORTED: u16 = 103;
pub const ECONNRESET: u16 = 104;
pub const ETIMEDOUT: u16 = 110;
pub const ECONNREFUSED: u16 = 111;
const EALREADY: u16 = 114;
pub const EINPROGRESS: u16 = 115;
pub const ECANCELED: u16 = 125;
/// `ERESTARTSYS` and its like: the call goes on later.
const ERESTART: core::ops::RangeInclusive<u16> = 512..=516;

/// Reports the outcome of a failed attempt and keeps the socket, which may be bound or try again.
#[inline(always)]
pub fn outcome(socket: &mut Socket, ts: u64, error: u16) {
    socket.flags = socket.flags & flag::BOUND | flag::OUTCOME_REPORTED;
    socket.outcome = error;
    let elapsed = elapsed(ts, socket.started);
    emit(
        Kind::Connect,
        ts,
        socket,
        Details {
            error,
            elapsed,
            ..Details::default()
        },
    );
}

/// A connect of this stream socket to `name` returned `error`.
#[inline(never)]
pub fn returned<M: Memory>(sk: usize, name: Name, error: u16) {
    if matches!(error, 0 | EINTR | EISCONN | EALREADY | EINPROGRESS) || ERESTART.contains(&error) {
        return;
    }
    let protocol = protocol::<M>(sk);
    if !is_stream(protocol) {
        return;
    }
    if protocol == IPPROTO_TCP && is_subflow::<M>(sk) {
        return subflow_failed::<M>(sk, error, Some(name));
    }
    let key = key::<M>(sk);
    if let Some(socket) = find(sk, key) {
        let socket = unsafe { &mut *socket };
        if socket.flags & flag::FAILED_IN_CALL != 0 {
            if socket.rport == 0 {
                // Of MPTCP, before anything was sent.
                read_name(name, socket.family, &mut socket.raddr, &mut socket.rport);
                socket.started = 0;
            }
            return outcome(socket, now(), error);
        }
        if socket.flags & flag::OUTCOME_REPORTED != 0
            && (socket.outcome == error || error == ECONNABORTED)
        {
            // The call brings home what was reported when it happened.
            socket.flags &= !flag::OUTCOME_REPORTED;
            return;
        }
        if socket.flags & flag::CONNECTING != 0 {
            return;
        }
    }
    // These come after a SYN, so it was reported when it happened. The socket is forgotten (one of
    // MPTCP that failed is closed twice), or another one that got the same descriptor meanwhile.
    // Others' programs may refuse an attempt of tcp (ECONNREFUSED) before there is a SYN.
    if matches!(error, ECONNABORTED | ECONNRESET | ETIMEDOUT)
        || protocol == IPPROTO_MPTCP && error == ECONNREFUSED
    {
        return;
    }
    failed::<M>(sk, name, error);
}

/// Reports a connect that came to nothing within the call.
#[inline(always)]
pub fn failed<M: Memory>(sk: usize, name: Name, error: u16) {
    let mut socket = new::<M>(sk, owner());
    // Without a peer when the call named none that can be read.
    if !read_name(name, socket.family, &mut socket.raddr, &mut socket.rport) {
        forget_peer(&mut socket);
    }
    emit(
        Kind::Connect,
        now(),
        &socket,
        Details {
            error,
            ..Details::default()
        },
    );
}

/// A v6 socket connects to a v4-mapped address through the v4 function: the outer one counts.
#[inline(always)]
fn function_returned<M: Memory>(sk: usize, name: usize, function: u16, ret: i32) {
    if ret < 0 && family::<M>(sk) == function {
        returned::<M>(sk, Name::Kernel(name), errno(ret));
    }
}

twins! {
    #[fexit(function = "tcp_v4_connect")]
    exit_tcp_v4_connect, exit_tcp_v4_connect_twin |ctx: FExitContext| Hook::Connect4, ctx.arg(0), 0 => function_returned::<Direct>(ctx.arg(0), ctx.arg(1), AF_INET, ctx.arg(3))
}

twins! {
    #[fexit(function = "tcp_v6_connect")]
    exit_tcp_v6_connect, exit_tcp_v6_connect_twin |ctx: FExitContext| Hook::Connect6, ctx.arg(0), 0 => function_returned::<Direct>(ctx.arg(0), ctx.arg(1), AF_INET6, ctx.arg(3))
}

#[kprobe]
pub fn kprobe_tcp_v4_connect(ctx: ProbeContext) -> u32 {
    call::enter(Call::Connect4, ctx.arg(0), ctx.arg(1))
}

#[kretprobe]
pub fn kretprobe_tcp_v4_connect(ctx: RetProbeContext) -> u32 {
    if let Some([sk, name]) = call::leave(Call::Connect4) {
        function_returned::<Probe>(sk, name, AF_INET, ctx.ret());
    }
    0
}

#[kprobe]
pub fn kprobe_tcp_v6_connect(ctx: ProbeContext) -> u32 {
    call::enter(Call::Connect6, ctx.arg(0), ctx.arg(1))
}

#[kretprobe]
pub fn kretprobe_tcp_v6_connect(ctx: RetProbeContext) -> u32 {
    if let Some([sk, name]) = call::leave(Call::Connect6) {
        function_returned::<Probe>(sk, name, AF_INET6, ctx.ret());
    }
    0
}
