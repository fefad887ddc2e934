//! MPTCP: a connection over several tcp connections, its subflows, is told as a whole.

use portwatch_common::{MISSING, flag};

use crate::{
    maps::offset,
    memory::{Memory, Probe},
    socket::{IPPROTO_MPTCP, Name, family, read_name, tcp_sock},
    sockets::look_up,
};

/// Whether this TCP socket is one path of an MPTCP connection, which is reported as a whole.
#[inline(always)]
pub fn is_subflow<M: Memory>(sk: usize) -> bool {
    if offset!(tcp_is_mptcp) == MISSING {
        return false;
    }
    let tcp = tcp_sock::<M>(sk);
    tcp != 0 && unsafe { M::read::<u8>(tcp, offset!(tcp_is_mptcp)) } & 1 == 1
}

/// The tcp socket that an MPTCP socket began with; 0 for others.
#[inline(always)]
pub fn first_subflow(sk: usize, protocol: u16) -> usize {
    if protocol == IPPROTO_MPTCP {
        unsafe { Probe::read(sk, offset!(mptcp_first)) }
    } else {
        0
    }
}

/// The attempt of a subflow failed, and with it that of the connection which it was to begin: the
/// connection's own error comes after its change of state. `name`: the peer, where the call itself failed.
#[inline(never)]
pub fn subflow_failed<M: Memory>(sk: usize, error: u16, name: Option<Name>) {
    let Some(socket) = look_up(connection::<M>(sk) as u64) else {
        return;
    };
    let socket = unsafe { &mut *socket };
    if socket.flags & flag::CONNECTING == 0 {
        // One more path of a connection that is there already.
        return;
    }
    socket.outcome = error;
    if let Some(name) = name {
        read_name(name, family::<M>(sk), &mut socket.raddr, &mut socket.rport);
        // Nothing was sent.
        socket.started = 0;
    }
}

/// The MPTCP socket of a subflow, by whose address it is known; 0 when that cannot be told.
#[inline(always)]
pub fn connection<M: Memory>(sk: usize) -> usize {
    if offset!(icsk_ulp_data) == MISSING || offset!(subflow_conn) == MISSING {
        return 0;
    }
    let tcp = tcp_sock::<M>(sk);
    if tcp == 0 {
        return 0;
    }
    match unsafe { M::read(tcp, offset!(icsk_ulp_data)) } {
        0 => 0,
        context => unsafe { Probe::read(context, offset!(subflow_conn)) },
    }
}
