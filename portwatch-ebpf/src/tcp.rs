//! State changes, resets and the end of tcp sockets. These often run in the peer's process or in
//! a softirq, so the current task counts only where a process acts: at SYN-SENT and LISTEN.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use portwatch_common::{Cause, Kind, Socket, flag, handover};

use crate::{
    accept,
    body::{INET_SOCK_SET_STATE, TCP_DESTROY_SOCK, TCP_SEND_RESET, run},
    emit::{Details, elapsed, emit, now},
    maps::{config, constant, offset},
    memory::{Direct, Memory},
    owner::owner,
    socket::{
        IPPROTO_MPTCP, IPPROTO_TCP, fill, identify, is_subflow, key, new, protocol, tcp_sock,
    },
    sockets::{find, forget, remember},
    twin::{Hook, twins},
};

const ESTABLISHED: i32 = 1;
pub const SYN_SENT: i32 = 2;
pub const SYN_RECV: i32 = 3;
const FIN_WAIT2: i32 = 5;
pub const CLOSE: i32 = 7;
const LAST_ACK: i32 = 9;
pub const LISTEN: i32 = 10;
const CLOSING: i32 = 11;

const EPIPE: u16 = 32;
const ECONNRESET: u16 = 104;
const ETIMEDOUT: u16 = 110;
const ECONNREFUSED: u16 = 111;
const EINPROGRESS: u16 = 115;
const ECANCELED: u16 = 125;

/// `SHUTDOWN_MASK`: set by close, before it changes the state.
const SHUTDOWN_BOTH: u8 = 3;
/// An attempt is announced as slow when its SYN is sent again and it is about this old.
const SLOW_NS: u64 = 900_000_000;

/// The old and the new state in one number.
#[inline(always)]
pub fn change(ctx: &BtfTracePointContext) -> u32 {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    (old as u32) << 8 | new as u32
}

/// Whether something is to be done about a change of state.
#[inline(always)]
pub fn matters(ctx: &BtfTracePointContext) -> bool {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    matches!(new, ESTABLISHED | CLOSE) || old == CLOSE && matches!(new, SYN_SENT | LISTEN)
}

