//! Binding and listening.

use std::io;
use std::net::SocketAddr;

use socket2::SockAddr;

use super::{Life, Sock, error_name, shown, span};
use crate::harness::event::Kind;
use crate::harness::truth::lock;

impl Sock {
    pub fn bind(&self, address: SocketAddr) -> io::Result<()> {
        self.bind_with(address, || self.socket.bind(&SockAddr::from(address)))
    }

    /// Like [`Sock::bind`], by another way than bind(2).
    pub fn bind_with(
        &self,
        address: SocketAddr,
        call: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let (at, result) = span(call);
        let state = &mut lock(&self.state);
        let bound = match &result {
            Ok(()) => self.local().unwrap_or(address),
            Err(_) => address,
        };
        self.note(state, Kind::Bind, |expected| {
            expected.laddr = Some(shown(bound.ip()));
            expected.lport = Some(bound.port());
            expected.at = Some(at);
            expected.error = result.as_ref().err().map(error_name);
        });
        if result.is_ok() {
            state.life = Life::Bound;
            state.since = at;
            state.explicit = true;
            state.local = Some(bound);
        }
        result
    }

    /// Binds to bytes of which the kernel is told this length, and which are no address of this family.
    pub fn bind_to_bytes(&self, bytes: &[u8], length: usize) -> io::Result<()> {
        let (at, result) = span(|| self.call(libc::bind, bytes, length));
        self.note(&mut lock(&self.state), Kind::Bind, |expected| {
            expected.nameless = true;
            expected.at = Some(at);
            expected.error = result.as_ref().err().map(error_name);
        });
        result
    }

    pub fn listen(&self, backlog: i32) -> io::Result<()> {
        self.listen_with(backlog, || self.socket.listen(backlog))
    }

    /// Like [`Sock::listen`], by another way than listen(2).
    pub fn listen_with(
        &self,
        backlog: i32,
        call: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let (at, result) = span(call);
        let local = self.local().filter(|local| local.port() != 0);
        let state = &mut lock(&self.state);
        self.note(state, Kind::Listen, |expected| {
            expected.laddr = local.map(|local| shown(local.ip()));
            expected.lport = local.map(|local| local.port());
            expected.backlog = u32::try_from(backlog).ok().filter(|_| result.is_ok());
            expected.at = Some(at);
            expected.error = result.as_ref().err().map(error_name);
        });
        if result.is_ok() {
            state.life = Life::Listening;
            state.since = at;
            state.local = local;
        }
        result
    }
}
