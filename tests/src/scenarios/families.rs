//! IPv4 and IPv6 in all their mixtures.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use anyhow::{Result, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::connecting::loopback;
use crate::harness::event::{Family, Kind};
use crate::harness::meeting::mailboxes;
use crate::harness::netns::{cable, configure, link_index, wait_running};
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;

crate::scenarios! {
    an_ipv6_connection_is_reported,
    a_v4_mapped_peer_is_shown_as_ipv4_of_an_ipv6_socket,
    a_dual_stack_listener_accepts_both_families,
    a_link_local_connection_is_reported,
    a_raw_socket_is_not_taken_for_one_of_its_protocol,
}

/// A connection made and ended inside one process.
pub fn converse(listener: &Sock, client: &Sock, to: SocketAddr) -> Result<()> {
    client.connect(to)?;
    let accepted = listener.accept()?;
    client.send(10)?;
    accepted.receive(10)?;
    accepted.send(20)?;
    client.receive(20)?;
    client.finish()?;
    accepted.drain()?;
    Ok(())
}

fn an_ipv6_connection_is_reported(stage: &mut Stage) -> Result<()> {
    stage.exact_of("six", || {
        let listener = Sock::tcp6()?;
        listener.bind("[::1]:0".parse()?)?;
        listener.listen(5)?;
        converse(&listener, &Sock::tcp6()?, listener.address())
    })?;
    Ok(())
}

fn a_v4_mapped_peer_is_shown_as_ipv4_of_an_ipv6_socket(stage: &mut Stage) -> Result<()> {
    let events = stage.exact_of("mapped", || {
        let listener = Sock::tcp4()?;
        listener.bind(loopback(0))?;
        listener.listen(5)?;
        let mapped = format!("[::ffff:127.0.0.1]:{}", listener.port());
        let client = Sock::tcp6()?;
        client.raw().set_only_v6(false)?;
        converse(&listener, &client, mapped.parse()?)?;
        let bound = Sock::tcp6()?;
        bound.raw().set_only_v6(false)?;
        bound.bind("[::ffff:127.0.0.1]:0".parse()?)?;
        Ok(())
    })?;
    let mapped = |event: &&crate::harness::event::Event| {
        event.event == Kind::Connect
            && event.family == Some(Family::Ipv6)
            && event.raddr.is_some_and(|address| address.is_ipv4())
    };
    ensure!(
        events.iter().filter(mapped).count() == 1,
        "no v4-mapped connect"
    );
    Ok(())
}

fn a_dual_stack_listener_accepts_both_families(stage: &mut Stage) -> Result<()> {
    stage.exact_of("dual", || {
        let listener = Sock::tcp6()?;
        listener.raw().set_only_v6(false)?;
        listener.bind("[::]:0".parse()?)?;
        listener.listen(5)?;
        let port = listener.port();
        converse(&listener, &Sock::tcp4()?, loopback(port))?;
        converse(
            &listener,
            &Sock::tcp6()?,
            (Ipv6Addr::LOCALHOST, port).into(),
        )
    })?;
    Ok(())
}

fn a_link_local_connection_is_reported(stage: &mut Stage) -> Result<()> {
    let (here, there) = (stage.netns()?, stage.netns()?);
    let port = 8080;
    let (server, client): (Ipv6Addr, Ipv6Addr) = ("fe80::1".parse()?, "fe80::2".parse()?);
    let [ready, running] = mailboxes()?;
    stage.exact(|stage| {
        stage.spawn_in(&here, "server", || {
            cable("link", &there)?;
            configure("link", &[(server.into(), 64)])?;
            let listener = Sock::tcp6()?;
            let scope = link_index("link")?;
            listener.bind(SocketAddrV6::new(server, port, 0, scope).into())?;
            listener.listen(5)?;
            ready.put("ready")?;
            wait_running("link")?;
            running.put("running")?;
            listener.accept()?.drain()?;
            Ok(())
        })?;
        stage.spawn_in(&there, "client", || {
            ready.take()?;
            configure("link", &[(client.into(), 64)])?;
            wait_running("link")?;
            running.take()?;
            let scope = link_index("link")?;
            Sock::tcp6()?.connect(SocketAddrV6::new(server, port, 0, scope).into())?;
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

fn a_raw_socket_is_not_taken_for_one_of_its_protocol(stage: &mut Stage) -> Result<()> {
    stage.exact_of("raw", || {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            let raw = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))?;
            raw.bind(&SockAddr::from(loopback(0)))?;
            ensure!(raw.listen(1).is_err());
            raw.connect(&SockAddr::from(loopback(9)))?;
        }
        Ok(Sock::udp4()?.bind(loopback(0))?)
    })?;
    Ok(())
}
