//! A socket that keeps the truth about itself: every call on it is made for real, and what
//! portwatch has to show for it is remembered with what the call returned.

use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Mutex;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::event::{Cause, Family, Kind, Proto};
use super::truth::{Expected, Record, Span, lock, netns, now, tell};

/// No call in a scenario may wait longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The address that connect(2) takes for none: `AF_UNSPEC`.
const NOBODY: [u8; 16] = [0; 16];

/// See the module. Dropping it closes the socket, and that is remembered, too.
pub struct Sock {
    socket: ManuallyDrop<Socket>,
    proto: Proto,
    family: Family,
    netns: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    events: Vec<Expected>,
    life: Life,
    /// When the present life began.
    since: Span,
    /// A non-blocking connect under way: when it was called, and to where.
    pending: Option<(Span, SocketAddr)>,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    /// bind(2) itself was called, so the port stays when a connect fails.
    explicit: bool,
    received: u64,
    sent: u64,
    accepted: u64,
    /// The kernel does not tell which listener some of them came from.
    uncounted: bool,
    /// Whose FIN came first.
    ended_by: Option<Cause>,
    /// Since when the connection may have been over: its own FIN was sent.
    finished: Option<u64>,
    reset_received: bool,
    /// A reset may have come while the connection waited to be accepted.
    reset_in_queue: bool,
    will_reset: bool,
    disowned: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Fresh,
    Bound,
    Listening,
    Connected,
    /// Of udp: it gave back the port that it did not bind, which its close tells all the same.
    Unbound,
    /// Its end was already told.
    Over,
}

/// Name of an error as portwatch spells it.
pub fn error_name(error: &io::Error) -> String {
    let errno = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0));
    format!("{errno:?}")
}

