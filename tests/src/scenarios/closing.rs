//! How connections end: who ended them, how long they were, how much they carried.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::connecting::loopback;
use crate::harness::event::{Event, Kind};
use crate::harness::meeting::Mailbox;
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;

crate::scenarios! {
    the_bytes_of_a_connection_are_counted_exactly,
    the_side_that_finishes_first_ended_the_connection,
    a_reset_is_reported_by_who_sent_and_who_received_it,
    a_reset_for_unread_bytes_is_reported,
    a_duration_is_as_long_as_the_connection,
    a_listener_counts_what_it_accepted,
    each_connection_of_one_socket_is_closed,
    a_listener_that_was_shut_down_is_closed_once,
}

/// Plays a connection with the server and the client in processes of their own.
fn play(
    stage: &mut Stage,
    server: impl FnOnce(Sock) -> Result<()>,
    client: impl FnOnce(Sock) -> Result<()>,
) -> Result<Vec<Event>> {
    let netns = stage.netns()?;
    let address = Mailbox::new()?;
    stage.exact(|stage| {
        stage.spawn_in(&netns, "server", || {
            let listener = Sock::tcp4()?;
            listener.bind(loopback(0))?;
            listener.listen(1)?;
            address.put_address(listener.address())?;
            server(listener.accept()?)
        })?;
        stage.spawn_in(&netns, "client", || {
            let socket = Sock::tcp4()?;
            socket.connect(address.take_address()?)?;
            client(socket)
        })?;
        Ok(())
    })
}

fn the_bytes_of_a_connection_are_counted_exactly(stage: &mut Stage) -> Result<()> {
    const THERE: usize = 1_234_567;
    const BACK: usize = 7_654_321;
    let events = play(
        stage,
        |server| {
            server.receive(THERE)?;
            server.send(BACK)?;
            server.drain()?;
            Ok(())
        },
        |client| {
            client.send(THERE)?;
            client.receive(BACK)?;
            Ok(())
        },
    )?;
    let carried =
        |event: &&Event| event.event == Kind::Close && event.rx_bytes == Some(BACK as u64);
    ensure!(events.iter().any(|event| carried(&event)), "no such close");
    Ok(())
}

fn the_side_that_finishes_first_ended_the_connection(stage: &mut Stage) -> Result<()> {
    play(
        stage,
        |server| {
            server.send(10)?;
            server.finish()?;
            server.drain()?;
            Ok(())
        },
        |client| {
            client.drain()?;
            Ok(())
        },
    )?;
    Ok(())
}

fn a_reset_is_reported_by_who_sent_and_who_received_it(stage: &mut Stage) -> Result<()> {
    let events = play(
        stage,
        |server| {
            ensure!(server.drain()?, "no reset came");
            Ok(())
        },
        |client| {
            client.send(100)?;
            client.reset_on_close()?;
            // the server reads all of it before the reset
            sleep(Duration::from_millis(200));
            Ok(())
        },
    )?;
    let resets = events.iter().filter(|x| x.event == Kind::Reset).count();
    ensure!(resets == 2, "{resets} resets");
    Ok(())
}

fn a_reset_for_unread_bytes_is_reported(stage: &mut Stage) -> Result<()> {
    let go = Mailbox::new()?;
    play(
        stage,
        |server| {
            go.take()?;
            server.resets_with_unread(100);
            Ok(())
        },
        |client| {
            client.send(100)?;
            go.put("sent")?;
            ensure!(client.drain()?, "no reset came");
            Ok(())
        },
    )?;
    Ok(())
}

fn a_duration_is_as_long_as_the_connection(stage: &mut Stage) -> Result<()> {
    let events = play(
        stage,
        |server| {
            server.drain()?;
            Ok(())
        },
        |client| {
            client.send(1)?;
            sleep(Duration::from_millis(700));
            Ok(())
        },
    )?;
    for event in events.iter().filter(|x| x.event == Kind::Close) {
        let took = event.duration_us.context("a close without duration")?;
        // the upper bound leaves room for a slow machine, but not for a wrong unit or clock
        ensure!((690_000..15_000_000).contains(&took), "{took} µs for 0.7 s");
    }
    Ok(())
}

fn a_listener_counts_what_it_accepted(stage: &mut Stage) -> Result<()> {
    let events = stage.exact_of("counted", || {
        let listener = Sock::tcp4()?;
        listener.bind(loopback(0))?;
        listener.listen(5)?;
        let mut open = Vec::new();
        for _ in 0..37 {
            let client = Sock::tcp4()?;
            client.connect(listener.address())?;
            open.push((listener.accept()?, client));
        }
        for (accepted, client) in open {
            client.finish()?;
            accepted.drain()?;
        }
        Ok(())
    })?;
    ensure!(
        events.iter().any(|x| x.accepted == Some(37)),
        "no listener with 37"
    );
    Ok(())
}

fn each_connection_of_one_socket_is_closed(stage: &mut Stage) -> Result<()> {
    stage.exact_of("again", || {
        let listener = Sock::tcp4()?;
        listener.bind(loopback(0))?;
        listener.listen(1)?;
        let [fresh, bound] = [Sock::tcp4()?, Sock::tcp4()?];
        bound.bind(loopback(8080))?;
        for client in [fresh, bound] {
            for sent in [10, 20] {
                client.connect(listener.address())?;
                let accepted = listener.accept()?;
                client.send(sent)?;
                accepted.receive(sent)?;
                client.disconnect()?;
                ensure!(accepted.drain()?, "no reset came");
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn a_listener_that_was_shut_down_is_closed_once(stage: &mut Stage) -> Result<()> {
    let events = stage.exact_of("ended", || {
        for end in [Sock::shut_down, Sock::disconnect] {
            let [fresh, bound] = [Sock::tcp4()?, Sock::tcp4()?];
            bound.bind(loopback(8080))?;
            for listener in [fresh, bound] {
                listener.listen(1)?;
                end(&listener)?;
                // the same socket again: another listener
                listener.listen(2)?;
                end(&listener)?;
            }
        }
        Ok(())
    })?;
    let number = |kind| events.iter().filter(|x| x.event == kind).count();
    ensure!(number(Kind::Listen) == 8 && number(Kind::Close) == 8);
    Ok(())
}
