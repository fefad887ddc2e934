//! Resets sent. Those received come with the end of the connection; refused attempts have an
//! outcome instead, and a reset sent for no socket has no owner.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use portwatch_common::{Cause, Kind, flag};

use crate::{
    body::{TCP_SEND_RESET, run},
    emit::{Details, emit, now},
    maps::config,
    memory::Direct,
    socket::key,
    sockets::{find, forget},
    twin::{Hook, twins},
};

/// This socket sends one.
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
