//! What io_uring does for a process belongs to the process, not to the kernel's thread.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use io_uring::opcode;

use super::connecting::{fails_with, loopback};
use crate::harness::event::Kind;
use crate::harness::ring::Ring;
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;

crate::scenarios! {
    a_connect_and_an_accept_by_io_uring_are_reported,
    a_connect_and_an_accept_by_io_uring_with_sqpoll_are_reported,
    a_bind_and_a_listen_by_io_uring_are_reported,
    a_bind_and_a_listen_by_io_uring_with_sqpoll_are_reported,
    an_accept_into_a_slot_is_not_taken_for_another_socket,
}

fn a_connect_and_an_accept_by_io_uring_are_reported(stage: &mut Stage) -> Result<()> {
    connect_and_accept(stage, false)
}

fn a_connect_and_an_accept_by_io_uring_with_sqpoll_are_reported(stage: &mut Stage) -> Result<()> {
    connect_and_accept(stage, true)
}

fn a_bind_and_a_listen_by_io_uring_are_reported(stage: &mut Stage) -> Result<()> {
    bind_and_listen(stage, false)
}

fn a_bind_and_a_listen_by_io_uring_with_sqpoll_are_reported(stage: &mut Stage) -> Result<()> {
    bind_and_listen(stage, true)
}

fn connect_and_accept(stage: &mut Stage, sqpoll: bool) -> Result<()> {
    stage.require_observed("io_uring")?;
    stage.exact_of("ringer", || {
        let mut ring = Ring::new(sqpoll)?;
        ring.require(&[
            ("connect", opcode::Connect::CODE),
            ("accept", opcode::Accept::CODE),
        ])?;
        let listener = Sock::tcp4()?;
        listener.bind(loopback(0))?;
        listener.listen(5)?;
        listener.accepts_without_syscall();
        for _ in 0..20 {
            let client = Sock::tcp4()?;
            ring.connect(&client, listener.address())?;
            let accepted = ring.accept(&listener)?;
            client.finish()?;
            accepted.drain()?;
        }
        let closed = Sock::tcp4()?;
        closed.bind(loopback(0))?;
        fails_with(
            ring.connect(&Sock::tcp4()?, closed.address()),
            "ECONNREFUSED",
        )?;
        fails_with(
            ring.connect(&Sock::tcp4()?, "203.0.113.1:9".parse()?),
            "ENETUNREACH",
        )
    })?;
    Ok(())
}

fn bind_and_listen(stage: &mut Stage, sqpoll: bool) -> Result<()> {
    stage.require_observed("io_uring")?;
    stage.exact_of("ringer", || {
        let mut ring = Ring::new(sqpoll)?;
        ring.require(&[
            ("bind", opcode::Bind::CODE),
            ("listen", opcode::Listen::CODE),
        ])?;
        let listener = Sock::tcp4()?;
        ring.bind(&listener, loopback(8080))?;
        ring.listen(&listener, 5)?;
        fails_with(ring.bind(&Sock::tcp4()?, loopback(8080)), "EADDRINUSE")?;
        let datagrams = Sock::udp6()?;
        ring.bind(&datagrams, "[::1]:5353".parse()?)?;
        Ok(())
    })?;
    Ok(())
}

/// It gives no descriptor but the number of the slot, under which the process may have any socket.
fn an_accept_into_a_slot_is_not_taken_for_another_socket(stage: &mut Stage) -> Result<()> {
    const COUNT: usize = 16;
    let netns = stage.netns()?;
    let play = || {
        let mut ring = Ring::new(false)?;
        ring.register_slots(1024)?;
        let mut clients = Vec::new();
        let listener = Sock::tcp4()?;
        listener.bind(loopback(0))?;
        listener.listen(5)?;
        for _ in 0..COUNT {
            let client = Sock::tcp4()?;
            client.connect(listener.address())?;
            clients.push(client);
            ring.accept_into_slot(&listener)?;
        }
        Ok(())
    };
    let events = stage.seen(|stage| stage.spawn_in(&netns, "ringer", play).map(drop))?;
    let ours = Some(netns.inode());
    let of = |kind| (events.iter()).filter(move |x| x.netns == ours && x.event == kind);
    let clients: HashSet<_> = of(Kind::Connect).map(|x| (x.lport, x.rport)).collect();
    ensure!(clients.len() == COUNT, "{clients:?} are not {COUNT}");
    let accepts: Vec<_> = of(Kind::Accept).map(|x| (x.rport, x.lport)).collect();
    // The last tier sees none of them.
    ensure!(
        accepts.is_empty() || accepts.len() == clients.len(),
        "{accepts:?}"
    );
    ensure!(
        accepts.iter().all(|x| clients.contains(x)),
        "{accepts:?} of {clients:?}"
    );
    Ok(())
}
