//! Programs for traffic that has to be exec'ed: this executable under another first argument.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::commands;

/// Lives as short as can be: binds, listens on the port that is its argument, ends.
pub const LISTENER: &str = "@listener";
/// Has children; its argument is the directory of the truth.
pub const FAMILY: &str = "@family";
/// Ends by a signal.
pub const SUICIDE: &str = "@suicide";

/// Runs the program that the arguments name, if they name one.
pub fn run(args: &[OsString]) -> Option<Result<ExitCode>> {
    let argument = || args.get(2).context("which?");
    let result = match args.get(1)?.to_str()? {
        LISTENER => argument().and_then(|port| listen(&port.to_string_lossy())),
        FAMILY => argument().and_then(|directory| commands::family(Path::new(directory))),
        SUICIDE => commands::suicide(),
        _ => return None,
    };
    Some(result.map(ExitCode::from))
}

fn listen(port: &str) -> Result<u8> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(7)?;
    Ok(0)
}
