//! Listeners that are gone before anybody can look.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use anyhow::{Result, ensure};

use super::programs::LISTENER;
use crate::harness::event::{Family, Kind, Proto};
use crate::harness::stage::Stage;
use crate::harness::truth::{self, Expected, Process, Record};

crate::scenarios! {
    a_listener_that_lives_one_millisecond_is_reported_with_its_exe,
}

/// Below the ephemeral ports, so that nobody gets one of these by chance.
const FIRST_PORT: u16 = 20_000;

fn a_listener_that_lives_one_millisecond_is_reported_with_its_exe(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let count = stage.scaled(1000, 1000);
    let inode = netns.inode();
    let events = stage.exact(|stage| {
        stage.spawn_in(&netns, "starter", || {
            let me = Process::current()?;
            for port in (FIRST_PORT..).take(count) {
                let args = [LISTENER.to_owned(), port.to_string(), format!("nr {port}")];
                let mut child = Command::new(&me.exe).args(&args).spawn()?;
                expect_listener(&me, child.id(), &args, port, inode);
                ensure!(child.wait()?.success(), "listener on port {port}");
            }
            Ok(())
        })?;
        Ok(())
    })?;
    let mut kinds: HashMap<Kind, usize> = HashMap::new();
    for event in &events {
        *kinds.entry(event.event).or_default() += 1;
    }
    let due = [Kind::Bind, Kind::Listen, Kind::Close].map(|kind| (kind, count));
    ensure!(kinds == HashMap::from(due), "{kinds:?}");
    Ok(())
}

/// The parent tells the truth, so that the child does nothing else in its short life.
pub fn expect_listener(me: &Process, pid: u32, args: &[String], port: u16, netns: u64) {
    let args = [std::slice::from_ref(&me.exe), args].concat();
    truth::tell(Record::Process(Process {
        pid,
        ppid: me.pid,
        comm: me
            .exe
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .chars()
            .take(15)
            .collect(),
        args,
        ..me.clone()
    }));
    for kind in [Kind::Bind, Kind::Listen, Kind::Close] {
        let mut expected = Expected::new(kind, pid);
        expected.proto = Some(Proto::Tcp);
        expected.family = Some(Family::Ipv4);
        expected.laddr = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        expected.lport = Some(port);
        expected.netns = Some(netns);
        match kind {
            Kind::Listen => expected.backlog = Some(7),
            Kind::Close => expected.accepted = Some(0),
            _ => {}
        }
        truth::tell(Record::Expected(expected));
    }
}
