//! Identity and addresses of sockets.

use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_probe_read_user, bpf_skc_to_tcp_sock,
};
use portwatch_common::{Bytes16, MISSING, Owner, Socket};

use crate::{
    maps::{config, offset},
    memory::{Memory, Probe},
    mptcp::first_subflow,
};

const SOCK_RAW: u16 = 3;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const IPPROTO_TCP: u16 = 6;
pub const IPPROTO_UDP: u16 = 17;
pub const IPPROTO_MPTCP: u16 = 262;

/// What a socket is known by here. See [`identify`].
#[inline(always)]
pub fn key<M: Memory>(sk: usize) -> u64 {
    identify::<M>(sk).0
}

/// What a socket is known by here, and its cookie. They differ for MPTCP only, where accepted
/// sockets share the cookie of their listener and are known by their address.
#[inline(always)]
pub fn identify<M: Memory>(sk: usize) -> (u64, u64) {
    let cookie = cookie::<M>(sk);
    let mptcp = protocol::<M>(sk) == IPPROTO_MPTCP;
    // A number in both cases, so that what follows is verified once.
    (if mptcp { number(sk) } else { cookie }, cookie)
}

/// The kernel's cookie; the address where there is none and this program may not make one.
#[inline(always)]
fn cookie<M: Memory>(sk: usize) -> u64 {
    if M::TYPED && config!(cookie_helper) == 1 {
        return unsafe { bpf_get_socket_cookie(sk as *mut _) };
    }
    let cookie: u64 = unsafe { M::read(sk, offset!(sk_cookie)) };
    if cookie != 0 { cookie } else { number(sk) }
}

/// An address as a plain number, with which the verifier allows arithmetic: read back from the stack.
#[inline(always)]
pub fn number(sk: usize) -> u64 {
    let mut number = 0u64;
    unsafe { bpf_probe_read_kernel((&raw mut number).cast(), 8, (&raw const sk).cast()) };
    number
}

/// The `sock` of a `struct socket`.
#[inline(always)]
pub fn sk_of<M: Memory>(socket: usize) -> usize {
    unsafe { M::read(socket, offset!(socket_sk)) }
}

#[inline(always)]
pub fn protocol<M: Memory>(sk: usize) -> u16 {
    unsafe { M::read(sk, offset!(sk_protocol)) }
}

/// Inode number of its network namespace, which need not be that of the acting process.
#[inline(always)]
pub fn netns(sk: usize) -> u32 {
    unsafe {
        let net: usize = Probe::read(sk, offset!(sk_net));
        Probe::read(net, offset!(net_inum))
    }
}

#[inline(always)]
pub fn family<M: Memory>(sk: usize) -> u16 {
    unsafe { M::read(sk, offset!(sk_family)) }
}

/// Whether this is an IPv4 or IPv6 socket; 0 is none.
#[inline(always)]
pub fn is_inet<M: Memory>(sk: usize) -> bool {
    sk != 0 && matches!(family::<M>(sk), AF_INET | AF_INET6)
}

/// Whether this is an IPv4 or IPv6 socket of the protocol whose number it has.
#[inline(always)]
pub fn is_transport<M: Memory>(sk: usize) -> bool {
    is_inet::<M>(sk) && !is_raw::<M>(sk)
}

/// Whether it is a raw one, which may have the number of any protocol.
#[inline(always)]
pub fn is_raw<M: Memory>(sk: usize) -> bool {
    unsafe { M::read::<u16>(sk, offset!(sk_type)) == SOCK_RAW }
}

/// The protocols whose sockets are connections.
#[inline(always)]
pub fn is_stream(protocol: u16) -> bool {
    protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP
}

/// The typed `tcp_sock` of a socket, or a number for readers of plain memory; 0 when it is no TCP socket.
#[inline(always)]
pub fn tcp_sock<M: Memory>(sk: usize) -> usize {
    if M::TYPED {
        unsafe { bpf_skc_to_tcp_sock(sk as *mut _) as usize }
    } else {
        sk
    }
}

