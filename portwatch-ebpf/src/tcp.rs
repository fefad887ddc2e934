//! State changes of tcp sockets. These often run in the peer's process or in a softirq, so the
//! current task counts only where a process acts: at SYN-SENT and LISTEN.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use portwatch_common::{Kind, Socket, flag, handover};

use crate::{
    accept,
    body::{INET_SOCK_SET_STATE, run},
    connect::{ECANCELED, outcome},
    emit::{Details, elapsed, emit, now},
    end::{End, ended, released},
    maps::{constant, offset},
    memory::{Direct, Memory, Probe},
    mptcp::{is_subflow, subflow_failed},
    owner::owner,
    socket::{IPPROTO_MPTCP, IPPROTO_TCP, fill, identify, is_stream, key, new, protocol},
    sockets::{find, remember, remember_first, take_out},
    twin::{Hook, twins},
};

pub const ESTABLISHED: i32 = 1;
pub const SYN_SENT: i32 = 2;
pub const SYN_RECV: i32 = 3;
pub const FIN_WAIT2: i32 = 5;
pub const CLOSE: i32 = 7;
pub const LAST_ACK: i32 = 9;
pub const LISTEN: i32 = 10;
pub const CLOSING: i32 = 11;

/// A bit of `sk_flags`.
const SOCK_DEAD: u64 = 1;
/// `SHUTDOWN_MASK`.
const SHUTDOWN_BOTH: u8 = 3;

/// The old and the new state in one number.
#[inline(always)]
pub fn change(ctx: &BtfTracePointContext) -> u32 {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    (old as u32) << 8 | new as u32
}

/// Whether something is to be done about a change of state.
#[inline(always)]
pub fn matters(ctx: &BtfTracePointContext) -> bool {
    match (ctx.arg::<i32>(1), ctx.arg::<i32>(2)) {
        // Only MPTCP sockets that never got further pass here; tcp ones have tcp_destroy_sock.
        (CLOSE, CLOSE) => protocol::<Direct>(ctx.arg(0)) == IPPROTO_MPTCP,
        (_, ESTABLISHED | CLOSE) | (CLOSE, SYN_SENT | LISTEN) => true,
        _ => false,
    }
}

/// A socket changes its state. tcp and MPTCP sockets are told, but not the subflows of the latter. Each
/// step is called in one place: the verifier walks through it anew for every call.
#[inline(always)]
pub fn changed(ctx: &BtfTracePointContext) {
    let (old, new_state): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let sk: usize = ctx.arg(0);
    let protocol = protocol::<Direct>(sk);
    if !is_stream(protocol) {
        return;
    }
    let subflow = protocol == IPPROTO_TCP && is_subflow::<Direct>(sk);
    let mut over = false;
    match (old, new_state) {
        (SYN_RECV, ESTABLISHED) if subflow => subflow_came(sk),
        (SYN_SENT, CLOSE) if subflow => subflow_failed::<Direct>(sk, error(sk), None),
        _ if subflow => {}
        (SYN_SENT | SYN_RECV | LISTEN, ESTABLISHED) => established(sk, old),
        (CLOSE, SYN_SENT) => connecting(sk),
        (CLOSE, LISTEN) => listening(sk),
        (CLOSE, CLOSE) => over = true,
        (CLOSE, _) => {}
        (_, CLOSE) => {
            closed(ctx);
            over = is_given_up(ctx);
        }
        _ => {}
    }
    if over {
        unused(sk);
    }
}

twins! {
    #[btf_tracepoint(function = "inet_sock_set_state")]
    inet_sock_set_state, inet_sock_set_state_twin |ctx: BtfTracePointContext| Hook::State, ctx.arg(0), change(&ctx) => {
        if matters(&ctx) {
            run!(INET_SOCK_SET_STATE, &ctx);
        }
    }
}

/// Whether this connection waits for somebody to accept it: it has no file yet, and none has left it.
#[inline(always)]
fn is_queued(sk: usize) -> bool {
    let file: usize = unsafe { Probe::read(sk, offset!(sk_socket)) };
    file == 0 && !is_dead(sk)
}

