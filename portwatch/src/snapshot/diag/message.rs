//! The request for a dump of sockets, and its answers, as they lie in memory.
//!
//! With a parser of our own: the crates for these messages make an allocation of every attribute,
//! and can neither ask for MPTCP nor for tcp sockets that are only bound.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};
use bytes::{Buf, BufMut};
use rustix::io::Errno;

use super::Query;
use crate::event::{Family, Proto};
use crate::row::State;
use crate::snapshot::socket::{Socket, Traffic};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// The older request, for tcp of both families: half the work, as the kernel walks all of its
/// tables for either.
const TCPDIAG_GETSOCK: u16 = 18;
const DONE: u16 = 3;
const ERROR: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
/// `NLM_F_DUMP_INTR`
const INTERRUPTED: u16 = 0x10;
/// Attribute of a request: a protocol that one byte cannot hold.
const REQ_PROTOCOL: u16 = 3;
/// Attributes of an answer.
const INFO: u16 = 2;
/// Of every IPv6 socket without a peer.
const SKV6ONLY: u16 = 11;
const ULP_INFO: u16 = 19;
const ULP_NAME: u16 = 1;
/// Low 14 bits of an attribute's type; the rest are flags.
const TYPE: u16 = 0x3fff;
const HEADER: usize = 16;
/// Length of `struct inet_diag_msg`.
const MESSAGE: usize = 72;
/// Length of `struct inet_diag_sockid`; all zero it means any.
const ANY: usize = 48;

/// All states of tcp: 1 to 12, and 13, which stands for bound but neither connected nor listening
/// (since Linux 6.8; others ignore it).
const ALL: u32 = 0x3ffe;
const LISTEN: u32 = 1 << 10;
/// `TCP_CLOSE`, which udp sockets without a peer are in.
const CLOSE: u32 = 1 << 7;

/// What one answer says of a socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub socket: Socket,
    /// Number of the network device that it is bound to; 0: of none.
    pub interface: u32,
    /// Carries (part of) an MPTCP connection, as far as the kernel tells.
    pub subflow: bool,
}

/// The message that asks for a dump.
pub fn request(query: Query) -> Vec<u8> {
    let states = match (query.listening, query.proto) {
        (false, _) => ALL,
        (true, Proto::Udp) => CLOSE,
        (true, _) => LISTEN,
    };
    // The information of tcp is asked for always: what tells subflows of MPTCP comes with it.
    let extensions = 1 << (INFO - 1);
    let number = match query.proto {
        Proto::Udp => libc::IPPROTO_UDP,
        // A kernel that does not know the attribute below has nothing for protocol 0.
        Proto::Mptcp => 0,
        _ => libc::IPPROTO_TCP,
    };
    let mut body = Vec::with_capacity(64);
    let kind = if let Some(family) = query.family {
        // struct inet_diag_req_v2
        body.put_u8(match family {
            Family::Ipv4 => libc::AF_INET,
            Family::Ipv6 => libc::AF_INET6,
        } as u8);
        body.put_u8(number as u8);
        body.put_u8(extensions);
        body.put_u8(0);
        body.put_u32_ne(states);
        body.put_bytes(0, ANY);
        if query.proto == Proto::Mptcp {
            body.put_u16_ne(8);
            body.put_u16_ne(REQ_PROTOCOL);
            body.put_i32_ne(libc::IPPROTO_MPTCP);
        }
        SOCK_DIAG_BY_FAMILY
    } else {
        // struct inet_diag_req
        body.put_slice(&[0, 0, 0, extensions]);
        body.put_bytes(0, ANY);
        body.put_u32_ne(states);
        body.put_u32_ne(0);
        TCPDIAG_GETSOCK
    };
    // struct nlmsghdr
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.put_u32_ne((HEADER + body.len()) as u32);
    request.put_u16_ne(kind);
    request.put_u16_ne(DUMP);
    request.put_u64_ne(0);
    request.put_slice(&body);
    request
}

/// What came in one go, apart from sockets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub done: bool,
    pub interrupted: bool,
}

/// Reads what came in one go: whole messages, each padded to four bytes. Appends the sockets.
///
/// # Errors
/// What the kernel answers instead, as [`Errno`]; messages that are not whole.
pub fn parse(mut bytes: &[u8], query: Query, found: &mut Vec<Found>) -> Result<Part> {
    let mut part = Part::default();
    while bytes.len() >= HEADER && !part.done {
        // struct nlmsghdr
        let mut header = bytes;
        let length = header.get_u32_ne() as usize;
        let kind = header.get_u16_ne();
        let flags = header.get_u16_ne();
        let Some(mut body) = bytes.get(HEADER..length) else {
            bail!("a message says that it has {length} bytes, and has not");
        };
        part.interrupted |= flags & INTERRUPTED != 0;
        match kind {
            DONE | ERROR => {
                // The end of a dump and an error both begin with an errno, negative.
                let errno = body.try_get_i32_ne().unwrap_or(0);
                if errno < 0 {
                    Err(Errno::from_raw_os_error(errno.saturating_neg()))?;
                }
                part.done = true;
            }
            SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => found.extend(message(body, query)),
            _ => {}
        }
        bytes = after(bytes, length);
    }
    Ok(part)
}