/// A fresh memory of a socket.
#[inline(always)]
pub fn new<M: Memory>(sk: usize, owner: Owner) -> Socket {
    let mut socket = Socket {
        cookie: cookie::<M>(sk),
        owner,
        ..Socket::default()
    };
    fill::<M>(sk, &mut socket);
    socket
}

/// Reads protocol, namespace, addresses and ports as they are now.
#[inline(always)]
pub fn fill<M: Memory>(sk: usize, socket: &mut Socket) {
    socket.netns = netns(sk);
    unsafe {
        socket.protocol = M::read(sk, offset!(sk_protocol));
        socket.family = M::read(sk, offset!(sk_family));
    }
    match first_subflow(sk, socket.protocol) {
        0 => addresses::<M>(sk, socket),
        // Its own copy of the addresses comes late; but a subflow that was reset has no peer any more.
        first => {
            let peer = |sk| unsafe { Probe::read::<u16>(sk, offset!(sk_dport)) };
            let from = if peer(first) == 0 && peer(sk) != 0 {
                sk
            } else {
                first
            };
            addresses::<Probe>(from, socket);
        }
    }
}

/// It has no peer, whatever an earlier attempt to connect left in the kernel's socket.
#[inline(always)]
pub fn forget_peer(socket: &mut Socket) {
    socket.raddr = [0; 2];
    socket.rport = 0;
}

#[inline(always)]
fn addresses<M: Memory>(sk: usize, socket: &mut Socket) {
    unsafe {
        socket.lport = M::read(sk, offset!(sk_num));
        if socket.lport == 0 {
            // The port was given back already; its copy for outgoing packets stays.
            socket.lport = u16::from_be(Probe::read(sk, offset!(inet_sport)));
        }
        socket.rport = u16::from_be(M::read(sk, offset!(sk_dport)));
        if socket.family == AF_INET6 && offset!(sk_v6_daddr) != MISSING {
            let (local, remote) = (offset!(sk_v6_rcv_saddr), offset!(sk_v6_daddr));
            socket.laddr = [M::read(sk, local), M::read(sk, local + 8)];
            socket.raddr = [M::read(sk, remote), M::read(sk, remote + 8)];
        } else {
            socket.laddr = [M::read::<u32>(sk, offset!(sk_rcv_saddr)) as u64, 0];
            socket.raddr = [M::read::<u32>(sk, offset!(sk_daddr)) as u64, 0];
        }
    }
}

/// Where an address given to bind or connect lies.
#[derive(Clone, Copy)]
pub enum Name {
    Kernel(usize),
    /// With as many bytes as the caller says there are.
    User(usize, u32),
}

/// Reads the address and port of a `sockaddr` into `address` and `port`, as sockets of this family have
/// them; false when they cannot, or it is not readable.
#[inline(always)]
pub fn read_name(name: Name, family: u16, address: &mut Bytes16, port: &mut u16) -> bool {
    // sockaddr_in: family 2, port 2, address 4. sockaddr_in6: family 2, port 2, flow 4, address 16.
    let mut raw = [0u64; 3];
    let raw_ptr = raw.as_mut_ptr().cast();
    let read = |size: u32| unsafe {
        match name {
            Name::Kernel(at) => bpf_probe_read_kernel(raw_ptr, size, at as *const _),
            Name::User(_, length) if length < size => -1,
            Name::User(at, _) => bpf_probe_read_user(raw_ptr, size, at as *const _),
        }
    };
    if read(8) != 0 {
        return false;
    }
    let [head, ..] = raw;
    match head as u16 {
        AF_INET if family == AF_INET => *address = [head >> 32, 0],
        // The mapped address.
        AF_INET => *address = [0, head >> 32 << 32 | 0xffff_0000],
        AF_INET6 if family == AF_INET6 && read(24) == 0 => *address = [raw[1], raw[2]],
        _ => return false,
    }
    *port = u16::from_be((head >> 16) as u16);
    true
}