/// Whether nobody has it or will have it.
#[inline(always)]
fn is_dead(sk: usize) -> bool {
    unsafe { Direct::read::<u64>(sk, offset!(sk_flags)) & SOCK_DEAD != 0 }
}

/// Whether this is an MPTCP socket whose attempt to connect ended with its close: nothing else tells its end.
#[inline(always)]
fn is_given_up(ctx: &BtfTracePointContext) -> bool {
    let sk: usize = ctx.arg(0);
    ctx.arg::<i32>(1) == SYN_SENT
        && protocol::<Direct>(sk) == IPPROTO_MPTCP
        && is_shut_down(sk)
        && error(sk) == 0
}

/// By shutdown in both directions, or by close, which does that before it changes the state.
#[inline(always)]
fn is_shut_down(sk: usize) -> bool {
    unsafe { Direct::read::<u8>(sk, offset!(sk_shutdown)) & SHUTDOWN_BOTH == SHUTDOWN_BOTH }
}

/// Apart, for the sake of the stack: a program and what it calls have 512 bytes.
#[inline(never)]
fn unused(sk: usize) {
    let in_queue = find(sk, key::<Direct>(sk)).is_some_and(|socket| unsafe {
        (*socket).flags & flag::PASSIVE != 0 && (*socket).handover & handover::TOLD == 0
    });
    // One that was reset passes here in accept, too, which has yet to tell.
    if !in_queue || is_dead(sk) {
        released(sk);
    }
}

/// The error of a socket: what ended it.
#[inline(always)]
pub fn error(sk: usize) -> u16 {
    let error: i32 = unsafe { Direct::read(sk, offset!(sk_err)) };
    error as u16
}

#[inline(never)]
fn connecting(sk: usize) {
    let (key, cookie) = identify::<Direct>(sk);
    let started = now();
    match find(sk, key) {
        Some(socket) => {
            let socket = unsafe { &mut *socket };
            if socket.flags & flag::FAILED_IN_CALL != 0 {
                outcome(socket, started, ECANCELED);
            }
            socket.cookie = cookie;
            socket.owner = owner();
            socket.started = started;
            socket.outcome = 0;
            socket.flags = socket.flags & flag::BOUND | flag::CONNECTING;
        }
        None => {
            let socket = Socket {
                cookie,
                owner: owner(),
                started,
                flags: flag::CONNECTING,
                ..Socket::default()
            };
            remember(key, &socket);
        }
    }
}

#[inline(never)]
fn established(sk: usize, old: i32) {
    let (key, cookie) = identify::<Direct>(sk);
    let ts = now();
    let mut socket = match find(sk, key).map(|socket| unsafe { &mut *socket }) {
        Some(early) if early.flags & flag::EARLY != 0 => accept::promote(sk, cookie, early),
        Some(socket)
            if socket.flags & flag::CONNECTING != 0
                || constant(&socket.handover) & handover::ENDED == 0 =>
        {
            socket.since = ts;
            if socket.flags & flag::CONNECTING != 0 {
                fill::<Direct>(sk, socket);
                socket.flags = socket.flags & flag::BOUND | flag::LIVE;
                let elapsed = elapsed(ts, socket.started);
                emit(
                    Kind::Connect,
                    ts,
                    socket,
                    Details {
                        elapsed,
                        ..Details::default()
                    },
                );
            }
            return;
        }
        known => {
            if known.is_some() {
                // One that ended in a queue, at whose address there is another MPTCP socket now.
                take_out(key);
            }
            new::<Direct>(sk, Default::default())
        }
    };
    socket.since = ts;
    if old == SYN_SENT {
        // Its attempt began before the probes were there: nobody knows whose it is.
        socket.flags = flag::LIVE;
        emit(Kind::Connect, ts, &socket, Details::default());
        return remember(key, &socket);
    }
    socket.flags = flag::PASSIVE;
    if !remember_first(key, &socket)
        && let Some(accepted) = find(sk, key)
    {
        // By fast open, just now: nothing but this was unknown.
        unsafe { (*accepted).since = ts };
    }
}