/// An IPv4-mapped address as the IPv4 address.
fn shown(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn span<T>(call: impl FnOnce() -> T) -> (Span, T) {
    let before = now();
    let result = call();
    ((before, now()), result)
}

/// Bounds in microseconds of the time between two moments that are known by bounds.
fn elapsed_us(from: Span, to: Span) -> Span {
    (
        to.0.saturating_sub(from.1) / 1000,
        to.1.saturating_sub(from.0).div_ceil(1000),
    )
}

/// What the kernel tells of a tcp socket (tcp(7), `TCP_INFO`).
pub fn tcp_info(sock: &Sock) -> io::Result<libc::tcp_info> {
    // SAFETY: all zeros is a value of this plain structure.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            sock.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(info),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Sock {
    /// One that another process opened, and whose end is for that process to tell.
    pub fn received(fd: OwnedFd, proto: Proto, family: Family) -> io::Result<Self> {
        let sock = Self::around(Socket::from(fd), proto, family)?;
        sock.disown();
        Ok(sock)
    }

    pub fn tcp4() -> io::Result<Self> {
        Self::open(Proto::Tcp, Family::Ipv4)
    }

    pub fn tcp6() -> io::Result<Self> {
        Self::open(Proto::Tcp, Family::Ipv6)
    }

    pub fn udp4() -> io::Result<Self> {
        Self::open(Proto::Udp, Family::Ipv4)
    }

    pub fn udp6() -> io::Result<Self> {
        Self::open(Proto::Udp, Family::Ipv6)
    }

    pub fn open(proto: Proto, family: Family) -> io::Result<Self> {
        let domain = match family {
            Family::Ipv4 => Domain::IPV4,
            Family::Ipv6 => Domain::IPV6,
        };
        let (kind, protocol) = match proto {
            Proto::Tcp => (Type::STREAM, Protocol::TCP),
            Proto::Mptcp => (Type::STREAM, Protocol::MPTCP),
            Proto::Udp => (Type::DGRAM, Protocol::UDP),
            Proto::Sctp => (Type::STREAM, Protocol::SCTP),
            Proto::Raw => (Type::RAW, Protocol::ICMPV4),
        };
        let socket = Socket::new(domain, kind, Some(protocol))?;
        Self::around(socket, proto, family)
    }

    fn around(socket: Socket, proto: Proto, family: Family) -> io::Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket: ManuallyDrop::new(socket),
            proto,
            family,
            netns: netns(),
            state: Mutex::default(),
        })
    }

    /// For options that have no say in the truth.
    pub fn raw(&self) -> &Socket {
        &self.socket
    }

    fn note(&self, state: &mut State, event: Kind, fill: impl FnOnce(&mut Expected)) {
        let mut expected = Expected::new(event, std::process::id());
        expected.tid = Some(nix::unistd::gettid().as_raw().unsigned_abs());
        expected.proto = Some(self.proto);
        expected.family = Some(self.family);
        expected.netns = Some(self.netns);
        fill(&mut expected);
        state.events.push(expected);
    }

    fn local(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// Address and port it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.local()
            .expect("only asked of sockets that have an address")
    }

    pub fn port(&self) -> u16 {
        self.address().port()
    }

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

    /// bind(2) or connect(2) as they are.
    fn call(
        &self,
        call: unsafe extern "C" fn(RawFd, *const libc::sockaddr, libc::socklen_t) -> libc::c_int,
        bytes: &[u8],
        length: usize,
    ) -> io::Result<()> {
        let length = libc::socklen_t::try_from(length).map_err(io::Error::other)?;
        // SAFETY: the kernel reads what is there, and says so where nothing is.
        match unsafe { call(self.as_raw_fd(), bytes.as_ptr().cast(), length) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
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

    /// Dissolves the association of a udp socket, which gives back a port that it did not bind.
    pub fn dissolve(&self) -> io::Result<()> {
        let before = self.local();
        self.call(libc::connect, &NOBODY, NOBODY.len())?;
        let state = &mut lock(&self.state);
        state.peer = None;
        state.local = None;
        if !state.explicit {
            state.life = Life::Unbound;
            state.local = before.map(|before| SocketAddr::new(self.wildcard(), before.port()));
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

    /// Waits for the outcome of a non-blocking connect.
    pub fn outcome(&self) -> io::Result<()> {
        let mut poll_fd = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
        let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        if poll(&mut poll_fd, timeout)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let error = self.socket.take_error()?;
        let until = now();
        let state = &mut lock(&self.state);
        let Some((called, address)) = state.pending.take() else {
            return Err(io::Error::other("no connect is under way"));
        };
        self.connected(state, (called.0, until), address, error.as_ref());
        error.map_or(Ok(()), Err)
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
    fn bound_implicitly(&self, state: &mut State, at: Span) {
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
        self.note(state, Kind::Bind, |expected| {
            expected.laddr = Some(self.wildcard());
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

    pub fn accept(&self) -> io::Result<Sock> {
        self.accept_with(|| {
            let (socket, address) = self.socket.accept()?;
            let peer = address
                .as_socket()
                .ok_or_else(|| io::Error::other("not an internet address"))?;
            Ok((OwnedFd::from(socket), peer))
        })
    }

    /// Like [`Sock::accept`], by another way than accept(2), which gives fd and peer.
    pub fn accept_with(
        &self,
        call: impl FnOnce() -> io::Result<(OwnedFd, SocketAddr)>,
    ) -> io::Result<Sock> {
        let (at, result) = span(call);
        let (fd, peer) = result?;
        let listening = {
            let state = &mut lock(&self.state);
            state.accepted += 1;
            state.since
        };
        let child = Self::around(Socket::from(fd), self.proto, self.family)?;
        let local = child.local();
        {
            let state = &mut lock(&child.state);
            child.note(state, Kind::Accept, |expected| {
                expected.laddr = local.map(|local| shown(local.ip()));
                // not from the child: one that was reset in the queue has lost its port
                expected.lport = self.local().map(|local| local.port());
                expected.raddr = Some(shown(peer.ip()));
                expected.rport = Some(peer.port());
                expected.at = Some(at);
                // by fast open it may be taken before the handshake that starts the wait is over
                expected.elapsed_us =
                    (!self.opens_fast()).then(|| (0, elapsed_us(listening, at).1));
            });
            state.life = Life::Connected;
            state.reset_in_queue = child.is_over();
            // established at some time since the listener was there, accepted by now; by fast
            // open perhaps later
            let latest = if self.opens_fast() { u64::MAX } else { at.1 };
            state.since = (listening.0, latest);
            state.peer = Some(peer);
            state.local = self
                .local()
                .zip(local)
                .map(|(listener, local)| SocketAddr::new(local.ip(), listener.port()));
        }
        Ok(child)
    }

    fn opens_fast(&self) -> bool {
        let mut queue: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel writes one int.
        let asked = unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_FASTOPEN,
                (&raw mut queue).cast(),
                &mut length,
            )
        };
        asked == 0 && queue > 0
    }

    /// Whether the connection has ended already.
    fn is_over(&self) -> bool {
        const TCP_CLOSE: u8 = 7;
        tcp_info(self).is_ok_and(|info| info.tcpi_state == TCP_CLOSE)
    }

    /// What was accepted without a syscall counts only where a function tells the listener: on
    /// kernels without `__inet_accept` the syscall's descriptor has to.
    pub fn accepts_without_syscall(&self) {
        let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        lock(&self.state).uncounted = !symbols.contains(" __inet_accept\n");
    }

    /// Connections that other processes accepted from this listener.
    pub fn also_accepted(&self, count: u64) {
        lock(&self.state).accepted += count;
    }

    /// Sends `count` bytes.
    pub fn send(&self, count: usize) -> io::Result<()> {
        let block = [0x5a; 65536];
        let mut left = count;
        while left > 0 {
            let sent = (&*self.socket).write(&block[..left.min(block.len())])?;
            left -= sent;
            lock(&self.state).sent += sent as u64;
        }
        Ok(())
    }

    /// Bytes that came and went by another way than this value's methods.
    pub fn also_moved(&self, received: u64, sent: u64) {
        let state = &mut lock(&self.state);
        state.received += received;
        state.sent += sent;
    }

    /// Sends one datagram.
    pub fn send_to(&self, address: SocketAddr) -> io::Result<()> {
        let (at, result) = span(|| self.socket.send_to(b"portwatch", &SockAddr::from(address)));
        self.bound_implicitly(&mut lock(&self.state), at);
        result.map(drop)
    }

    /// Reads exactly `count` bytes.
    pub fn receive(&self, count: usize) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            match self.read(left)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => left -= got,
            }
        }
        Ok(())
    }

    /// Reads until the peer has finished or reset the connection; whether it was a reset.
    pub fn drain(&self) -> io::Result<bool> {
        loop {
            match self.read(65536) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&self, most: usize) -> io::Result<usize> {
        let mut block = [0; 65536];
        let most = most.min(block.len());
        let result = (&*self.socket).read(&mut block[..most]);
        let state = &mut lock(&self.state);
        match &result {
            Ok(0) => {
                state.ended_by.get_or_insert(Cause::Remote);
            }
            Ok(got) => state.received += *got as u64,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                state.reset_received = true;
            }
            Err(_) => {}
        }
        result
    }

    /// Sends FIN, but goes on receiving.
    pub fn finish(&self) -> io::Result<()> {
        let before = now();
        self.socket.shutdown(std::net::Shutdown::Write)?;
        let state = &mut lock(&self.state);
        state.ended_by.get_or_insert(Cause::Local);
        state.finished = Some(before);
        Ok(())
    }

    /// Makes the close a reset.
    pub fn reset_on_close(&self) -> io::Result<()> {
        self.socket.set_linger(Some(Duration::ZERO))?;
        lock(&self.state).will_reset = true;
        Ok(())
    }

    /// For a close that resets because of unread bytes, of which there are `count`.
    pub fn resets_with_unread(&self, count: u64) {
        let state = &mut lock(&self.state);
        state.will_reset = true;
        state.received += count;
    }

    /// The kernel's number for this socket. Asked as late as possible, because asking makes it.
    pub fn cookie(&self) -> Option<u64> {
        self.socket.cookie().ok()
    }

    /// Gives the fd away: the end of the socket is somebody else's to tell, what was is still told here.
    pub fn disown(&self) {
        lock(&self.state).disowned = true;
    }

    /// For a socket that was there before the trace and will be there after it.
    pub fn unseen(&self) {
        self.disown();
        lock(&self.state).events.clear();
    }

    fn tell(&self) {
        let cookie = self.cookie();
        let state = &mut lock(&self.state);
        for mut expected in std::mem::take(&mut state.events) {
            expected.sock = cookie;
            tell(Record::Expected(expected));
        }
    }

    /// For a process that ends without closing it: tells what happened, and the close to come.
    pub fn abandon(self) {
        self.expect_close(&mut lock(&self.state));
        self.tell();
        std::mem::forget(self);
    }

    /// For a call that a thread of the kernel makes on behalf of the process.
    pub fn by_kernel_thread(&self) {
        if let Some(expected) = lock(&self.state).events.last_mut() {
            expected.tid = None;
        }
    }

    fn expect_close(&self, state: &mut State) {
        if let Some((called, address)) = state.pending.take() {
            self.note(state, Kind::Connect, |expected| {
                expected.raddr = Some(shown(address.ip()));
                expected.rport = Some(address.port());
                expected.at = Some((called.0, u64::MAX));
                expected.error = Some("ECANCELED".to_owned());
            });
        }
        let (life, since) = (state.life, state.since);
        if matches!(life, Life::Fresh | Life::Over) {
            return;
        }
        let connection = life == Life::Connected;
        let tcp = self.proto == Proto::Tcp;
        let was_reset = connection && tcp && (state.reset_received || state.will_reset);
        if was_reset {
            let cause = if state.reset_received {
                Cause::Received
            } else {
                Cause::Sent
            };
            let optional = state.reset_in_queue;
            self.note(state, Kind::Reset, |expected| {
                expected.cause = Some(cause);
                expected.optional = optional;
            });
        }
        let cause = match was_reset {
            true => Cause::Reset,
            false => state.ended_by.unwrap_or(Cause::Local),
        };
        let over = state.finished.unwrap_or_else(now);
        let local = state.local.or_else(|| self.local());
        let peer = state.peer;
        let (received, sent, accepted) = (state.received, state.sent, state.accepted);
        let uncounted = state.uncounted;
        self.note(state, Kind::Close, |expected| {
            expected.laddr = local.map(|local| shown(local.ip()));
            expected.lport = local.map(|local| local.port());
            expected.raddr = peer.map(|peer| shown(peer.ip()));
            expected.rport = peer.map(|peer| peer.port());
            // a reset ends the socket before its close
            let earliest = if was_reset { since.1 } else { over };
            expected.elapsed_us = Some((elapsed_us(since, (earliest, 0)).0, u64::MAX));
            if connection && tcp {
                expected.cause = Some(cause);
                expected.rx_bytes = Some(received);
                expected.tx_bytes = Some(sent);
                expected.measured = true;
            }
            expected.unconnected = !connection && peer.is_none();
            if life == Life::Listening && !uncounted {
                expected.accepted = Some(accepted);
            }
            // the acting thread of an end may be anyone's
            expected.tid = None;
        });
        state.life = Life::Over;
    }
}

impl AsFd for Sock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Sock {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Sock {
    fn drop(&mut self) {
        {
            let state = &mut lock(&self.state);
            if !state.disowned {
                self.expect_close(state);
            }
        }
        self.tell();
        // SAFETY: nothing uses the socket after this, and it is dropped only here.
        unsafe { ManuallyDrop::drop(&mut self.socket) };
    }
}