/// What follows something of so many bytes, which is padded to four.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(length.next_multiple_of(4)..).unwrap_or_default()
}

/// One socket; `None` when the message is too short or of a state that nobody knows.
fn message(body: &[u8], query: Query) -> Option<Found> {
    let (mut fixed, rest) = body.split_at_checked(MESSAGE)?;
    // struct inet_diag_msg
    let family = match i32::from(fixed.get_u8()) {
        libc::AF_INET => Family::Ipv4,
        libc::AF_INET6 => Family::Ipv6,
        _ => return None,
    };
    let state = State::from_kernel(fixed.get_u8())?;
    // timer, retransmits
    fixed.advance(2);
    let (lport, rport) = (fixed.get_u16(), fixed.get_u16());
    if query.proto == Proto::Tcp && state == State::Unconn && lport == 0 {
        // It ends just now, and has given back its port.
        return None;
    }
    let laddr = address(family, &mut fixed);
    let raddr = address(family, &mut fixed);
    let interface = fixed.get_u32_ne();
    let cookie = u64::from(fixed.get_u32_ne()) | u64::from(fixed.get_u32_ne()) << 32;
    // when the timer expires
    fixed.advance(4);
    let (recv_queue, send_queue) = (fixed.get_u32_ne(), fixed.get_u32_ne());
    let uid = fixed.get_u32_ne();
    let inode = fixed.get_u32_ne();
    let mut socket = Socket {
        proto: query.proto,
        family,
        state,
        local: (laddr, lport),
        remote: (rport != 0).then_some((raddr, rport)),
        device: None,
        netns: query.netns,
        sock: Some(cookie).filter(|cookie| !matches!(*cookie, 0 | u64::MAX)),
        inode: (inode != 0).then_some(inode.into()),
        v6only: None,
        uid,
        recv_queue,
        send_queue: Some(send_queue),
        traffic: None,
    };
    let mut subflow = false;
    let tcp = query.proto == Proto::Tcp;
    for (kind, value) in attributes(rest) {
        match kind {
            SKV6ONLY => socket.v6only = value.first().map(|&only| only != 0),
            INFO if tcp => socket.traffic = traffic(value, state, send_queue),
            ULP_INFO if tcp => {
                subflow |= attributes(value)
                    .any(|(kind, name)| kind == ULP_NAME && name.starts_with(b"mptcp\0"));
            }
            _ => {}
        }
    }
    Some(Found {
        socket,
        interface,
        subflow,
    })
}

/// Type and value of each, up to the first that is not whole.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        // struct nlattr
        let mut header = bytes;
        let length = usize::from(header.try_get_u16_ne().ok()?);
        let kind = header.try_get_u16_ne().ok()? & TYPE;
        let value = bytes.get(4..length)?;
        bytes = after(bytes, length);
        Some((kind, value))
    })
}

/// From `struct tcp_info` of linux/tcp.h, which is shorter on older kernels. `waiting`: bytes that are not
/// acknowledged.
fn traffic(info: &[u8], state: State, waiting: u32) -> Option<Traffic> {
    let u32_at = |at: usize| info.get(at..)?.try_get_u32_ne().ok();
    let u64_at = |at: usize| info.get(at..)?.try_get_u64_ne().ok();
    // The peer's FIN counts as one byte.
    let done = matches!(state, State::CloseWait | State::LastAck | State::Closing);
    let acknowledged = u64_at(120)?;
    let sent = u64_at(200).zip(u64_at(208));
    Some(Traffic {
        rtt_us: u32_at(68)?,
        retrans: u32_at(100)?,
        rx_bytes: u64_at(128)?.saturating_sub(done.into()),
        tx_bytes: match sent {
            // What the device or its queue refused was sent once more, and not counted as such.
            Some((sent, again)) => {
                let on_its_way = waiting.saturating_sub(u32_at(144)?);
                let most = acknowledged.saturating_add(on_its_way.into());
                sent.saturating_sub(again).min(most)
            }
            // before 4.19: without what is on its way
            None => acknowledged,
        },
    })
}

