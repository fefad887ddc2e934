//! A loss is counted and told, and the counts are exact.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use super::connecting::loopback;
use crate::harness::event::{Event, Kind};
use crate::harness::judge::{Verdict, judge};
use crate::harness::meeting::Mailbox;
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;

crate::scenarios! {
    what_a_tiny_ring_loses_is_counted_exactly,
    kinds_that_were_not_asked_for_are_not_counted_as_lost,
    kinds_that_only_tell_of_others_are_not_counted_as_lost,
}

/// Connections at full speed, between two processes in a namespace of their own.
pub fn churn(stage: &mut Stage, connections: usize) -> Result<()> {
    let netns = stage.netns()?;
    let address = Mailbox::new()?;
    stage.spawn_in(&netns, "server", || {
        let listener = Sock::tcp4()?;
        listener.bind(loopback(0))?;
        listener.listen(4096)?;
        address.put_address(listener.address())?;
        for _ in 0..connections {
            let accepted = listener.accept()?;
            accepted.send(1)?;
            ensure!(accepted.drain()?, "the client did not reset");
        }
        Ok(())
    })?;
    stage.spawn_in(&netns, "client", || {
        let address = address.take_address()?;
        for _ in 0..connections {
            let client = Sock::tcp4()?;
            client.connect(address)?;
            // now it has been accepted, so that it is known what the reset ends
            client.receive(1)?;
            client.reset_on_close()?;
        }
        Ok(())
    })?;
    stage.join()
}

/// Traces churn with a ring of one page, and checks that `kinds` are complete together with what
/// is said to be lost.
fn lose(stage: &mut Stage, flags: &[&str], kinds: &[Kind]) -> Result<()> {
    let flags = [&["--ring-size", "4K", "--require-complete"], flags].concat();
    let tracer = stage.trace(&flags)?;
    let connections = stage.scaled(10_000, 500);
    churn(stage, connections)?;
    // the first part may fit even a tiny ring; what comes while nobody reads it does not
    tracer.signal(Signal::SIGSTOP)?;
    churn(stage, connections)?;
    tracer.signal(Signal::SIGCONT)?;
    let run = tracer.stop()?;
    let events = run.events()?;
    let mut truth = stage.truth()?;
    truth.expected.retain(|x| kinds.contains(&x.event));
    // what other processes of the machine lost is counted, too, but they do next to nothing
    let others = |event: &&Event| event.event != Kind::Lost && !truth.concerns(event);
    let others = events.iter().filter(others).count() as u64;
    let verdict = judge(&events, &truth);
    ensure!(
        verdict.lost > 0,
        "nothing was lost, so that nothing was tested"
    );
    Verdict::explain("extra", &verdict.extra);
    Verdict::explain("wrong", &verdict.wrong);
    let missing = verdict.missing.len() as u64;
    ensure!(
        verdict.extra.is_empty() && verdict.wrong.is_empty(),
        "{}",
        verdict.brief()
    );
    ensure!(
        (missing..=missing + others).contains(&verdict.lost),
        "{} (of others {others} were shown)",
        verdict.brief()
    );
    run.expect_status(4)?;
    run.expect_said(&["lost", &verdict.lost.to_string()])
}

fn what_a_tiny_ring_loses_is_counted_exactly(stage: &mut Stage) -> Result<()> {
    let kinds = [
        Kind::Bind,
        Kind::Listen,
        Kind::Connect,
        Kind::Accept,
        Kind::Close,
        Kind::Reset,
    ];
    lose(stage, &[], &kinds)
}

fn kinds_that_were_not_asked_for_are_not_counted_as_lost(stage: &mut Stage) -> Result<()> {
    lose(stage, &["--event", "connect"], &[Kind::Connect])
}

fn kinds_that_only_tell_of_others_are_not_counted_as_lost(stage: &mut Stage) -> Result<()> {
    lose(stage, &["--event", "close"], &[Kind::Close])
}
