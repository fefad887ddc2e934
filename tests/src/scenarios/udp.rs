//! Datagram sockets: explicit and implicit binds, connects, ends.

use anyhow::Result;

use super::connecting::{FAMILIES, fails_with, local};
use crate::harness::event::Family;
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;

crate::scenarios! {
    a_udp_bind_and_its_end_are_reported,
    a_udp_socket_bound_by_sending_is_reported,
    a_udp_socket_is_in_the_namespace_in_which_it_was_made,
    a_udp_socket_bound_by_connecting_is_reported,
    each_udp_connect_is_reported,
    a_udp_socket_that_gave_its_port_back_binds_anew,
    a_udp_socket_bound_by_a_call_that_fails_is_reported,
    a_udp_socket_whose_association_was_dissolved_ends_without_a_peer,
}

fn open(family: Family) -> std::io::Result<Sock> {
    match family {
        Family::Ipv4 => Sock::udp4(),
        Family::Ipv6 => Sock::udp6(),
    }
}

/// Plays the same with both families in a namespace of its own.
fn in_both(stage: &mut Stage, play: fn(Family) -> Result<()>) -> Result<()> {
    stage.exact_of("datagrams", || FAMILIES.into_iter().try_for_each(play))?;
    Ok(())
}

fn a_udp_bind_and_its_end_are_reported(stage: &mut Stage) -> Result<()> {
    in_both(stage, |family| {
        let [any, fixed] = [open(family)?, open(family)?];
        any.bind(local(family, 0))?;
        fixed.bind(local(family, 5353))?;
        any.send_to(fixed.address())?;
        let wildcard = open(family)?;
        Ok(wildcard.bind(match family {
            Family::Ipv4 => "0.0.0.0:0".parse()?,
            Family::Ipv6 => "[::]:0".parse()?,
        })?)
    })
}

fn a_udp_socket_bound_by_sending_is_reported(stage: &mut Stage) -> Result<()> {
    in_both(stage, |family| {
        let receiver = open(family)?;
        receiver.bind(local(family, 0))?;
        for _ in 0..50 {
            let sender = open(family)?;
            // only the first of them binds
            for _ in 0..3 {
                sender.send_to(receiver.address())?;
            }
        }
        Ok(())
    })
}

/// As those that proxies make for others, and go back.
fn a_udp_socket_is_in_the_namespace_in_which_it_was_made(stage: &mut Stage) -> Result<()> {
    let (here, elsewhere) = (stage.netns()?, stage.netns()?);
    stage.exact(|stage| {
        for family in FAMILIES {
            stage.spawn_in(&here, "datagrams", || {
                let socket = open(family)?;
                elsewhere.enter()?;
                Ok(socket.send_to(local(family, 9))?)
            })?;
        }
        Ok(())
    })?;
    Ok(())
}

fn a_udp_socket_bound_by_connecting_is_reported(stage: &mut Stage) -> Result<()> {
    in_both(stage, |family| {
        for port in 1000..1050 {
            open(family)?.connect(local(family, port))?;
        }
        Ok(())
    })
}

fn each_udp_connect_is_reported(stage: &mut Stage) -> Result<()> {
    in_both(stage, |family| {
        let socket = open(family)?;
        socket.bind(local(family, 0))?;
        for port in 1000..1005 {
            socket.connect(local(family, port))?;
        }
        Ok(())
    })
}

fn a_udp_socket_that_gave_its_port_back_binds_anew(stage: &mut Stage) -> Result<()> {
    in_both(stage, |family| {
        let receiver = open(family)?;
        receiver.bind(local(family, 0))?;
        let socket = open(family)?;
        for _ in 0..3 {
            socket.connect(receiver.address())?;
            socket.dissolve()?;
        }
        socket.send_to(receiver.address())?;
        // The address of a bind stays where the port does not.
        let bound = open(family)?;
        bound.bind(local(family, 0))?;
        bound.connect(receiver.address())?;
        bound.dissolve()?;
        Ok(bound.send_to(receiver.address())?)
    })
}

fn a_udp_socket_bound_by_a_call_that_fails_is_reported(stage: &mut Stage) -> Result<()> {
    // a namespace with nothing but a loopback: no packet can leave
    in_both(stage, |family| {
        let mapped = "[::ffff:203.0.113.1]:9";
        let nowhere: &[&str] = match family {
            Family::Ipv4 => &["203.0.113.1:9"],
            Family::Ipv6 => &["[2001:db8::1]:9", mapped],
        };
        for address in nowhere {
            let socket = open(family)?;
            fails_with(socket.send_to(address.parse()?), "ENETUNREACH")?;
            // bound already
            fails_with(socket.send_to(address.parse()?), "ENETUNREACH")?;
            fails_with(open(family)?.connect(address.parse()?), "ENETUNREACH")?;
        }
        // no family has this number
        fails_with(open(family)?.connect_to_bytes(&[1; 28]), "EAFNOSUPPORT")
    })
}

fn a_udp_socket_whose_association_was_dissolved_ends_without_a_peer(
    stage: &mut Stage,
) -> Result<()> {
    in_both(stage, |family| {
        let implicit = open(family)?;
        implicit.connect(local(family, 9))?;
        implicit.dissolve()?;
        let explicit = open(family)?;
        explicit.bind(local(family, 5353))?;
        explicit.connect(local(family, 9))?;
        explicit.dissolve()?;
        let wildcard = open(family)?;
        wildcard.bind(match family {
            Family::Ipv4 => "0.0.0.0:5354".parse()?,
            Family::Ipv6 => "[::]:5354".parse()?,
        })?;
        wildcard.connect(local(family, 9))?;
        Ok(wildcard.dissolve()?)
    })
}
