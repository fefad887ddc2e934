//! Sockets of this thread's network namespace through netlink's sock_diag (see sock_diag(7) and
//! the kernel's linux/inet_diag.h).
//!
//! With a parser of our own: the crates for these messages make an allocation of every attribute,
//! and can neither ask for MPTCP nor for tcp sockets that are only bound.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, bail};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::packed::Packed;
use super::socket::{Socket, Traffic};
use crate::event::{Family, Proto};
use crate::row::State;

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
/// The kernel fills up to 32 KiB at a time.
const BUFFER: usize = 64 << 10;
/// How often a dump that was interrupted is begun anew.
const ATTEMPTS: usize = 5;

/// All states of tcp: 1 to 12, and 13, which stands for bound but neither connected nor listening
/// (since Linux 6.8; others ignore it).
const ALL: u32 = 0x3ffe;
const LISTEN: u32 = 1 << 10;
/// `TCP_CLOSE`, which udp sockets without a peer are in.
const CLOSE: u32 = 1 << 7;

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    pub proto: Proto,
    /// `None`: both, which can only be asked of tcp.
    pub family: Option<Family>,
    /// Only listeners, or udp sockets without a peer.
    pub listening: bool,
    pub netns: Option<u32>,
}

/// What one answer says of a socket.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    socket: Socket,
    /// Carries (part of) an MPTCP connection, as far as the kernel tells.
    subflow: bool,
}

/// Appends the sockets asked for, each once, those that are subflows with a mark. Returns whether there
/// is any of these.
///
/// # Errors
/// When the kernel has no sock_diag, not this protocol in it, or does not allow it; when it answers
/// nonsense, or the table changes so fast that every dump is interrupted. Nothing is appended then.
pub fn dump(query: Query, found: &mut Packed) -> Result<bool> {
    let before = found.end();
    for _ in 0..ATTEMPTS {
        let end = attempt(query, found);
        if let Ok(End::Whole { subflows }) = end {
            return Ok(subflows);
        }
        found.truncate(before);
        end.with_context(|| format!("asking sock_diag for {}", query.proto))?;
    }
    bail!("the table of {} changes too fast to be read", query.proto)
}

fn attempt(query: Query, found: &mut Packed) -> Result<End> {
    // A new one each time, so that nothing of an earlier dump is in it.
    let netlink = open()?;
    let request = request(query);
    retry_on_intr(|| rustix::net::send(&netlink, &request, SendFlags::empty()))?;
    let mut buffer = vec![0; BUFFER];
    let (mut interrupted, mut subflows) = (false, false);
    let mut some = Vec::new();
    let mut cookies = HashSet::new();
    loop {
        let (count, length) =
            retry_on_intr(|| rustix::net::recv(&netlink, &mut buffer[..], RecvFlags::TRUNC))?;
        if length > count || count == 0 {
            bail!("a message of {length} bytes is not what was expected");
        }
        let part = parse(&buffer[..count], query, &mut some)?;
        interrupted |= part.interrupted;
        for Found { socket, subflow } in some.drain(..) {
            // A table that changes while it is read may show one twice.
            if socket.sock.is_none_or(|cookie| cookies.insert(cookie)) {
                found.push(&socket, subflow);
                subflows |= subflow;
            }
        }
        match part.done {
            true if interrupted => return Ok(End::Interrupted),
            true => return Ok(End::Whole { subflows }),
            false => {}
        }
    }
}

fn open() -> rustix::io::Result<OwnedFd> {
    let netlink = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    )?;
    // From then on the kernel is the only one who can send to it.
    rustix::net::connect(&netlink, &SocketAddrNetlink::new(0, 0))?;
    Ok(netlink)
}

enum End {
    Whole { subflows: bool },
    Interrupted,
}

