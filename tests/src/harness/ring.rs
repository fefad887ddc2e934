//! The same calls through io_uring, where the kernel makes them for the process.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::Result;
use io_uring::types::{DestinationSlot, Fd};
use io_uring::{IoUring, Probe, opcode, squeue};
use socket2::SockAddr;

use super::process::cannot;
use super::socket::Sock;

/// One ring that does one thing at a time.
pub struct Ring {
    ring: IoUring,
    probe: Probe,
}

impl Ring {
    /// With a kernel thread that takes what is submitted, or without.
    ///
    /// # Errors
    /// "cannot" when the kernel has no io_uring, or no such thread for ordinary fds.
    pub fn new(sqpoll: bool) -> Result<Self> {
        let mut builder = IoUring::builder();
        if sqpoll {
            builder.setup_sqpoll(1000);
        }
        let ring = builder
            .build(8)
            .map_err(|error| cannot(format!("no io_uring in this kernel: {error}")))?;
        if sqpoll && !ring.params().is_feature_sqpoll_nonfixed() {
            return Err(cannot(
                "io_uring's SQPOLL takes registered files only in this kernel",
            ));
        }
        let mut probe = Probe::new();
        ring.submitter()
            .register_probe(&mut probe)
            .map_err(|error| cannot(format!("io_uring cannot be probed: {error}")))?;
        Ok(Self { ring, probe })
    }

    /// # Errors
    /// "cannot" when the kernel does not have these operations.
    pub fn require(&self, operations: &[(&str, u8)]) -> Result<()> {
        for (name, code) in operations {
            if !self.probe.is_supported(*code) {
                return Err(cannot(format!("no io_uring {name} in this kernel")));
            }
        }
        Ok(())
    }

    fn call(&mut self, entry: &squeue::Entry) -> io::Result<i32> {
        // SAFETY: what the entry points to lives until the completion, which is awaited here.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)?;
        self.ring.submit_and_wait(1)?;
        let completion = self.ring.completion().next();
        let result = completion
            .ok_or_else(|| io::Error::other("no completion"))?
            .result();
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        Ok(result)
    }

    pub fn bind(&mut self, sock: &Sock, address: SocketAddr) -> io::Result<()> {
        let to = SockAddr::from(address);
        let fd = Fd(sock.as_raw_fd());
        let entry = opcode::Bind::new(fd, to.as_ptr().cast(), to.len()).build();
        let result = sock.bind_with(address, || self.call(&entry).map(drop));
        sock.by_kernel_thread();
        result
    }

    pub fn listen(&mut self, sock: &Sock, backlog: i32) -> io::Result<()> {
        let entry = opcode::Listen::new(Fd(sock.as_raw_fd()), backlog).build();
        let result = sock.listen_with(backlog, || self.call(&entry).map(drop));
        sock.by_kernel_thread();
        result
    }

    pub fn connect(&mut self, sock: &Sock, address: SocketAddr) -> io::Result<()> {
        let to = SockAddr::from(address);
        let fd = Fd(sock.as_raw_fd());
        let entry = opcode::Connect::new(fd, to.as_ptr().cast(), to.len()).build();
        let result = sock.connect_with(address, || self.call(&entry).map(drop));
        sock.by_kernel_thread();
        result
    }

    pub fn accept(&mut self, listener: &Sock) -> Result<Sock> {
        let accepted = listener.accept_with(|| {
            // SAFETY: the kernel fills address and length before the completion, which is awaited.
            let (accepted, address) = unsafe {
                SockAddr::try_init(|address, length| {
                    let fd = Fd(listener.as_raw_fd());
                    let entry = opcode::Accept::new(fd, address.cast(), length).build();
                    let fd = self.call(&entry)?;
                    Ok(OwnedFd::from_raw_fd(fd))
                })
            }?;
            let peer = address
                .as_socket()
                .ok_or_else(|| io::Error::other("not an internet address"))?;
            Ok((accepted, peer))
        })?;
        accepted.by_kernel_thread();
        Ok(accepted)
    }

    /// Accepts into the first empty one of the registered slots: nobody gets a descriptor.
    pub fn accept_into_slot(&mut self, listener: &Sock) -> io::Result<()> {
        let none = std::ptr::null_mut();
        let entry = opcode::Accept::new(Fd(listener.as_raw_fd()), none, none.cast())
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        self.call(&entry).map(drop)
    }

    /// Makes room for files without a descriptor.
    ///
    /// # Errors
    /// "cannot" when the kernel has no slots that are empty at first.
    pub fn register_slots(&self, count: u32) -> Result<()> {
        let submitter = self.ring.submitter();
        submitter.register_files_sparse(count).map_err(|error| {
            cannot(format!(
                "no empty slots of io_uring in this kernel: {error}"
            ))
        })
    }
}
