//! Sockets of this thread's network namespace through netlink's sock_diag (see sock_diag(7) and
//! the kernel's linux/inet_diag.h).

mod message;

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use rustc_hash::FxHashSet;
use rustix::fd::OwnedFd;
use rustix::io::retry_on_intr;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use self::message::{Found, parse, request};
use super::packed::Packed;
use crate::device::Device;
use crate::event::{Family, Proto};

/// The kernel fills up to 32 KiB at a time.
const BUFFER: usize = 64 << 10;
/// How often a dump that was interrupted is begun anew.
const ATTEMPTS: usize = 5;

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
    let mut cookies = FxHashSet::default();
    // Few sockets are bound to one, and those few to the same.
    let mut devices = HashMap::new();
    loop {
        let (count, length) =
            retry_on_intr(|| rustix::net::recv(&netlink, &mut buffer[..], RecvFlags::TRUNC))?;
        if length > count || count == 0 {
            bail!("a message of {length} bytes is not what was expected");
        }
        let part = parse(&buffer[..count], query, &mut some)?;
        interrupted |= part.interrupted;
        for Found {
            mut socket,
            interface,
            subflow,
        } in some.drain(..)
        {
            if interface != 0 {
                let device = devices.entry(interface);
                socket.device = *device.or_insert_with(|| Device::of_index(interface));
            }
            // A table that changes while it is read may show one twice. MPTCP sockets may share
            // their cookie.
            let mptcp = socket.proto == Proto::Mptcp;
            if mptcp || socket.sock.is_none_or(|cookie| cookies.insert(cookie)) {
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
