//! The benchmark's load for `list`: one process with many listening sockets.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Opens `count` listeners on loopback, prints `ready` and keeps them until stdin ends.
pub fn listeners(count: usize) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let open = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let _open: Vec<TcpListener> = open.collect::<Result<_, _>>().context("a listener")?;
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
