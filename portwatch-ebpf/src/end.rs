//! The end of connections, of listeners and of all other tcp sockets.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use portwatch_common::{Cause, Kind, Socket, flag, handover};

use crate::{
    body::{TCP_DESTROY_SOCK, run},
    connect::{ECANCELED, ECONNREFUSED, ECONNRESET, ETIMEDOUT, outcome},
    emit::{Details, elapsed, emit, now},
    maps::{constant, offset},
    memory::{Direct, Memory},
    socket::{IPPROTO_MPTCP, IPPROTO_TCP, fill, forget_peer, key, tcp_sock},
    sockets::{find, forget},
    tcp::{CLOSING, ESTABLISHED, FIN_WAIT2, LAST_ACK, LISTEN, error},
    twin::{Hook, twins},
};

const EPIPE: u16 = 32;

/// How and when a connection ended.
pub struct End {
    ts: u64,
    cause: Cause,
    /// By a reset from the other side.
    reset: bool,
}

impl End {
    /// Of a socket that leaves this state with this error.
    #[inline(always)]
    pub fn new(ts: u64, old: i32, error: u16) -> Self {
        // What a listener has is left from an attempt to connect before.
        let error = if old == LISTEN { 0 } else { error };
        End {
            ts,
            cause: cause(old, error),
            reset: matches!(error, ECONNRESET | EPIPE),
        }
    }

    /// From what the change of state left behind for a connection that was still in the accept queue.
    #[inline(always)]
    pub fn in_queue(socket: &Socket) -> Self {
        End::new(socket.started, ESTABLISHED, socket.outcome)
    }
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
        let mut error = error(sk);
        if !accepted && socket.flags & flag::LIVE == 0 {
            // Of an attempt that failed.
            if socket.protocol == IPPROTO_TCP {
                fill::<Direct>(sk, socket);
            }
            forget_peer(socket);
            error = 0;
        }
        let end = End {
            ts,
            cause: cause(FIN_WAIT2, error),
            reset: false,
        };
        report_close::<Direct>(sk, socket, ts, end);
    }
    forget(sk, key);
}
