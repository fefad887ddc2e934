//! Variants of tcp that do several things where others do one.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use socket2::SockAddr;

use super::connecting::{FAMILIES, empty, fails_with, full_listener, local, loopback};
use super::families::converse;
use crate::harness::event::{Event, Family, Kind, Proto};
use crate::harness::meeting::Mailbox;
use crate::harness::process::cannot;
use crate::harness::socket::{Sock, tcp_info};
use crate::harness::stage::Stage;

crate::scenarios! {
    an_mptcp_connection_is_reported_once,
    an_mptcp_connect_that_fails_is_reported_once,
    an_mptcp_connection_that_ends_in_the_queue_is_the_clients_alone,
    an_mptcp_connect_given_up_by_close_leaves_nothing_to_the_next_socket,
    an_mptcp_connection_that_is_reset_in_the_queue_is_told_whole,
    a_fast_open_connection_is_reported_once,
    a_fast_open_that_is_refused_has_one_outcome,
    a_fast_open_to_an_unreachable_network_is_reported,
}

fn mptcp(family: Family) -> Result<Sock> {
    Sock::open(Proto::Mptcp, family)
        .map_err(|error| cannot(format!("no MPTCP in this kernel: {error}")))
}

fn an_mptcp_connection_is_reported_once(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let events = stage.exact(|stage| {
        stage.spawn_in(&netns, "multipath", || {
            let listener = mptcp(Family::Ipv4)?;
            listener.bind(loopback(8080))?;
            listener.listen(5)?;
            fails_with(mptcp(Family::Ipv4)?.bind(loopback(8080)), "EADDRINUSE")?;
            converse(&listener, &mptcp(Family::Ipv4)?, listener.address())?;
            let listener = mptcp(Family::Ipv6)?;
            listener.bind("[::1]:8080".parse()?)?;
            listener.listen(5)?;
            converse(&listener, &mptcp(Family::Ipv6)?, listener.address())
        })?;
        // the end of an MPTCP connection is dealt with by a worker of the kernel
        sleep(stage.scaled(Duration::from_millis(500), Duration::from_secs(2)));
        Ok(())
    })?;
    let number = |kind| events.iter().filter(|x| x.event == kind).count();
    ensure!(
        number(Kind::Accept) == 2,
        "{} accepts",
        number(Kind::Accept)
    );
    ensure!(number(Kind::Close) == 6, "{} closes", number(Kind::Close));
    Ok(())
}

