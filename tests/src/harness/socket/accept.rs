//! Taking connections from the queue.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use socket2::Socket;

use super::{Life, Sock, elapsed_us, shown, span, tcp_info};
use crate::harness::event::Kind;
use crate::harness::truth::lock;

impl Sock {
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
}