/// One that ends in the queue of its listener is no connection of its own.
#[inline(never)]
fn subflow_came(sk: usize) {
    let socket = Socket {
        flags: flag::SUBFLOW,
        ..Socket::default()
    };
    remember(key::<Direct>(sk), &socket);
}

/// Success is told by the return of the call: the port may still turn out to be taken.
#[inline(never)]
fn listening(sk: usize) {
    let key = key::<Direct>(sk);
    let started = now();
    let owner = owner();
    match find(sk, key).map(|socket| unsafe { &mut *socket }) {
        Some(socket) if socket.flags & flag::PASSIVE == 0 => {
            socket.owner = owner;
            socket.started = started;
            socket.flags |= flag::LISTENING;
        }
        // What is left of a connection, maybe of another MPTCP socket at this address, is over.
        _ => {
            let socket = new::<Direct>(sk, owner);
            remember(
                key,
                &Socket {
                    started,
                    flags: flag::LISTENING,
                    ..socket
                },
            );
        }
    }
}

/// The states are read anew: what led here is nothing that the verifier has to keep apart.
#[inline(never)]
fn closed(ctx: &BtfTracePointContext) {
    let (sk, old): (usize, i32) = (ctx.arg(0), ctx.arg(1));
    let (key, cookie) = identify::<Direct>(sk);
    let ts = now();
    let error = error(sk);
    let mut unknown = Socket::default();
    let socket = match find(sk, key) {
        Some(socket) => unsafe { &mut *socket },
        None if old == SYN_RECV => return,
        // The others were opened before the probes were there.
        None => {
            unknown.cookie = cookie;
            fill::<Direct>(sk, &mut unknown);
            unknown.flags = match old {
                SYN_SENT => flag::CONNECTING,
                LISTEN => flag::LIVE | flag::LISTENER,
                _ if is_queued(sk) => {
                    // Whoever accepts it has to know. Where another CPU does so just now, its release tells its end.
                    unknown.flags = flag::PASSIVE;
                    unknown.handover = handover::ENDED | handover::LEFT;
                    unknown.started = ts;
                    unknown.outcome = error;
                    remember_first(key, &unknown);
                    return;
                }
                _ => flag::LIVE,
            };
            &mut unknown
        }
    };
    if socket.flags & flag::SUBFLOW != 0 {
        return;
    }
    if socket.flags & flag::EARLY != 0 {
        accept::tell_early(socket, cookie);
        socket.flags = flag::LIVE;
    }
    if socket.flags & flag::CONNECTING != 0 {
        return failed(sk, socket, ts, error);
    }
    let tell = if socket.flags & (flag::PASSIVE | flag::CLOSED) == flag::PASSIVE {
        // What the accepting side needs to report it, should it come later.
        socket.started = ts;
        socket.outcome = error;
        accept::ended_first(socket)
    } else {
        socket.flags & flag::LIVE != 0
    };
    if tell {
        ended::<Direct>(sk, key, socket, &End::new(ts, old, error));
    }
}

/// An attempt to connect is over.
#[inline(never)]
fn failed(sk: usize, socket: &mut Socket, ts: u64, error: u16) {
    let asked = (socket.raddr, socket.rport);
    fill::<Direct>(sk, socket);
    if asked.1 != 0 && socket.rport == 0 {
        (socket.raddr, socket.rport) = asked;
    }
    // Of MPTCP its subflow knows.
    let error = if error == 0 { socket.outcome } else { error };
    // Once its SYN was sent, only another call can end it without an error: shutdown, or
    // connect to AF_UNSPEC.
    let timer: u8 = unsafe { Probe::read(sk, offset!(icsk_pending)) };
    if error == 0 && !is_shut_down(sk) && timer == 0 {
        socket.flags |= flag::FAILED_IN_CALL;
    } else {
        outcome(socket, ts, if error == 0 { ECANCELED } else { error });
    }
}