fn an_mptcp_connect_that_fails_is_reported_once(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    stage.exact(|stage| {
        stage.spawn_in(&netns, "singlepath", || {
            for (family, closed, unreachable) in [
                (Family::Ipv4, "127.0.0.1:9", "203.0.113.1:9"),
                (Family::Ipv6, "[::1]:9", "[2001:db8::1]:9"),
            ] {
                fails_with(mptcp(family)?.connect(closed.parse()?), "ECONNREFUSED")?;
                let socket = mptcp(family)?;
                fails_with(socket.connect(unreachable.parse()?), "ENETUNREACH")?;
                let socket = mptcp(family)?;
                socket.raw().set_nonblocking(true)?;
                fails_with(socket.connect(closed.parse()?), "EINPROGRESS")?;
                fails_with(socket.outcome(), "ECONNREFUSED")?;
            }
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

fn an_mptcp_connection_that_ends_in_the_queue_is_the_clients_alone(
    stage: &mut Stage,
) -> Result<()> {
    const LATER: usize = 8;
    const HOUR_US: u64 = 3_600_000_000;
    let netns = stage.netns()?;
    let play = || {
        for family in FAMILIES {
            let listener = mptcp(family)?;
            listener.bind(local(family, 8080))?;
            listener.listen(5)?;
            let clients = [mptcp(family)?, mptcp(family)?];
            for client in &clients {
                client.connect(listener.address())?;
            }
            drop(listener);
            for client in &clients {
                client.drain()?;
            }
        }
        // Others are now where those were in the kernel's memory.
        let listener = mptcp(Family::Ipv4)?;
        listener.bind(loopback(8080))?;
        listener.listen(5)?;
        for _ in 0..LATER {
            converse(&listener, &mptcp(Family::Ipv4)?, listener.address())?;
        }
        Ok(())
    };
    let mut events = stage.seen(|stage| {
        stage.spawn_in(&netns, "multipath", play)?;
        sleep(stage.scaled(Duration::from_millis(500), Duration::from_secs(2)));
        Ok(())
    })?;
    events.retain(|x| x.netns == Some(netns.inode()));
    for (kind, due) in [
        (Kind::Connect, 4 + LATER),
        (Kind::Accept, LATER),
        (Kind::Close, 6 + 2 * LATER + 1),
        (Kind::Reset, 0),
    ] {
        let told = events.iter().filter(|x| x.event == kind).count();
        ensure!(told == due, "{told} {kind:?}");
    }
    let lasted = |x: &Event| x.duration_us.is_some_and(|us| us < HOUR_US);
    let ours = |x: &Event| {
        x.proto == Some(Proto::Mptcp) && x.pid.is_some() && (x.event != Kind::Close || lasted(x))
    };
    ensure!(events.iter().all(ours), "{events:?}");
    Ok(())
}

/// Connects by sending: the first time with a request for a cookie, then with data in the SYN.
fn send_to_open(client: &Sock, address: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    client.connect_with(address, || {
        let to = SockAddr::from(address);
        // SAFETY: bytes and address are valid for the lengths given.
        let sent = unsafe {
            libc::sendto(
                client.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_FASTOPEN,
                to.as_ptr().cast(),
                to.len(),
            )
        };
        match usize::try_from(sent) {
            Err(_) => Err(io::Error::last_os_error()),
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        }
    })?;
    client.also_moved(0, bytes.len() as u64);
    Ok(())
}

/// Whether the peer took data from the SYN.
fn was_fast(client: &Sock) -> Result<bool> {
    const TCPI_OPT_SYN_DATA: u8 = 32;
    let info = tcp_info(client)?;
    Ok(info.tcpi_options & TCPI_OPT_SYN_DATA != 0)
}

fn an_mptcp_connect_given_up_by_close_leaves_nothing_to_the_next_socket(
    stage: &mut Stage,
) -> Result<()> {
    let netns = stage.netns()?;
    stage.exact(|stage| {
        stage.spawn_in(&netns, "multipath", || {
            let (full, fillers) = full_listener()?;
            for _ in 0..5 {
                let socket = mptcp(Family::Ipv4)?;
                socket.bind(loopback(0))?;
                socket.raw().set_nonblocking(true)?;
                fails_with(socket.connect(full.address()), "EINPROGRESS")?;
                drop(socket);
                // In the kernel's memory it comes where the other one was.
                let next = mptcp(Family::Ipv4)?;
                next.listen(1)?;
            }
            empty(&full, fillers)
        })?;
        sleep(stage.scaled(Duration::from_millis(500), Duration::from_secs(2)));
        Ok(())
    })?;
    Ok(())
}

fn an_mptcp_connection_that_is_reset_in_the_queue_is_told_whole(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let mut events = stage.seen(|stage| {
        stage.spawn_in(&netns, "multipath", || {
            let listener = mptcp(Family::Ipv4)?;
            listener.bind(loopback(8080))?;
            listener.listen(5)?;
            for _ in 0..5 {
                let client = mptcp(Family::Ipv4)?;
                client.connect(listener.address())?;
                client.reset_on_close()?;
            }
            // A worker of the kernel deals with resets.
            sleep(Duration::from_millis(200));
            for _ in 0..5 {
                listener.accept()?;
            }
            Ok(())
        })?;
        sleep(stage.scaled(Duration::from_millis(500), Duration::from_secs(2)));
        Ok(())
    })?;
    events.retain(|x| x.netns == Some(netns.inode()));
    let of_server = |x: &&Event| x.lport == Some(8080) && x.event != Kind::Bind;
    for kind in [Kind::Accept, Kind::Close] {
        let told: Vec<&Event> = (events.iter())
            .filter(of_server)
            .filter(|x| x.event == kind && x.rport.is_some_and(|port| port != 0))
            .collect();
        ensure!(told.len() == 5, "{kind:?}: {events:?}");
        let whole = |x: &&Event| x.raddr.is_some() && x.latency_us.or(x.duration_us).is_some();
        ensure!(told.iter().all(whole), "{kind:?}: {told:?}");
    }
    Ok(())
}

fn a_fast_open_connection_is_reported_once(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let address = Mailbox::new()?;
    // Now and then the handshake ends just while the connection is accepted.
    const ROUNDS: usize = 200;
    stage.exact(|stage| {
        stage.spawn_in(&netns, "server", || {
            // client and server: of this namespace only
            fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3")
                .map_err(|error| cannot(format!("no tcp fast open in this kernel: {error}")))?;
            let listener = Sock::tcp4()?;
            let queue: libc::c_int = 16;
            // SAFETY: the option takes a c_int, which outlives the call.
            let result = unsafe {
                libc::setsockopt(
                    listener.as_raw_fd(),
                    libc::IPPROTO_TCP,
                    libc::TCP_FASTOPEN,
                    (&raw const queue).cast(),
                    size_of_val(&queue) as libc::socklen_t,
                )
            };
            ensure!(result == 0, io::Error::last_os_error());
            listener.bind(loopback(0))?;
            listener.listen(5)?;
            address.put_address(listener.address())?;
            for _ in 0..ROUNDS {
                let accepted = listener.accept()?;
                accepted.receive(9)?;
                accepted.send(3)?;
                accepted.drain()?;
            }
            Ok(())
        })?;
        stage.spawn_in(&netns, "client", || {
            let address = address.take_address()?;
            let mut fast = 0;
            for _ in 0..ROUNDS {
                let client = Sock::tcp4()?;
                send_to_open(&client, address, b"portwatch")?;
                // the next connect of this thread is none of tcp's, and is told all the same
                let datagrams = Sock::udp4()?;
                datagrams.bind(loopback(0))?;
                datagrams.connect(loopback(9))?;
                client.receive(3)?;
                fast += usize::from(was_fast(&client)?);
            }
            ensure!(
                fast == ROUNDS - 1,
                "only {fast} connections were opened fast"
            );
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

fn a_fast_open_that_is_refused_has_one_outcome(stage: &mut Stage) -> Result<()> {
    stage.exact_of("refused", || {
        let closed = loopback(9);
        fails_with(send_to_open(&Sock::tcp4()?, closed, b"x"), "ECONNREFUSED")?;
        let closed = "[::1]:9".parse()?;
        fails_with(send_to_open(&Sock::tcp6()?, closed, b"x"), "ECONNREFUSED")?;
        let socket = Sock::tcp4()?;
        socket.raw().set_nonblocking(true)?;
        fails_with(send_to_open(&socket, loopback(9), b"x"), "EINPROGRESS")?;
        fails_with(socket.outcome(), "ECONNREFUSED")
    })?;
    Ok(())
}

fn a_fast_open_to_an_unreachable_network_is_reported(stage: &mut Stage) -> Result<()> {
    stage.require_tier(
        |tier| tier != "tracepoint",
        "connects within sendto that send nothing",
    )?;
    stage.exact_of("unreachable", || {
        let nowhere = "203.0.113.1:9".parse()?;
        fails_with(send_to_open(&Sock::tcp4()?, nowhere, b"x"), "ENETUNREACH")?;
        let nowhere = "[2001:db8::1]:9".parse()?;
        fails_with(send_to_open(&Sock::tcp6()?, nowhere, b"x"), "ENETUNREACH")
    })?;
    Ok(())
}
