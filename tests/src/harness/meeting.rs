//! Where processes of a scenario wait for each other and tell each other ports and addresses.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, UnixAddr, recv, recvmsg, sendmsg,
};

/// A mailbox made before the fork: every process may put messages in and take them out.
#[derive(Debug)]
pub struct Mailbox {
    sender: UnixDatagram,
    receiver: UnixDatagram,
}

/// As many as the caller takes.
pub fn mailboxes<const N: usize>() -> Result<[Mailbox; N]> {
    let made: Vec<Mailbox> = (0..N).map(|_| Mailbox::new()).collect::<Result<_>>()?;
    made.try_into()
        .map_err(|_| anyhow::anyhow!("another number of mailboxes"))
}

impl Mailbox {
    pub fn new() -> Result<Self> {
        let (sender, receiver) = UnixDatagram::pair().context("socketpair")?;
        receiver.set_read_timeout(Some(Duration::from_secs(240)))?;
        Ok(Self { sender, receiver })
    }

    pub fn put(&self, text: &str) -> Result<()> {
        self.sender.send(text.as_bytes()).context("mailbox")?;
        Ok(())
    }

    pub fn take(&self) -> Result<String> {
        let mut buffer = [0; 256];
        let length = self
            .receiver
            .recv(&mut buffer)
            .context("waiting for another process of the scenario")?;
        Ok(String::from_utf8(buffer[..length].to_vec())?)
    }

    /// A message, if one is there already.
    pub fn try_take(&self) -> Result<Option<String>> {
        let mut buffer = [0; 256];
        let flags = MsgFlags::MSG_DONTWAIT;
        match recv(self.receiver.as_raw_fd(), &mut buffer, flags) {
            Ok(length) => Ok(Some(String::from_utf8(buffer[..length].to_vec())?)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub fn put_address(&self, address: SocketAddr) -> Result<()> {
        self.put(&address.to_string())
    }

    pub fn take_address(&self) -> Result<SocketAddr> {
        Ok(self.take()?.parse()?)
    }

    /// Hands a copy of an open file over to whoever takes it.
    pub fn put_fd(&self, fd: RawFd) -> Result<()> {
        let message = [IoSlice::new(b"fd")];
        let rights = [fd];
        let control = [ControlMessage::ScmRights(&rights)];
        let to = self.sender.as_raw_fd();
        sendmsg::<UnixAddr>(to, &message, &control, MsgFlags::empty(), None)?;
        Ok(())
    }

    pub fn take_fd(&self) -> Result<OwnedFd> {
        let mut bytes = [0; 8];
        let mut message = [IoSliceMut::new(&mut bytes)];
        let mut control = nix::cmsg_space!([RawFd; 1]);
        let from = self.receiver.as_raw_fd();
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let got: RecvMsg<UnixAddr> = recvmsg(from, &mut message, Some(&mut control), flags)?;
        let fd = got.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        // SAFETY: the kernel has just made it for this process, and nobody else knows it.
        fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
            .context("the message brought no fd")
    }
}
