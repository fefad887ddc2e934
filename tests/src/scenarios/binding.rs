//! bind(2) and listen(2), and all the ways in which they fail.

use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::unistd::{Gid, Uid, setgid, setuid};

use super::connecting::{fails_with, loopback};
use crate::harness::meeting::mailboxes;
use crate::harness::process::cannot;
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;
use crate::harness::truth;

crate::scenarios! {
    a_bind_to_a_taken_port_is_reported_with_the_port_asked_for,
    a_bind_to_a_taken_port_names_who_has_it_and_who_has_just_left,
    an_unprivileged_bind_to_port_80_is_reported_with_its_user,
    a_bind_to_an_address_that_is_not_there_is_reported,
    a_bind_to_an_address_of_another_family_is_reported_without_one,
    a_bind_to_no_address_is_reported_without_one,
    a_bind_that_a_security_module_refuses_is_reported,
    a_listen_on_a_port_that_another_listens_on_is_reported,
    a_listen_on_a_socket_that_cannot_is_reported,
    each_listen_is_reported_with_its_backlog,
    a_socket_bound_but_never_listening_is_closed_once,
}

/// User and group of nobody, without root's privileges.
pub const NOBODY: u32 = 65534;

/// Becomes nobody, for good.
pub fn become_nobody() -> Result<()> {
    setgid(Gid::from_raw(NOBODY))?;
    setuid(Uid::from_raw(NOBODY))?;
    truth::declare()
}

fn a_bind_to_a_taken_port_is_reported_with_the_port_asked_for(stage: &mut Stage) -> Result<()> {
    stage.exact_of("latecomer", || {
        let holder = Sock::tcp4()?;
        holder.bind(loopback(8080))?;
        holder.listen(1)?;
        let datagrams = Sock::udp4()?;
        datagrams.bind(loopback(5353))?;
        fails_with(Sock::tcp4()?.bind(loopback(8080)), "EADDRINUSE")?;
        fails_with(Sock::tcp6()?.bind("[::]:8080".parse()?), "EADDRINUSE")?;
        fails_with(Sock::udp4()?.bind(loopback(5353)), "EADDRINUSE")
    })?;
    Ok(())
}

fn a_bind_to_a_taken_port_names_who_has_it_and_who_has_just_left(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let [ready, rights, go, late, done] = mailboxes()?;
    let time_to_look = stage.scaled(Duration::from_millis(500), Duration::from_secs(3));
    // What was looked up for the bind of another scenario is taken for the state of now for up to a second.
    sleep(stage.scaled(Duration::ZERO, Duration::from_secs(1)));
    let mut pids = Vec::new();
    let events = stage.exact(|stage| {
        pids.push(stage.spawn_in(&netns, "leaver", || {
            let leaver = Sock::tcp4()?;
            leaver.raw().set_reuse_port(true)?;
            leaver.bind(loopback(8080))?;
            leaver.listen(1)?;
            ready.put("ready")?;
            go.take()?;
            drop(leaver);
            ready.put("left")
        })?);
        pids.push(stage.spawn_in(&netns, "holder", || {
            let holder = Sock::tcp4()?;
            holder.raw().set_reuse_port(true)?;
            ready.take()?;
            holder.bind(loopback(8080))?;
            holder.listen(1)?;
            rights.put_fd(holder.as_raw_fd())?;
            go.put("leave")?;
            done.take()?;
            Ok(())
        })?);
        pids.push(stage.spawn_in(&netns, "receiver", || {
            let _received = rights.take_fd()?;
            ready.take()?;
            late.put("now")?;
            done.take()?;
            Ok(())
        })?);
        stage.spawn_in(&netns, "latecomer", || {
            late.take()?;
            fails_with(Sock::tcp4()?.bind("0.0.0.0:8080".parse()?), "EADDRINUSE")?;
            // portwatch looks for holders when it reads the event
            sleep(time_to_look);
            done.put("done")?;
            done.put("done")
        })?;
        Ok(())
    })?;
    let failed = events
        .iter()
        .find(|x| x.error.as_deref() == Some("EADDRINUSE"));
    let holders = failed
        .and_then(|x| x.holders.as_ref())
        .context("no holders")?;
    let told: Vec<u32> = holders.iter().map(|x| x.pid).collect();
    let [leaver, holder, receiver] = pids[..] else {
        unreachable!("three were started");
    };
    // a snapshot has them in no order, and those who left come last
    let mut present = vec![holder, receiver];
    present.sort_unstable();
    let mut told_present = told[..told.len().saturating_sub(1)].to_vec();
    told_present.sort_unstable();
    ensure!(
        told_present == present && told.last() == Some(&leaver),
        "{holders:?} where {present:?} and then {leaver} were due"
    );
    Ok(())
}

fn an_unprivileged_bind_to_port_80_is_reported_with_its_user(stage: &mut Stage) -> Result<()> {
    stage.exact_of("nobody", || {
        become_nobody()?;
        fails_with(Sock::tcp4()?.bind(loopback(80)), "EACCES")?;
        fails_with(Sock::tcp6()?.bind("[::1]:80".parse()?), "EACCES")?;
        fails_with(Sock::udp4()?.bind(loopback(53)), "EACCES")
    })?;
    Ok(())
}

