//! One outcome per attempt to connect, whatever it is.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::harness::event::{Family, Kind, Proto};
use crate::harness::meeting::{Mailbox, mailboxes};
use crate::harness::process::spawn;
use crate::harness::socket::{Sock, error_name, tcp_info};
use crate::harness::stage::Stage;

crate::scenarios! {
    every_connection_at_full_speed_is_reported_with_both_owners,
    an_accept_blocked_before_the_start_is_reported,
    a_connection_queued_before_the_start_is_told_accepted_first_or_not_at_all,
    each_refused_connect_has_one_outcome,
    each_refused_non_blocking_connect_has_one_outcome,
    a_connect_to_an_unreachable_network_is_reported,
    a_connect_to_port_0_is_reported_with_its_address,
    a_connect_closed_before_its_outcome_is_reported_as_cancelled,
    a_connect_given_up_by_another_call_is_reported_as_cancelled_then,
    a_connect_under_way_is_announced_once_after_a_second,
    a_connect_begun_before_the_start_is_announced,
    a_connect_that_times_out_is_reported,
    a_non_blocking_connect_that_succeeds_is_reported_once,
    a_bound_socket_whose_connect_was_refused_ends_without_a_peer,
    what_is_left_of_a_failed_connect_is_not_the_listeners,
}

pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// Any address of this machine, of either family.
fn any(family: Family) -> SocketAddr {
    SocketAddr::new(
        match family {
            Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        },
        0,
    )
}

/// Its loopback address.
pub fn local(family: Family, port: u16) -> SocketAddr {
    match family {
        Family::Ipv4 => loopback(port),
        Family::Ipv6 => (Ipv6Addr::LOCALHOST, port).into(),
    }
}

/// # Errors
/// When the call did not fail in this way.
pub fn fails_with<T>(result: io::Result<T>, name: &str) -> Result<()> {
    match result {
        Ok(_) => anyhow::bail!("succeeded where {name} was due"),
        Err(error) => {
            ensure!(error_name(&error) == name, "{error} where {name} was due");
            Ok(())
        }
    }
}

/// So many connections are open at a time: fewer than the accept queue has room for, since a SYN that
/// finds it full is sent again after a second, and then `EINPROGRESS` is rightly announced.
const STRIDE: usize = 100;

fn every_connection_at_full_speed_is_reported_with_both_owners(stage: &mut Stage) -> Result<()> {
    let count = stage.scaled(100_000, 10_000);
    let netns = stage.netns()?;
    let [address, progress] = mailboxes()?;
    let events = stage.exact(|stage| {
        stage.spawn_in(&netns, "server", || {
            let listener = Sock::tcp4()?;
            listener.bind(loopback(0))?;
            listener.listen(4096)?;
            address.put_address(listener.address())?;
            for _ in 0..count / STRIDE {
                let accepted: Vec<Sock> = (0..STRIDE)
                    .map(|_| listener.accept())
                    .collect::<io::Result<_>>()?;
                progress.put("accepted")?;
                for connection in accepted {
                    ensure!(connection.drain()?, "the client did not reset");
                }
            }
            Ok(())
        })?;
        stage.spawn_in(&netns, "client", || {
            let address = address.take_address()?;
            for _ in 0..count / STRIDE {
                let mut clients = Vec::with_capacity(STRIDE);
                for _ in 0..STRIDE {
                    let client = Sock::tcp4()?;
                    client.connect(address)?;
                    clients.push(client);
                }
                // A reset that overtakes the handshake, on another CPU, leaves nothing to accept.
                progress.take()?;
                for client in clients {
                    client.reset_on_close()?;
                }
            }
            Ok(())
        })?;
        Ok(())
    })?;
    let number = |kind| events.iter().filter(|event| event.event == kind).count();
    ensure!(number(Kind::Connect) == count, "connects");
    ensure!(number(Kind::Accept) == count, "accepts");
    ensure!(number(Kind::Close) == 2 * count + 1, "closes");
    Ok(())
}

