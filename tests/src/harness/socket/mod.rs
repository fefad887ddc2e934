//! A socket that keeps the truth about itself: every call on it is made for real, and what
//! portwatch has to show for it is remembered with what the call returned.

mod accept;
mod bind;
mod connect;
mod data;
mod end;

use std::io;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Mutex;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::event::{Cause, Family, Kind, Proto};
use super::truth::{Expected, Span, lock, netns, now};

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

    /// Address and port it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.local()
            .expect("only asked of sockets that have an address")
    }

    pub fn port(&self) -> u16 {
        self.address().port()
    }

    /// The kernel's number for this socket. Asked as late as possible, because asking makes it.
    pub fn cookie(&self) -> Option<u64> {
        self.socket.cookie().ok()
    }

    /// For a call that a thread of the kernel makes on behalf of the process.
    pub fn by_kernel_thread(&self) {
        if let Some(expected) = lock(&self.state).events.last_mut() {
            expected.tid = None;
        }
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