fn a_bind_to_an_address_that_is_not_there_is_reported(stage: &mut Stage) -> Result<()> {
    stage.exact_of("elsewhere", || {
        let v4 = "203.0.113.1:8080".parse()?;
        let v6 = "[2001:db8::1]:8080".parse()?;
        fails_with(Sock::tcp4()?.bind(v4), "EADDRNOTAVAIL")?;
        fails_with(Sock::tcp6()?.bind(v6), "EADDRNOTAVAIL")?;
        fails_with(Sock::udp4()?.bind(v4), "EADDRNOTAVAIL")
    })?;
    Ok(())
}

/// An IPv6 address as the kernel takes it: family, port, flow, address, scope.
const SOCKADDR_IN6: [u8; 28] = {
    let mut bytes = [0; 28];
    (bytes[0], bytes[2], bytes[3], bytes[23]) = (libc::AF_INET6 as u8, 0x1f, 0x90, 1);
    bytes
};

fn a_bind_to_an_address_of_another_family_is_reported_without_one(stage: &mut Stage) -> Result<()> {
    stage.exact_of("stranger", || {
        // no family has this number
        let none = [1; 28];
        for bytes in [SOCKADDR_IN6, none] {
            for socket in [Sock::tcp4()?, Sock::udp4()?] {
                fails_with(socket.bind_to_bytes(&bytes, 28), "EAFNOSUPPORT")?;
            }
        }
        fails_with(Sock::tcp6()?.bind_to_bytes(&none, 28), "EAFNOSUPPORT")
    })?;
    Ok(())
}

fn a_bind_to_no_address_is_reported_without_one(stage: &mut Stage) -> Result<()> {
    stage.exact_of("nameless", || {
        for socket in [Sock::tcp4()?, Sock::udp4()?] {
            fails_with(socket.bind_to_bytes(&SOCKADDR_IN6, 1), "EINVAL")?;
            // SAFETY: nothing is read, and the kernel finds nothing there.
            let nowhere = unsafe { std::slice::from_raw_parts(8 as *const u8, 0) };
            fails_with(socket.bind_to_bytes(nowhere, 16), "EFAULT")?;
        }
        fails_with(Sock::tcp6()?.bind_to_bytes(&SOCKADDR_IN6, 16), "EINVAL")
    })?;
    Ok(())
}

/// Denies the calling process binds of tcp sockets, for good.
fn forbid_binds() -> Result<()> {
    // struct landlock_ruleset_attr: accesses to files, accesses to the network
    const BIND_TCP: u64 = 1;
    let rules = [0u64, BIND_TCP];
    // SAFETY: the kernel reads the structure, which outlives the call.
    let rules = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            rules.as_ptr(),
            size_of_val(&rules),
            0,
        )
    };
    if rules < 0 {
        let error = std::io::Error::last_os_error();
        return Err(cannot(format!(
            "no Landlock for the network in this kernel: {error}"
        )));
    }
    // SAFETY: no memory is involved.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) };
    ensure!(result == 0, std::io::Error::last_os_error());
    Ok(())
}

fn a_bind_that_a_security_module_refuses_is_reported(stage: &mut Stage) -> Result<()> {
    stage.exact_of("forbidden", || {
        forbid_binds()?;
        for _ in 0..3 {
            fails_with(Sock::tcp4()?.bind(loopback(8080)), "EACCES")?;
            fails_with(Sock::tcp6()?.bind("[::1]:8080".parse()?), "EACCES")?;
            // not denied, and refused for another reason
            let datagrams = Sock::udp4()?;
            datagrams.bind(loopback(5353))?;
            fails_with(Sock::udp4()?.bind(loopback(5353)), "EADDRINUSE")?;
        }
        Ok(())
    })?;
    Ok(())
}

fn a_listen_on_a_socket_that_cannot_is_reported(stage: &mut Stage) -> Result<()> {
    stage.exact_of("deaf", || {
        let listener = Sock::tcp4()?;
        listener.bind(loopback(0))?;
        listener.listen(1)?;
        let datagrams = Sock::udp4()?;
        datagrams.bind(loopback(5353))?;
        fails_with(datagrams.listen(3), "EOPNOTSUPP")?;
        fails_with(Sock::udp6()?.listen(3), "EOPNOTSUPP")?;
        let connected = Sock::tcp4()?;
        connected.connect(listener.address())?;
        fails_with(connected.listen(3), "EINVAL")?;
        let accepted = listener.accept()?;
        connected.finish()?;
        accepted.drain()?;
        Ok(())
    })?;
    Ok(())
}

fn a_listen_on_a_port_that_another_listens_on_is_reported(stage: &mut Stage) -> Result<()> {
    stage.exact_of("second", || {
        let [first, second] = [Sock::tcp4()?, Sock::tcp4()?];
        for socket in [&first, &second] {
            socket.raw().set_reuse_address(true)?;
            socket.bind(loopback(8080))?;
        }
        first.listen(3)?;
        fails_with(second.listen(3), "EADDRINUSE")
    })?;
    Ok(())
}

fn each_listen_is_reported_with_its_backlog(stage: &mut Stage) -> Result<()> {
    stage.exact_of("again", || {
        for listener in [Sock::tcp4()?, Sock::tcp6()?] {
            for backlog in [3, 3, 100] {
                listener.listen(backlog)?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn a_socket_bound_but_never_listening_is_closed_once(stage: &mut Stage) -> Result<()> {
    stage.exact_of("binder", || {
        for _ in 0..100 {
            let socket = Sock::tcp4()?;
            socket.bind(loopback(0))?;
            let socket = Sock::tcp6()?;
            socket.bind("[::1]:0".parse()?)?;
        }
        Ok(())
    })?;
    Ok(())
}
