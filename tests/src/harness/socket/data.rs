//! Sending and receiving.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use socket2::SockAddr;

use super::{Sock, span};
use crate::harness::event::Cause;
use crate::harness::truth::lock;

impl Sock {
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
}
