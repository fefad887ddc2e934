//! What a socket is known by in the table.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

use super::compact::Compact;
use crate::event::{Event, Proto};

/// A socket's cookie. Where there is none, a hash of its inode's number or of its addresses, which no cookie
/// can be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub(super) u64);

impl Key {
    pub(super) const FIRST: Self = Self(0);
    pub(super) const LAST: Self = Self(u64::MAX);
}

/// The other end, where there is one.
type Remote = (Option<IpAddr>, Option<u16>);

/// Namespace and addresses.
type Place = (
    Option<u32>,
    Option<Proto>,
    Option<IpAddr>,
    Option<u16>,
    Remote,
);

/// Set in hashes: cookies count up from 1 and never get there. Those that count down from the
/// highest number are shown there without it.
const HASH: u64 = 1 << 63;

/// Makes keys. Those of one table come from one maker, whose hashes nobody can foresee.
#[derive(Clone, Debug, Default)]
pub struct Keys(RandomState);

impl Keys {
    pub fn of(&self, event: &Event) -> Key {
        match event.sock {
            // On older kernels accepted MPTCP sockets inherit the cookie of their listener.
            Some(_) if event.proto == Some(Proto::Mptcp) && event.rport.is_some() => {
                self.of_addresses(event)
            }
            Some(cookie) => Key(cookie & !HASH),
            None => self.without_cookie(event, (event.raddr, event.rport)),
        }
    }

    /// The key that the socket would have if nothing but its addresses were known.
    pub fn of_addresses(&self, event: &Event) -> Key {
        self.hash(event, (event.raddr, event.rport))
    }

    /// The same of a socket of the table.
    pub fn by_addresses(&self, socket: &Compact) -> Key {
        let remote = (socket.raddr, socket.rport);
        self.of_place((
            socket.netns.get(),
            socket.proto,
            socket.laddr,
            socket.lport,
            remote,
        ))
    }

    /// The key that it would have had before it was connected.
    pub fn of_unconnected(&self, event: &Event) -> Key {
        match event.sock {
            Some(cookie) => Key(cookie & !HASH),
            None => self.without_cookie(event, (None, None)),
        }
    }

    /// Several may be at one address, so the inode says which it is. Not of a tcp connection, which has its
    /// addresses to itself, and no inode before it is accepted; nor of mptcp, where a snapshot may lack a cookie
    /// that events tell.
    fn without_cookie(&self, event: &Event, remote: Remote) -> Key {
        let by_inode = match event.proto {
            Some(Proto::Tcp) => remote.1.is_none(),
            proto => proto != Some(Proto::Mptcp),
        };
        match event.inode.filter(|_| by_inode) {
            Some(inode) => Key(HASH | self.0.hash_one(inode)),
            None => self.hash(event, remote),
        }
    }

    fn hash(&self, event: &Event, remote: Remote) -> Key {
        self.of_place((event.netns, event.proto, event.laddr, event.lport, remote))
    }

    fn of_place(&self, place: Place) -> Key {
        Key(HASH | self.0.hash_one(place))
    }

    pub fn is_hash(key: Key) -> bool {
        key.0 & HASH != 0
    }
}