/// 16 bytes, of which an IPv4 address fills the first four. A v4-mapped one is shown as what it
/// stands for.
fn address(family: Family, bytes: &mut &[u8]) -> IpAddr {
    let mut all = [0; 16];
    bytes.copy_to_slice(&mut all);
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::new(all[0], all[1], all[2], all[3])),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(all)).to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUERY: Query = Query {
        proto: Proto::Tcp,
        family: None,
        listening: false,
        netns: Some(7),
    };

    /// A message as the kernel makes it, of an established connection over a v4-mapped address.
    fn answer() -> Vec<u8> {
        let mut body = vec![libc::AF_INET6 as u8, 1, 0, 0];
        body.extend(8080_u16.to_be_bytes());
        body.extend(50000_u16.to_be_bytes());
        for last in [1, 2] {
            body.extend(Ipv4Addr::new(127, 0, 0, last).to_ipv6_mapped().octets());
        }
        // interface, cookie, expires, queues, uid, inode
        for word in [3_u32, 5, 1, 0, 11, 12, 1000, 4242] {
            body.extend(word.to_ne_bytes());
        }
        attribute(&mut body, SKV6ONLY, &[1]);
        let mut info = vec![0_u8; 216];
        for (at, value) in [(68, 90_u32), (100, 3)] {
            info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        for (at, value) in [(120, 590_u64), (128, 1000), (200, 700), (208, 100)] {
            info[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        attribute(&mut body, INFO, &info);
        let mut name = Vec::new();
        attribute(&mut name, ULP_NAME, b"mptcp\0");
        attribute(&mut body, ULP_INFO | 0x8000, &name);
        envelope(SOCK_DIAG_BY_FAMILY, 2, &body)
    }

    fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
        to.extend((value.len() as u16 + 4).to_ne_bytes());
        to.extend(kind.to_ne_bytes());
        to.extend(value);
        to.resize(to.len().next_multiple_of(4), 0);
    }

    fn envelope(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut message = (body.len() as u32 + 16).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn a_message_is_read_to_its_end() {
        let mut bytes = answer();
        bytes.extend(envelope(DONE, 2, &[0; 4]));
        let mut found = Vec::new();
        let part = parse(&bytes, QUERY, &mut found).unwrap();
        assert!(part.done && !part.interrupted);
        let socket = Socket {
            proto: Proto::Tcp,
            family: Family::Ipv6,
            state: State::Estab,
            local: ("127.0.0.1".parse().unwrap(), 8080),
            remote: Some(("127.0.0.2".parse().unwrap(), 50000)),
            device: None,
            netns: Some(7),
            sock: Some(5 | 1 << 32),
            inode: Some(4242),
            v6only: Some(true),
            uid: 1000,
            recv_queue: 11,
            send_queue: Some(12),
            traffic: Some(Traffic {
                rtt_us: 90,
                retrans: 3,
                rx_bytes: 1000,
                tx_bytes: 600,
            }),
        };
        let expected = Found {
            socket,
            interface: 3,
            subflow: true,
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn what_the_device_refused_is_not_counted_as_sent() {
        let mut info = [0; 216];
        // 12 wait, of which 2 were not sent; 700 were tried, 100 of them sent once more.
        info[144] = 2;
        info[200..202].copy_from_slice(&700_u16.to_ne_bytes());
        info[208] = 100;
        for (acknowledged, sent) in [(0, 10), (189, 199), (255, 265)] {
            info[120] = acknowledged;
            let traffic = traffic(&info, State::Estab, 12).unwrap();
            assert_eq!(traffic.tx_bytes, sent);
        }
        info[121] = 4;
        assert_eq!(traffic(&info, State::Estab, 12).unwrap().tx_bytes, 600);
    }

    #[test]
    fn a_socket_that_ends_just_now_is_left_out() {
        let mut bytes = answer();
        // its state and its port
        bytes[HEADER + 1] = 7;
        bytes[HEADER + 4..HEADER + 6].fill(0);
        let mut found = Vec::new();
        parse(&bytes, QUERY, &mut found).unwrap();
        assert_eq!(found, []);
    }

    #[test]
    fn an_interrupted_dump_and_an_error_are_noticed() {
        let mut found = Vec::new();
        let interrupted = envelope(DONE, 2 | INTERRUPTED, &[0; 4]);
        assert!(parse(&interrupted, QUERY, &mut found).unwrap().interrupted);
        let refused = envelope(ERROR, 0, &(-libc::ENOENT).to_ne_bytes());
        let error = parse(&refused, QUERY, &mut found).unwrap_err();
        assert_eq!(error.downcast_ref::<Errno>(), Some(&Errno::NOENT));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes, QUERY, &mut Vec::new());
        }

        #[test]
        fn a_damaged_answer_is_read_without_a_panic(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            keep in any::<prop::sample::Index>(),
        ) {
            let mut bytes = answer();
            for (at, value) in changes {
                let length = bytes.len();
                bytes[at.index(length)] = value;
            }
            bytes.truncate(keep.index(bytes.len() + 1));
            let _ = parse(&bytes, QUERY, &mut Vec::new());
        }
    }
}
