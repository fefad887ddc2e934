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
    /// When it is told.
    ts: u64,
    /// When it ended.
    at: u64,
    /// Where [`HOW`] tells about it.
    how: usize,
}

impl End {
    /// Of a socket that leaves this state with this error.
    #[inline(always)]
    pub fn new(ts: u64, old: i32, error: u16) -> Self {
        // Sockets have no errors with higher numbers.
        let (error, old) = (error as usize % ERRORS, old as usize % STATES);
        End {
            ts,
            at: ts,
            how: error * STATES + old,
        }
    }

    /// From what the change of state left behind for a connection that was still in the accept queue.
    #[inline(always)]
    pub fn in_queue(ts: u64, socket: &Socket) -> Self {
        End {
            ts,
            ..End::new(socket.started, ESTABLISHED, socket.outcome)
        }
    }

    #[inline(always)]
    fn row(&self) -> &How {
        &HOW[self.how % HOW.len()]
    }

    /// Whether by a reset from the other side.
    #[inline(always)]
    fn reset(&self) -> bool {
        constant(&self.row().reset)
    }

    /// Whether perhaps by a reset that it sends.
    #[inline(always)]
    fn aborted(&self) -> bool {
        constant(&self.row().aborted)
    }

    #[inline(always)]
    fn cause(&self) -> u8 {
        constant(&self.row().cause)
    }
}

/// What the error and the state that a socket leaves tell about its end.
#[derive(Clone, Copy)]
struct How {
    cause: u8,
    reset: bool,
    aborted: bool,
}

const ERRORS: usize = 128;
const STATES: usize = 16;

/// By error and state. A table, so that the verifier walks on once from there, not once for each cause.
static HOW: [How; ERRORS * STATES] = {
    let mut all = [how(0, 0); ERRORS * STATES];
    let mut at = 0;
    while at < all.len() {
        all[at] = how((at / STATES) as u16, (at % STATES) as i32);
        at += 1;
    }
    all
};

const fn how(error: u16, old: i32) -> How {
    // What a listener has is left from an attempt to connect before.
    let error = if old == LISTEN { 0 } else { error };
    let cause = match (error, old) {
        (0, LISTEN | FIN_WAIT2 | CLOSING) => Cause::Local,
        (0, LAST_ACK) => Cause::Remote,
        // Left without the handshake of FINs: by abort, or by close with data unread.
        (0, _) => Cause::Reset,
        (ECONNRESET | EPIPE | ECONNREFUSED, _) => Cause::Reset,
        (ETIMEDOUT, _) => Cause::Timeout,
        _ => Cause::Error,
    };
    let reset = matches!(error, ECONNRESET | EPIPE);
    How {
        cause: cause as u8,
        reset,
        aborted: !reset && matches!(cause, Cause::Reset),
    }
}

/// Reports the end of a connection or listener. Apart, as the verifier has less to remember there.
#[inline(never)]
pub fn ended<M: Memory>(sk: usize, key: u64, socket: &mut Socket, end: &End) {
    if end.reset() {
        let cause = Cause::Received as u8;
        emit(
            Kind::Reset,
            end.ts,
            socket,
            Details {
                cause,
                ..Details::default()
            },
        );
    }
    // Kept for a reset that it sends with its end, or for the side that accepts it just now.
    let sends_reset = end.aborted();
    let settled = socket.flags & flag::PASSIVE == 0 || socket.handover & handover::SETTLED != 0;
    report_close::<M>(sk, socket, end);
    // An MPTCP socket has no tcp_destroy_sock to be forgotten in.
    if socket.protocol == IPPROTO_MPTCP || settled && !sends_reset {
        forget(sk, key);
    }
}

#[inline(always)]
fn report_close<M: Memory>(sk: usize, socket: &mut Socket, end: &End) {
    let mut details = Details {
        cause: end.cause(),
        elapsed: elapsed(end.at, socket.since),
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
            details.rtt = M::read::<u32>(tcp, offset!(tcp_srtt_us)) as u64 >> 3;
            details.retrans = M::read::<u32>(tcp, offset!(tcp_total_retrans)) as u64;
        }
    }
    socket.flags = flag::CLOSED | socket.flags & (flag::LISTENER | flag::PASSIVE);
    emit(Kind::Close, end.ts, socket, details);
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
        let end = End::new(ts, FIN_WAIT2, error);
        report_close::<Direct>(sk, socket, &end);
    }
    forget(sk, key);
}
