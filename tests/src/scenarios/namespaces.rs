//! Every network namespace is watched, also those made after the start.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};

use super::connecting::loopback;
use super::families::converse;
use crate::harness::event::Kind;
use crate::harness::meeting::mailboxes;
use crate::harness::netns::{cable, configure, wait_running};
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;

crate::scenarios! {
    the_same_address_in_two_namespaces_is_told_apart,
    a_connection_between_two_namespaces_is_reported_on_both_sides,
    a_namespace_made_after_the_start_is_watched,
}

fn listen_and_converse() -> Result<()> {
    let listener = Sock::tcp4()?;
    listener.bind(loopback(8080))?;
    listener.listen(5)?;
    converse(&listener, &Sock::tcp4()?, listener.address())
}

fn the_same_address_in_two_namespaces_is_told_apart(stage: &mut Stage) -> Result<()> {
    let namespaces = [stage.netns()?, stage.netns()?];
    stage.exact(|stage| {
        for netns in &namespaces {
            stage.spawn_in(netns, "twin", listen_and_converse)?;
        }
        Ok(())
    })?;
    Ok(())
}

fn a_namespace_made_after_the_start_is_watched(stage: &mut Stage) -> Result<()> {
    stage.exact(|stage| {
        let netns = stage.netns()?;
        stage.spawn_in(&netns, "late", listen_and_converse)?;
        Ok(())
    })?;
    Ok(())
}

fn a_connection_between_two_namespaces_is_reported_on_both_sides(stage: &mut Stage) -> Result<()> {
    let (here, there) = (stage.netns()?, stage.netns()?);
    let [four, six]: [[IpAddr; 2]; 2] = [
        ["192.0.2.1".parse()?, "192.0.2.2".parse()?],
        ["2001:db8::1".parse()?, "2001:db8::2".parse()?],
    ];
    let [ready, running] = mailboxes()?;
    let events = stage.exact(|stage| {
        stage.spawn_in(&here, "server", || {
            cable("link", &there)?;
            configure("link", &[(four[0], 24), (six[0], 64)])?;
            let listener = Sock::tcp6()?;
            listener.raw().set_only_v6(false)?;
            listener.bind("[::]:8080".parse()?)?;
            listener.listen(5)?;
            ready.put("ready")?;
            wait_running("link")?;
            running.put("running")?;
            for _ in 0..2 {
                let accepted = listener.accept()?;
                accepted.receive(100_000)?;
                accepted.send(50_000)?;
                accepted.drain()?;
            }
            Ok(())
        })?;
        stage.spawn_in(&there, "client", || {
            ready.take()?;
            configure("link", &[(four[1], 24), (six[1], 64)])?;
            wait_running("link")?;
            running.take()?;
            for (client, server) in [(Sock::tcp4()?, four[0]), (Sock::tcp6()?, six[0])] {
                client.connect(SocketAddr::new(server, 8080))?;
                client.send(100_000)?;
                client.receive(50_000)?;
                client.finish()?;
                client.drain()?;
            }
            Ok(())
        })?;
        Ok(())
    })?;
    let of = |kind| {
        events
            .iter()
            .find(|event| event.event == kind)
            .and_then(|x| x.netns)
    };
    ensure!(
        of(Kind::Connect) == Some(there.inode()),
        "namespace of the client"
    );
    ensure!(
        of(Kind::Accept) == Some(here.inode()),
        "namespace of the server"
    );
    Ok(())
}