fn request(query: Query) -> Vec<u8> {
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
    if let Some(family) = query.family {
        let family = match family {
            Family::Ipv4 => libc::AF_INET,
            Family::Ipv6 => libc::AF_INET6,
        };
        // struct inet_diag_req_v2: family, protocol, extensions, states, any address
        body.extend([family as u8, number as u8, extensions, 0]);
        body.extend(states.to_ne_bytes());
        body.extend([0; 48]);
        if query.proto == Proto::Mptcp {
            body.extend(8_u16.to_ne_bytes());
            body.extend(REQ_PROTOCOL.to_ne_bytes());
            body.extend(libc::IPPROTO_MPTCP.to_ne_bytes());
        }
    } else {
        // struct inet_diag_req: extensions, any address, states
        body.extend([0, 0, 0, extensions]);
        body.extend([0; 48]);
        body.extend(states.to_ne_bytes());
        body.extend([0; 4]);
    }
    let kind = match query.family {
        Some(_) => SOCK_DIAG_BY_FAMILY,
        None => TCPDIAG_GETSOCK,
    };
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    request
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Part {
    done: bool,
    interrupted: bool,
}

/// Reads what came in one go: whole messages, each padded to four bytes.
fn parse(mut bytes: &[u8], query: Query, found: &mut Vec<Found>) -> Result<Part> {
    let mut part = Part::default();
    while bytes.len() >= HEADER && !part.done {
        let length = u32_at(bytes, 0).unwrap_or(0) as usize;
        let Some(body) = bytes.get(HEADER..length) else {
            bail!("a message says that it has {length} bytes, and has not");
        };
        let flags = u16_at(bytes, 6).unwrap_or(0);
        part.interrupted |= flags & INTERRUPTED != 0;
        match u16_at(bytes, 4) {
            Some(DONE | ERROR) => {
                // The end of a dump and an error both begin with an errno, negative.
                let errno = u32_at(body, 0).unwrap_or(0).cast_signed();
                if errno < 0 {
                    Err(Errno::from_raw_os_error(errno.saturating_neg()))?;
                }
                part.done = true;
            }
            Some(SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK) => found.extend(message(body, query)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(part)
}

/// One socket; `None` when the message is too short or of a state that nobody knows.
fn message(body: &[u8], query: Query) -> Option<Found> {
    let fixed = body.get(..MESSAGE)?;
    let family = match i32::from(fixed[0]) {
        libc::AF_INET => Family::Ipv4,
        libc::AF_INET6 => Family::Ipv6,
        _ => return None,
    };
    let state = State::from_kernel(fixed[1])?;
    let port = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let remote = port(6);
    let cookie = u64::from(u32_at(fixed, 44)?) | u64::from(u32_at(fixed, 48)?) << 32;
    let inode = u32_at(fixed, 68)?;
    let mut socket = Socket {
        proto: query.proto,
        family,
        state,
        local: (address(family, &fixed[8..24]), port(4)),
        remote: (remote != 0).then(|| (address(family, &fixed[24..40]), remote)),
        netns: query.netns,
        // An accepted MPTCP socket has the cookie of its listener.
        sock: Some(cookie)
            .filter(|cookie| !matches!(*cookie, 0 | u64::MAX) && query.proto != Proto::Mptcp),
        inode: (inode != 0).then_some(inode.into()),
        v6only: None,
        uid: u32_at(fixed, 64)?,
        recv_queue: u32_at(fixed, 56)?,
        send_queue: Some(u32_at(fixed, 60)?),
        traffic: None,
    };
    let mut subflow = false;
    let tcp = query.proto == Proto::Tcp;
    for (kind, value) in attributes(body.get(MESSAGE..)?) {
        match kind {
            SKV6ONLY => socket.v6only = value.first().map(|&only| only != 0),
            INFO if tcp => socket.traffic = traffic(value, state),
            ULP_INFO if tcp => {
                subflow |= attributes(value)
                    .any(|(kind, name)| kind == ULP_NAME && name.starts_with(b"mptcp\0"));
            }
            _ => {}
        }
    }
    Some(Found { socket, subflow })
}

/// Type and value of each, up to the first that is not whole.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let attribute = (u16_at(bytes, 2)? & TYPE, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

/// From `struct tcp_info` of linux/tcp.h, which is shorter on older kernels.
fn traffic(info: &[u8], state: State) -> Option<Traffic> {
    // The peer's FIN counts as one byte.
    let done = matches!(state, State::CloseWait | State::LastAck | State::Closing);
    let sent = u64_at(info, 200).zip(u64_at(info, 208));
    Some(Traffic {
        rtt_us: u32_at(info, 68)?,
        retrans: u32_at(info, 100)?,
        rx_bytes: u64_at(info, 128)?.saturating_sub(done.into()),
        tx_bytes: match sent {
            Some((sent, again)) => sent.saturating_sub(again),
            // before 4.19: acknowledged, so without what is on its way
            None => u64_at(info, 120)?,
        },
    })
}

/// 16 bytes, of which an IPv4 address fills the first four. A v4-mapped one is shown as what it
/// stands for.
fn address(family: Family, bytes: &[u8]) -> IpAddr {
    let mut all = [0; 16];
    all.copy_from_slice(bytes);
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::new(all[0], all[1], all[2], all[3])),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(all)).to_canonical(),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
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
        for word in [0_u32, 5, 1, 0, 11, 12, 1000, 4242] {
            body.extend(word.to_ne_bytes());
        }
        attribute(&mut body, SKV6ONLY, &[1]);
        let mut info = vec![0_u8; 216];
        for (at, value) in [(68, 90_u32), (100, 3)] {
            info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        for (at, value) in [(128, 1000_u64), (200, 700), (208, 100)] {
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
        let subflow = true;
        assert_eq!(found, [Found { socket, subflow }]);
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
