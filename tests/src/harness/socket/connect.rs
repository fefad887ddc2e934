//! Connecting, and coming apart again without a close.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockAddr;

use super::{Life, NOBODY, PATIENCE, Sock, State, elapsed_us, error_name, shown, span};
use crate::harness::event::{Family, Kind, Proto};
use crate::harness::truth::{Span, lock, now};

impl Sock {
    /// On a non-blocking socket `EINPROGRESS` is not the outcome: [`Sock::outcome`] waits for it.
    pub fn connect(&self, address: SocketAddr) -> io::Result<()> {
        self.connect_with(address, || self.socket.connect(&SockAddr::from(address)))
    }

    /// Like [`Sock::connect`], by another way than connect(2).
    pub fn connect_with(
        &self,
        address: SocketAddr,
        call: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let (at, result) = span(call);
        let state = &mut lock(&self.state);
        if self.proto == Proto::Udp {
            self.bound_implicitly(state, at);
        }
        match &result {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                state.pending = Some((at, address));
            }
            Err(error) => self.connected(state, at, address, Some(error)),
            Ok(()) => self.connected(state, at, address, None),
        }
        result
    }

    /// Connects to bytes that are no address of this family.
    pub fn connect_to_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let (at, result) = span(|| self.call(libc::connect, bytes, bytes.len()));
        let state = &mut lock(&self.state);
        if self.proto == Proto::Udp {
            self.bound_implicitly(state, at);
        }
        self.note(state, Kind::Connect, |expected| {
            expected.unconnected = true;
            expected.at = Some(at);
            expected.error = result.as_ref().err().map(error_name);
        });
        result
    }

    /// Dissolves the association of a udp socket, which gives back a port that bind(2) did not name.
    pub fn dissolve(&self) -> io::Result<()> {
        let before = self.local();
        self.call(libc::connect, &NOBODY, NOBODY.len())?;
        let state = &mut lock(&self.state);
        state.peer = None;
        state.local = None;
        if let (Some(before), Some(after)) = (before, self.local())
            && after.port() == 0
        {
            state.life = Life::Unbound;
            state.local = Some(SocketAddr::new(after.ip(), before.port()));
        }
        Ok(())
    }

    /// Ends a connection of tcp by a reset, or a listener, and leaves a socket that may begin anew.
    pub fn disconnect(&self) -> io::Result<()> {
        lock(&self.state).will_reset = true;
        self.end_with(|| self.call(libc::connect, &NOBODY, NOBODY.len()))
    }

    /// Ends a listener, and leaves a socket that may begin anew.
    pub fn shut_down(&self) -> io::Result<()> {
        self.end_with(|| self.socket.shutdown(std::net::Shutdown::Both))
    }

    fn end_with(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let state = &mut *lock(&self.state);
        self.expect_close(state);
        *state = State {
            events: std::mem::take(&mut state.events),
            life: Life::Over,
            explicit: state.explicit,
            ..State::default()
        };
        call()
    }

    /// Gives up a connect under way by a connect to nobody.
    pub fn give_up(&self) -> io::Result<()> {
        self.cancelled_by(|| self.call(libc::connect, &NOBODY, NOBODY.len()))
    }

    /// Gives up a connect under way by a shutdown.
    pub fn give_up_by_shutdown(&self) -> io::Result<()> {
        self.cancelled_by(|| self.socket.shutdown(std::net::Shutdown::Both))
    }

    fn cancelled_by(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        call()?;
        self.came_out(Some(&io::Error::from_raw_os_error(libc::ECANCELED)))
    }

    /// Waits for the outcome of a non-blocking connect.
    pub fn outcome(&self) -> io::Result<()> {
        self.wait_for_outcome()?;
        let error = self.socket.take_error()?;
        self.came_out(error.as_ref())?;
        error.map_or(Ok(()), Err)
    }

    /// The same of one that is refused, whose error nobody fetches: it stays with the socket.
    pub fn refused_unnoticed(&self) -> io::Result<()> {
        self.wait_for_outcome()?;
        self.came_out(Some(&io::Error::from_raw_os_error(libc::ECONNREFUSED)))?;
        // Only who fetches the error gives back the address that the attempt chose.
        lock(&self.state).local = self.local();
        Ok(())
    }

    /// Notes the outcome of the connect that was under way until now.
    fn came_out(&self, error: Option<&io::Error>) -> io::Result<()> {
        let until = now();
        let state = &mut lock(&self.state);
        let none = || io::Error::other("no connect is under way");
        let (called, address) = state.pending.take().ok_or_else(none)?;
        self.connected(state, (called.0, until), address, error);
        Ok(())
    }

    fn wait_for_outcome(&self) -> io::Result<()> {
        let mut poll_fd = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
        let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        match poll(&mut poll_fd, timeout)? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    /// Expects the announcement of a connect that is still under way after a second.
    pub fn announced(&self) {
        let state = &mut lock(&self.state);
        let Some((called, address)) = state.pending else {
            return;
        };
        let second = 1_000_000_000;
        self.note(state, Kind::Connect, |expected| {
            expected.raddr = Some(shown(address.ip()));
            expected.rport = Some(address.port());
            // a timer of the tracer makes it: as early as 0.9 s, as late as a slow machine may be
            expected.at = Some((called.0 + second * 9 / 10, called.1 + second * 4));
            expected.error = Some("EINPROGRESS".to_owned());
        });
    }

    fn connected(
        &self,
        state: &mut State,
        at: Span,
        address: SocketAddr,
        error: Option<&io::Error>,
    ) {
        let local = self.local();
        // after a failure the port is given back, unless it was bound explicitly
        let known = local.filter(|_| error.is_none() || state.explicit);
        self.note(state, Kind::Connect, |expected| {
            expected.raddr = Some(shown(address.ip()));
            expected.rport = Some(address.port());
            expected.lport = known.map(|local| local.port());
            expected.at = Some(at);
            expected.error = error.map(error_name);
            if error.is_none() {
                expected.laddr = known.map(|local| shown(local.ip()));
                expected.elapsed_us =
                    (self.proto != Proto::Udp).then_some(elapsed_us((at.0, at.1), (at.0, at.1)));
            }
        });
        if error.is_none() {
            if self.proto != Proto::Udp {
                state.life = Life::Connected;
                state.since = at;
            }
            state.peer = Some(address);
            state.local = local;
        }
    }

    /// A udp socket without a port gets one by the first connect or send.
    pub(super) fn bound_implicitly(&self, state: &mut State, at: Span) {
        if !matches!(state.life, Life::Fresh | Life::Unbound) {
            return;
        }
        let Some(port) = self
            .local()
            .map(|local| local.port())
            .filter(|&port| port != 0)
        else {
            return;
        };
        // What bind(2) named stays.
        let kept = state.local.filter(|_| state.life == Life::Unbound);
        let address = kept.map_or(self.wildcard(), |kept| kept.ip());
        self.note(state, Kind::Bind, |expected| {
            expected.laddr = Some(address);
            expected.lport = Some(port);
            expected.at = Some(at);
        });
        state.life = Life::Bound;
        state.since = at;
        state.local = None;
    }

    fn wildcard(&self) -> IpAddr {
        match self.family {
            Family::Ipv4 => IpAddr::from([0; 4]),
            Family::Ipv6 => IpAddr::from([0; 16]),
        }
    }
}
