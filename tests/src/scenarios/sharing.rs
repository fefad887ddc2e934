//! Sockets that more than one process has to do with: each event goes to who acted.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::prctl;

use super::connecting::loopback;
use crate::harness::event::{Family, Kind, Proto};
use crate::harness::meeting::{Mailbox, mailboxes};
use crate::harness::process::{Child, join_all, spawn};
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;
use crate::harness::truth;

crate::scenarios! {
    an_accept_belongs_to_the_worker_of_a_preforked_group,
    a_socket_passed_to_another_process_keeps_its_owner,
    four_processes_on_one_port_are_told_apart,
    a_connection_outlives_the_process_that_opened_it,
    a_process_whose_parent_is_gone_is_reported_with_its_new_one,
    a_thread_acts_for_its_process,
    a_process_that_ends_without_closing_is_reported,
}

fn an_accept_belongs_to_the_worker_of_a_preforked_group(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let address = Mailbox::new()?;
    const EACH: u64 = 10;
    stage.exact(|stage| {
        stage.spawn_in(&netns, "master", || {
            let listener = Sock::tcp4()?;
            listener.bind(loopback(0))?;
            listener.listen(64)?;
            let workers = (0..4)
                .map(|number| {
                    spawn(&format!("worker{number}"), || {
                        for _ in 0..EACH {
                            listener.accept()?.drain()?;
                        }
                        Ok(())
                    })
                })
                .collect::<Result<Vec<Child>>>()?;
            address.put_address(listener.address())?;
            join_all(workers)?;
            listener.also_accepted(4 * EACH);
            Ok(())
        })?;
        stage.spawn_in(&netns, "client", || {
            let address = address.take_address()?;
            for _ in 0..4 * EACH {
                Sock::tcp4()?.connect(address)?;
            }
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

fn a_socket_passed_to_another_process_keeps_its_owner(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let [address, listeners, connections, done] = mailboxes()?;
    stage.exact(|stage| {
        use std::os::fd::AsRawFd;
        stage.spawn_in(&netns, "opener", || {
            let listener = Sock::tcp4()?;
            listener.bind(loopback(0))?;
            listener.listen(8)?;
            listeners.put_fd(listener.as_raw_fd())?;
            address.put_address(listener.address())?;
            // the accepter closes the last fd, but the listener stays this process's
            listener.also_accepted(1);
            Ok(())
        })?;
        stage.spawn_in(&netns, "accepter", || {
            let listener = Sock::received(listeners.take_fd()?, Proto::Tcp, Family::Ipv4)?;
            let accepted = listener.accept()?;
            connections.put_fd(accepted.as_raw_fd())?;
            accepted.also_moved(5, 7);
            drop(accepted);
            done.take()?;
            Ok(())
        })?;
        stage.spawn_in(&netns, "worker", || {
            let connection = Sock::received(connections.take_fd()?, Proto::Tcp, Family::Ipv4)?;
            connection.receive(5)?;
            connection.send(7)?;
            drop(connection);
            done.put("done")
        })?;
        stage.spawn_in(&netns, "client", || {
            let client = Sock::tcp4()?;
            client.connect(address.take_address()?)?;
            client.send(5)?;
            client.drain()?;
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

fn four_processes_on_one_port_are_told_apart(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let (ready, done) = (Mailbox::new()?, Mailbox::new()?);
    let events = stage.exact(|stage| {
        for number in 0..4 {
            stage.spawn_in(&netns, &format!("server{number}"), || {
                let listener = Sock::tcp4()?;
                listener.raw().set_reuse_port(true)?;
                listener.bind(loopback(8080))?;
                listener.listen(16)?;
                listener.raw().set_nonblocking(true)?;
                ready.put("ready")?;
                loop {
                    match listener.accept() {
                        Ok(accepted) => {
                            accepted.send(1)?;
                            accepted.drain()?;
                        }
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                            if done.try_take()?.is_some() {
                                return Ok(());
                            }
                            sleep(Duration::from_millis(1));
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            })?;
        }
        stage.spawn_in(&netns, "client", || {
            for _ in 0..4 {
                ready.take()?;
            }
            for _ in 0..200 {
                let client = Sock::tcp4()?;
                client.connect(loopback(8080))?;
                // now it has been accepted, so that nothing is left in a queue at the end
                client.receive(1)?;
            }
            for _ in 0..4 {
                done.put("done")?;
            }
            Ok(())
        })?;
        Ok(())
    })?;
    let accepts = events.iter().filter(|x| x.event == Kind::Accept).count();
    ensure!(accepts == 200, "{accepts} accepts");
    Ok(())
}

/// In a child: lets it live on when its parent ends, and tells its number once that is so.
fn outlive_parent(number: &Mailbox) -> Result<()> {
    prctl::set_pdeathsig(None)?;
    number.put(&std::process::id().to_string())
}

fn a_connection_outlives_the_process_that_opened_it(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let [address, heir, orphan, go] = mailboxes()?;
    prctl::set_child_subreaper(true)?;
    stage.exact(|stage| {
        stage.spawn_in(&netns, "server", || {
            let listener = Sock::tcp4()?;
            listener.bind(loopback(0))?;
            listener.listen(1)?;
            address.put_address(listener.address())?;
            listener.accept()?.drain()?;
            Ok(())
        })?;
        let opener = spawn("opener", || {
            netns.enter()?;
            let client = Sock::tcp4()?;
            client.connect(address.take_address()?)?;
            let _ = spawn("heir", || {
                outlive_parent(&heir)?;
                go.take()?;
                Ok(())
            })?;
            orphan.put(&heir.take()?)
        })?;
        opener.join()?;
        stage.adopt(orphan.take()?.parse()?);
        go.put("go")
    })?;
    Ok(())
}

fn a_process_whose_parent_is_gone_is_reported_with_its_new_one(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let [heir, orphan, go] = mailboxes()?;
    prctl::set_child_subreaper(true)?;
    stage.exact(|stage| {
        spawn("parent", || {
            netns.enter()?;
            let _ = spawn("orphan", || {
                outlive_parent(&heir)?;
                go.take()?;
                truth::declare()?;
                let listener = Sock::tcp4()?;
                listener.bind(loopback(0))?;
                listener.listen(1)?;
                Ok(())
            })?;
            orphan.put(&heir.take()?)
        })?
        .join()?;
        stage.adopt(orphan.take()?.parse()?);
        go.put("go")
    })?;
    Ok(())
}

fn a_thread_acts_for_its_process(stage: &mut Stage) -> Result<()> {
    let events = stage.exact_of("leader", || {
        let listener = Sock::tcp4()?;
        listener.bind(loopback(0))?;
        listener.listen(64)?;
        std::thread::scope(|scope| {
            let accepting = scope.spawn(|| -> Result<()> {
                prctl::set_name(c"accepting")?;
                for _ in 0..10 {
                    listener.accept()?.drain()?;
                }
                Ok(())
            });
            let connecting = scope.spawn(|| -> Result<()> {
                prctl::set_name(c"connecting")?;
                for _ in 0..10 {
                    Sock::tcp4()?.connect(listener.address())?;
                }
                let bound = Sock::udp4()?;
                bound.bind(loopback(0))?;
                Ok(())
            });
            for thread in [accepting, connecting] {
                thread.join().map_err(|_| anyhow::anyhow!("panicked"))??;
            }
            Ok(())
        })
    })?;
    let other = events.iter().filter(|x| x.tid != x.pid).count();
    ensure!(other >= 21, "only {other} events of other threads");
    Ok(())
}

fn a_process_that_ends_without_closing_is_reported(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let (address, connected) = (Mailbox::new()?, Mailbox::new()?);
    stage.exact(|stage| {
        stage.spawn_in(&netns, "server", || {
            let listener = Sock::tcp4()?;
            listener.bind(loopback(0))?;
            listener.listen(1)?;
            address.put_address(listener.address())?;
            let accepted = listener.accept()?;
            accepted.drain()?;
            accepted.abandon();
            connected.take()?;
            listener.abandon();
            Ok(())
        })?;
        stage.spawn_in(&netns, "client", || {
            let client = Sock::tcp4()?;
            client.connect(address.take_address()?)?;
            client.send(3)?;
            let bound = Sock::udp4()?;
            bound.bind(loopback(0))?;
            bound.abandon();
            client.abandon();
            connected.put("connected")
        })?;
        Ok(())
    })?;
    Ok(())
}