fn an_accept_blocked_before_the_start_is_reported(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let (address, end) = (Mailbox::new()?, Mailbox::new()?);
    stage.spawn_in(&netns, "server", || {
        let listener = Sock::tcp4()?;
        listener.bind(loopback(0))?;
        listener.listen(1)?;
        address.put_address(listener.address())?;
        listener.accept()?.drain()?;
        listener.unseen();
        end.take()?;
        Ok(())
    })?;
    let address = address.take_address()?;
    // the server has to be inside accept when the probes are attached
    sleep(stage.scaled(Duration::from_millis(100), Duration::from_millis(500)));
    let tracer = stage.trace(&["--require-complete"])?;
    spawn("client", || {
        netns.enter()?;
        let client = Sock::tcp4()?;
        client.connect(address)?;
        client.send(1)?;
        Ok(())
    })?
    .join()?;
    sleep(stage.scaled(Duration::from_millis(100), Duration::from_millis(500)));
    let run = tracer.stop()?;
    end.put("end")?;
    stage.join()?;
    stage.judge(&run)?;
    Ok(())
}

fn a_connection_queued_before_the_start_is_told_accepted_first_or_not_at_all(
    stage: &mut Stage,
) -> Result<()> {
    let netns = stage.netns()?;
    let (queued, traced) = (Mailbox::new()?, Mailbox::new()?);
    let server = stage.spawn_in(&netns, "server", || {
        let listeners = [Sock::tcp4()?, Sock::tcp4()?];
        let mut clients = Vec::new();
        for listener in &listeners {
            listener.bind(loopback(0))?;
            listener.listen(1)?;
            let client = Sock::tcp4()?;
            client.connect(listener.address())?;
            client.reset_on_close()?;
            clients.push(client);
        }
        queued.put("queued")?;
        traced.take()?;
        drop(clients);
        // The other one is nobody's.
        drop(listeners[0].accept()?);
        Ok(())
    })?;
    queued.take()?;
    let tracer = stage.trace(&["--require-complete"])?;
    traced.put("traced")?;
    stage.join()?;
    let run = tracer.stop()?;
    run.expect_complete()?;
    let mut events = run.events()?;
    events.retain(|event| event.netns == Some(netns.inode()));
    let accepted = events.iter().position(|event| event.event == Kind::Accept);
    let accepted = &events[accepted.context("no accept")?];
    let told: Vec<(Kind, Option<u32>)> = (events.iter())
        .filter(|event| event.sock == accepted.sock)
        .map(|event| (event.event, event.pid))
        .collect();
    let expected = [Kind::Accept, Kind::Reset, Kind::Close].map(|kind| (kind, Some(server)));
    ensure!(told == expected, "{told:?}");
    // two listeners, two clients, and the one that was accepted
    let closes = events.iter().filter(|event| event.event == Kind::Close);
    ensure!(closes.count() == 5, "{events:?}");
    Ok(())
}

/// A port on which nobody listens: bound, so that nobody else gets it.
fn closed_port() -> Result<Sock> {
    let holder = Sock::tcp4()?;
    holder.bind(loopback(0))?;
    Ok(holder)
}

fn each_refused_connect_has_one_outcome(stage: &mut Stage) -> Result<()> {
    let events = stage.exact(|stage| {
        stage.spawn("refused", || {
            let holder = closed_port()?;
            for _ in 0..1200 {
                fails_with(Sock::tcp4()?.connect(holder.address()), "ECONNREFUSED")?;
            }
            Ok(())
        })?;
        Ok(())
    })?;
    ensure!(events.len() == 1202, "{} events", events.len());
    Ok(())
}

fn each_refused_non_blocking_connect_has_one_outcome(stage: &mut Stage) -> Result<()> {
    let events = stage.exact(|stage| {
        stage.spawn("refused", || {
            let holder = closed_port()?;
            for _ in 0..1200 {
                let socket = Sock::tcp4()?;
                socket.raw().set_nonblocking(true)?;
                match socket.connect(holder.address()) {
                    Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                        fails_with(socket.outcome(), "ECONNREFUSED")?;
                    }
                    // loopback may be fast enough to refuse within the call
                    other => fails_with(other, "ECONNREFUSED")?,
                }
            }
            Ok(())
        })?;
        Ok(())
    })?;
    ensure!(events.len() == 1202, "{} events", events.len());
    Ok(())
}

