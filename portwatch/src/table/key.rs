//! What a socket is known by in the table.

use std::hash::{BuildHasher as _, RandomState};

use crate::event::{Event, Proto};

/// A socket's cookie. Where there is none, a hash of its addresses, which no cookie can be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub(super) u64);

impl Key {
    pub(super) const FIRST: Self = Self(0);
    pub(super) const LAST: Self = Self(u64::MAX);
}

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
            None => self.of_addresses(event),
        }
    }

    /// The key that the socket would have without a cookie.
    pub fn of_addresses(&self, event: &Event) -> Key {
        self.hash(event, (event.raddr, event.rport))
    }

    /// The key that it would have had before it was connected.
    pub fn of_unconnected(&self, event: &Event) -> Key {
        match event.sock {
            Some(cookie) => Key(cookie & !HASH),
            None => self.hash(event, (None, None)),
        }
    }

    fn hash(&self, event: &Event, remote: (Option<std::net::IpAddr>, Option<u16>)) -> Key {
        let socket = (event.netns, event.proto, event.laddr, event.lport, remote);
        Key(HASH | self.0.hash_one(socket))
    }

    pub fn is_hash(key: Key) -> bool {
        key.0 & HASH != 0
    }
}