/// A socket changes its state.
#[inline(always)]
pub fn changed(ctx: &BtfTracePointContext) {
    let (old, new_state): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let sk: usize = ctx.arg(0);
    match (old, new_state) {
        (SYN_SENT | SYN_RECV | LISTEN, ESTABLISHED) if reported(sk) => established(sk, old),
        (CLOSE, SYN_SENT) if reported(sk) => connecting(sk),
        (CLOSE, LISTEN) if reported(sk) => listening(sk),
        // Only MPTCP sockets that never got further pass here; tcp ones have tcp_destroy_sock.
        (CLOSE, CLOSE) if protocol::<Direct>(sk) == IPPROTO_MPTCP => unused(sk),
        (CLOSE, _) => {}
        (_, CLOSE) if reported(sk) => closed(sk, old),
        _ => {}
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

/// tcp sockets but not the subflows of MPTCP sockets, and those sockets themselves.
#[inline(always)]
fn reported(sk: usize) -> bool {
    match protocol::<Direct>(sk) {
        IPPROTO_TCP => !is_subflow::<Direct>(sk),
        IPPROTO_MPTCP => true,
        _ => false,
    }
}

/// Apart, for the sake of the stack: a program and what it calls have 512 bytes.
#[inline(never)]
fn unused(sk: usize) {
    released(sk);
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
        Some(socket) => {
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
        None => new::<Direct>(sk, Default::default()),
    };
    socket.since = ts;
    if old == SYN_SENT {
        // Its attempt began before the probes were there: nobody knows whose it is.
        socket.flags = flag::LIVE;
        emit(Kind::Connect, ts, &socket, Details::default());
    } else {
        socket.flags = flag::PASSIVE;
    }
    remember(key, &socket);
}

/// Success is told by the return of the call: the port may still turn out to be taken.
#[inline(never)]
fn listening(sk: usize) {
    let key = key::<Direct>(sk);
    let started = now();
    let owner = owner();
    match find(sk, key) {
        Some(socket) => {
            let socket = unsafe { &mut *socket };
            socket.owner = owner;
            socket.started = started;
            socket.flags |= flag::LISTENING;
        }
        None => {
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

#[inline(never)]
fn closed(sk: usize, old: i32) {
    let (key, cookie) = identify::<Direct>(sk);
    let ts = now();
    let error: i32 = unsafe { Direct::read(sk, offset!(sk_err)) };
    let error = error as u16;
    let mut unknown;
    let socket = match (find(sk, key).map(|socket| unsafe { &mut *socket }), old) {
        (Some(early), _) if early.flags & flag::EARLY != 0 => {
            accept::tell_early(early, cookie);
            early.flags = flag::LIVE;
            early
        }
        (Some(socket), _) => socket,
        (None, SYN_RECV) => return,
        // The others were opened before the probes were there.
        (None, _) => {
            unknown = new::<Direct>(sk, Default::default());
            unknown.flags = match old {
                SYN_SENT => flag::CONNECTING,
                LISTEN => flag::LIVE | flag::LISTENER,
                _ => flag::LIVE,
            };
            &mut unknown
        }
    };
    if socket.flags & flag::CONNECTING != 0 {
        fill::<Direct>(sk, socket);
        let shutdown: u8 = unsafe { Direct::read(sk, offset!(sk_shutdown)) };
        if error == 0 && shutdown & SHUTDOWN_BOTH != SHUTDOWN_BOTH {
            socket.flags |= flag::FAILED_IN_CALL;
        } else {
            outcome(socket, ts, if error == 0 { ECANCELED } else { error });
        }
        return;
    }
    let end = End {
        ts,
        cause: cause(old, error),
        reset: matches!(error, ECONNRESET | EPIPE),
    };
    if socket.flags & (flag::PASSIVE | flag::CLOSED) == flag::PASSIVE {
        // What the accepting side needs to report it, should it come later.
        socket.started = ts;
        socket.outcome = error;
        if accept::ended_first(socket) {
            ended::<Direct>(sk, key, socket, ts, end);
        }
    } else if socket.flags & flag::LIVE != 0 {
        ended::<Direct>(sk, key, socket, ts, end);
    }
}

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

#[inline(always)]
fn cause(old: i32, error: u16) -> Cause {
    match (error, old) {
        (0, LISTEN | FIN_WAIT2 | CLOSING) => Cause::Local,
        (0, LAST_ACK) => Cause::Remote,
        // Left without the handshake of FINs: by abort, or by close with data unread.
        (0, _) => Cause::Reset,
        (ECONNRESET | EPIPE | ECONNREFUSED, _) => Cause::Reset,
        (ETIMEDOUT, _) => Cause::Timeout,
        _ => Cause::Error,
    }
}

/// How and when a connection ended.
pub struct End {
    ts: u64,
    cause: Cause,
    /// By a reset from the other side.
    reset: bool,
}

impl End {
    /// From what [`closed`] left behind for a connection that was still in the accept queue.
    #[inline(always)]
    pub fn in_queue(socket: &Socket) -> Self {
        let error = socket.outcome;
        let reset = matches!(error, ECONNRESET | EPIPE);
        End {
            ts: socket.started,
            cause: cause(ESTABLISHED, error),
            reset,
        }
    }
}

/// Reports the end of a connection or listener.
#[inline(always)]
pub fn ended<M: Memory>(sk: usize, key: u64, socket: &mut Socket, ts: u64, end: End) {
    if end.reset {
        let cause = Cause::Received as u8;
        emit(
            Kind::Reset,
            ts,
            socket,
            Details {
                cause,
                ..Details::default()
            },
        );
    }
    // Kept for a reset that it sends with its end, or for the side that accepts it just now.
    let sends_reset = !end.reset && matches!(end.cause, Cause::Reset);
    let settled = socket.flags & flag::PASSIVE == 0 || socket.handover & handover::SETTLED != 0;
    report_close::<M>(sk, socket, ts, end);
    // An MPTCP socket has no tcp_destroy_sock to be forgotten in.
    if socket.protocol == IPPROTO_MPTCP || settled && !sends_reset {
        forget(sk, key);
    }
}

#[inline(always)]
fn report_close<M: Memory>(sk: usize, socket: &mut Socket, ts: u64, end: End) {
    let mut details = Details {
        cause: end.cause as u8,
        elapsed: elapsed(end.ts, socket.since),
        ..Details::default()
    };
    let tcp = if socket.protocol == IPPROTO_TCP {
        tcp_sock::<M>(sk)
    } else {
        0
    };
    if tcp != 0 {
        unsafe {
            let received: u64 = M::read(tcp, offset!(tcp_bytes_received));
            // The peer's FIN counts as one byte.
            let done = M::read::<u32>(sk, offset!(sk_flags)) >> 1 & 1;
            details.rx_bytes = received.saturating_sub(done as u64);
            let sent: u64 = M::read(tcp, offset!(tcp_bytes_sent));
            let again: u64 = M::read(tcp, offset!(tcp_bytes_retrans));
            details.tx_bytes = sent.saturating_sub(again);
            details.rtt = M::read::<u32>(tcp, offset!(tcp_srtt_us)) >> 3;
            details.retrans = M::read(tcp, offset!(tcp_total_retrans));
        }
    }
    socket.flags = flag::CLOSED | socket.flags & (flag::LISTENER | flag::PASSIVE);
    emit(Kind::Close, ts, socket, details);
}

// The end of every tcp socket, also of those that were only bound.
twins! {
    #[btf_tracepoint(function = "tcp_destroy_sock")]
    tcp_destroy_sock, tcp_destroy_sock_twin |ctx: BtfTracePointContext| Hook::Destroy, ctx.arg(0), 0 => run!(TCP_DESTROY_SOCK, &ctx)
}

/// Reports what is still owed for a socket, and forgets it.
#[inline(always)]
pub fn released(sk: usize) {
    let key = key::<Direct>(sk);
    let Some(socket) = find(sk, key) else { return };
    let socket = unsafe { &mut *socket };
    if socket.flags & (flag::CONNECTING | flag::FAILED_IN_CALL) != 0 {
        outcome(socket, now(), ECANCELED);
    }
    // Accepted, and its end was not seen: told now rather than never.
    let accepted = socket.flags & (flag::PASSIVE | flag::CLOSED) == flag::PASSIVE
        && constant(&socket.handover) & (handover::TOLD | handover::ENDED) == handover::TOLD;
    if accepted || socket.flags & (flag::LIVE | flag::BOUND) != 0 {
        let ts = now();
        if !accepted && socket.flags & flag::LIVE == 0 {
            // Of an attempt that failed.
            socket.raddr = [0; 2];
            socket.rport = 0;
        }
        let error: i32 = unsafe { Direct::read(sk, offset!(sk_err)) };
        let end = End {
            ts,
            cause: cause(FIN_WAIT2, error as u16),
            reset: false,
        };
        report_close::<Direct>(sk, socket, ts, end);
    }
    forget(sk, key);
}

/// Resets sent. Those received come with the end of the connection; refused attempts have an
/// outcome instead, and a reset sent for no socket has no owner.
#[inline(always)]
pub fn reset_sent(ctx: &BtfTracePointContext) {
    let sk: usize = ctx.arg(0);
    if sk == 0 {
        return;
    }
    let key = key::<Direct>(sk);
    let Some(socket) = find(sk, key) else {
        return;
    };
    let socket = unsafe { &mut *socket };
    let closed = socket.flags & flag::CLOSED != 0;
    if (closed || socket.flags & flag::LIVE != 0) && socket.rport != 0 {
        let cause = Cause::Sent as u8;
        let reason: u32 = if config!(reset_reason) == 1 {
            ctx.arg(2)
        } else {
            0
        };
        emit(
            Kind::Reset,
            now(),
            socket,
            Details {
                cause,
                reason,
                ..Details::default()
            },
        );
        if closed && socket.flags & flag::PASSIVE == 0 {
            forget(sk, key);
        }
    }
}

twins! {
    #[btf_tracepoint(function = "tcp_send_reset")]
    tcp_send_reset, tcp_send_reset_twin |ctx: BtfTracePointContext| Hook::SendReset, ctx.arg(0), 0 => run!(TCP_SEND_RESET, &ctx)
}

// The first of the two that the kernel has announces attempts that take long: both run when a
// SYN is sent again, a second after the first.
twins! {
    #[btf_tracepoint(function = "tcp_cong_state_set")]
    tcp_cong_state_set, tcp_cong_state_set_twin |ctx: BtfTracePointContext| Hook::CongState, ctx.arg(0), 0 => slow_connect(ctx.arg(0))
}

twins! {
    #[btf_tracepoint(function = "tcp_retransmit_skb")]
    tcp_retransmit_skb, tcp_retransmit_skb_twin |ctx: BtfTracePointContext| Hook::Retransmit, ctx.arg(0), 0 => slow_connect(ctx.arg(0))
}

#[inline(always)]
fn slow_connect(sk: usize) {
    let state: u8 = unsafe { Direct::read(sk, offset!(sk_state)) };
    if state as i32 != SYN_SENT {
        return;
    }
    let Some(socket) = find(sk, key::<Direct>(sk)) else {
        return;
    };
    let socket = unsafe { &mut *socket };
    let ts = now();
    let age = ts.saturating_sub(socket.started);
    if socket.flags & (flag::CONNECTING | flag::ANNOUNCED) == flag::CONNECTING
        && socket.started != 0
        && age >= SLOW_NS
    {
        socket.flags |= flag::ANNOUNCED;
        fill::<Direct>(sk, socket);
        emit(
            Kind::Connect,
            ts,
            socket,
            Details {
                error: EINPROGRESS,
                elapsed: age,
                ..Details::default()
            },
        );
    }
}