fn a_connect_to_an_unreachable_network_is_reported(stage: &mut Stage) -> Result<()> {
    // a namespace with nothing but a loopback: no packet can leave
    stage.exact_of("unreachable", || {
        let v4 = "203.0.113.1:9".parse()?;
        let v6 = "[2001:db8::1]:9".parse()?;
        fails_with(Sock::tcp4()?.connect(v4), "ENETUNREACH")?;
        fails_with(Sock::tcp6()?.connect(v6), "ENETUNREACH")?;
        fails_with(Sock::udp4()?.connect(v4), "ENETUNREACH")?;
        fails_with(Sock::udp6()?.connect(v6), "ENETUNREACH")?;
        let socket = Sock::tcp4()?;
        socket.raw().set_nonblocking(true)?;
        fails_with(socket.connect(v4), "ENETUNREACH")
    })?;
    Ok(())
}

fn a_connect_to_port_0_is_reported_with_its_address(stage: &mut Stage) -> Result<()> {
    let events = stage.exact_of("unset", || {
        for family in FAMILIES {
            let socket = Sock::open(Proto::Tcp, family)?;
            fails_with(socket.connect(local(family, 0)), "ECONNREFUSED")?;
            Sock::open(Proto::Udp, family)?.connect(local(family, 0))?;
        }
        Ok(())
    })?;
    for event in events.iter().filter(|x| x.event == Kind::Connect) {
        let peer = (event.raddr.map(|x| x.is_loopback()), event.rport);
        ensure!(peer == (Some(true), Some(0)), "{event:?}");
    }
    Ok(())
}

/// A listener whose queue is full, so that it answers no further SYN, with what fills it.
pub fn full_listener() -> Result<(Sock, Vec<Sock>)> {
    let listener = Sock::tcp4()?;
    listener.bind(loopback(0))?;
    listener.listen(0)?;
    let filler = Sock::tcp4()?;
    filler.connect(listener.address())?;
    // Of a listener this is the length of its queue, in which the end of the handshake puts the filler.
    while tcp_info(&listener)?.tcpi_unacked == 0 {
        sleep(Duration::from_millis(1));
    }
    Ok((listener, vec![filler]))
}

/// Accepts what fills its queue, and ends that.
pub fn empty(listener: &Sock, fillers: Vec<Sock>) -> Result<()> {
    for filler in fillers {
        let accepted = listener.accept()?;
        filler.finish()?;
        accepted.drain()?;
    }
    Ok(())
}

fn attempt(listener: &Sock) -> Result<Sock> {
    let socket = Sock::tcp4()?;
    socket.raw().set_nonblocking(true)?;
    fails_with(socket.connect(listener.address()), "EINPROGRESS")?;
    Ok(socket)
}

fn a_connect_closed_before_its_outcome_is_reported_as_cancelled(stage: &mut Stage) -> Result<()> {
    stage.exact_of("impatient", || {
        let (listener, fillers) = full_listener()?;
        for _ in 0..10 {
            drop(attempt(&listener)?);
        }
        empty(&listener, fillers)
    })?;
    Ok(())
}

fn a_connect_given_up_by_another_call_is_reported_as_cancelled_then(
    stage: &mut Stage,
) -> Result<()> {
    stage.exact_of("changeable", || {
        let (listener, fillers) = full_listener()?;
        for give_up in [Sock::give_up, Sock::give_up_by_shutdown] {
            let socket = attempt(&listener)?;
            give_up(&socket)?;
            // What it does next has nothing of that.
            fails_with(socket.connect("203.0.113.1:9".parse()?), "ENETUNREACH")?;
            fails_with(socket.connect(listener.address()), "EINPROGRESS")?;
            give_up(&socket)?;
            socket.bind(loopback(0))?;
            socket.listen(1)?;
        }
        empty(&listener, fillers)
    })?;
    Ok(())
}

