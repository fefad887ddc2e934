//! A listener in another network namespace.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};

/// A process with a listener on this port of all addresses, in a network namespace of its own.
pub fn listener_elsewhere(port: u16) -> Elsewhere {
    let mut command = Command::new("sleep");
    command
        .arg("600")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let listen = move || {
        // SAFETY: the child has one thread, and nothing here touches its memory.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())?;
        socket.listen(1)?;
        socket.set_cloexec(false)?;
        // open until the process ends
        std::mem::forget(socket);
        Ok(())
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { command.pre_exec(listen) };
    Elsewhere(command.spawn().unwrap())
}

/// Ends with the test, however that ends.
pub struct Elsewhere(pub Child);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
