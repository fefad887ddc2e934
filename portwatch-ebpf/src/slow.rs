//! Connects that take long, announced once while they are under way.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use portwatch_common::{Kind, flag};

use crate::{
    connect::EINPROGRESS,
    emit::{Details, elapsed, emit, now},
    maps::offset,
    memory::{Direct, Memory},
    mptcp::{connection, is_subflow},
    socket::{IPPROTO_MPTCP, fill, key},
    sockets::{find, look_up},
    tcp::SYN_SENT,
    twin::{Hook, twins},
};

/// An attempt is announced as slow when its SYN is sent again and it is about this old.
const SLOW_NS: u64 = 900_000_000;

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
    let is_subflow = is_subflow::<Direct>(sk);
    let found = match is_subflow {
        true => look_up(connection::<Direct>(sk) as u64),
        false => find(sk, key::<Direct>(sk)),
    };
    let Some(socket) = found else {
        return;
    };
    let socket = unsafe { &mut *socket };
    let ts = now();
    // Not known of an attempt from before the probes: a SYN that is sent again is a second old by default.
    let age = elapsed(ts, socket.started);
    if socket.flags & (flag::CONNECTING | flag::ANNOUNCED) == flag::CONNECTING
        && (socket.started == 0 || age >= SLOW_NS)
    {
        socket.flags |= flag::ANNOUNCED;
        fill::<Direct>(sk, socket);
        if is_subflow {
            socket.protocol = IPPROTO_MPTCP;
        }
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