fn a_connect_under_way_is_announced_once_after_a_second(stage: &mut Stage) -> Result<()> {
    stage.exact_of("patient", || {
        let (listener, fillers) = full_listener()?;
        let succeeds = attempt(&listener)?;
        let cancelled = attempt(&listener)?;
        sleep(Duration::from_millis(2500));
        succeeds.announced();
        cancelled.announced();
        drop(cancelled);
        empty(&listener, fillers)?;
        // the kernel sends its SYN again after 1, 2, 4 seconds, and now there is room
        succeeds.outcome()?;
        let accepted = listener.accept()?;
        succeeds.finish()?;
        accepted.drain()?;
        drop(accepted);
        Ok(())
    })?;
    Ok(())
}

fn a_connect_begun_before_the_start_is_announced(stage: &mut Stage) -> Result<()> {
    for what in ["sockets open at the start", "slow connects"] {
        stage.require_observed(what)?;
    }
    let netns = stage.netns()?;
    let (begun, told) = (Mailbox::new()?, Mailbox::new()?);
    let client = stage.spawn_in(&netns, "patient", || {
        // Of this namespace only: its SYN is sent again for as long as portwatch takes to start, and every
        // second where the kernel can do that.
        std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "60")?;
        let _ = std::fs::write("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", "60");
        let (listener, _fillers) = full_listener()?;
        let _socket = attempt(&listener)?;
        begun.put("begun")?;
        told.take()?;
        Ok(())
    })?;
    begun.take()?;
    let namespace = netns.inode().to_string();
    // Ends with the announcement.
    let tracer = stage.trace(&["--netns", &namespace, "-e", "connect", "-c", "1"])?;
    let run = tracer.wait()?;
    told.put("told")?;
    stage.join()?;
    let events = run.events()?;
    let [event] = &events[..] else {
        bail!("{events:?}");
    };
    let (error, whose) = (event.error.as_deref(), event.pid);
    ensure!(
        (error, whose, event.latency_us) == (Some("EINPROGRESS"), Some(client), None),
        "{event:?}"
    );
    Ok(())
}

fn a_connect_that_times_out_is_reported(stage: &mut Stage) -> Result<()> {
    stage.exact_of("timing-out", || {
        // of this namespace only: the kernel gives up after about 3 seconds
        std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1")?;
        let (listener, fillers) = full_listener()?;
        let socket = attempt(&listener)?;
        sleep(Duration::from_millis(2000));
        socket.announced();
        fails_with(socket.outcome(), "ETIMEDOUT")?;
        empty(&listener, fillers)
    })?;
    Ok(())
}

fn a_non_blocking_connect_that_succeeds_is_reported_once(stage: &mut Stage) -> Result<()> {
    stage.exact_of("nonblocking", || {
        let listener = Sock::tcp4()?;
        listener.bind(loopback(0))?;
        listener.listen(8)?;
        for _ in 0..100 {
            let client = attempt(&listener)?;
            client.outcome()?;
            let accepted = listener.accept()?;
            client.finish()?;
            accepted.drain()?;
        }
        Ok(())
    })?;
    Ok(())
}

fn what_is_left_of_a_failed_connect_is_not_the_listeners(stage: &mut Stage) -> Result<()> {
    let events = stage.exact_of("second_try", || {
        for family in FAMILIES {
            for (bound, blocking) in [(false, true), (true, true), (false, false), (true, false)] {
                let socket = Sock::open(Proto::Tcp, family)?;
                if bound {
                    socket.bind(any(family))?;
                }
                socket.raw().set_nonblocking(!blocking)?;
                match socket.connect(local(family, 1)) {
                    Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                        socket.refused_unnoticed()?;
                    }
                    other => fails_with(other, "ECONNREFUSED")?,
                }
                if blocking {
                    socket.listen(1)?;
                }
            }
        }
        Ok(())
    })?;
    for event in events.iter().filter(|x| x.event != Kind::Connect) {
        ensure!(event.raddr.is_none(), "{event:?}");
    }
    Ok(())
}

fn a_bound_socket_whose_connect_was_refused_ends_without_a_peer(stage: &mut Stage) -> Result<()> {
    stage.exact_of("refused", || {
        let socket = Sock::tcp4()?;
        socket.bind(loopback(0))?;
        fails_with(socket.connect(loopback(1)), "ECONNREFUSED")
    })?;
    Ok(())
}
