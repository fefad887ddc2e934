//! The table beside snapshots: what differs, and what may.

use std::sync::Arc;

use super::*;
use crate::event::{Comm, Origin, Peer};
use crate::snapshot::{Gap, Holders, Scope, Why};

#[test]
fn holders_are_those_of_the_last_snapshot_and_the_owner_stays() {
    let mut table = table(&[event(Kind::Listen, 1, 1, 80, None)]);
    let peer = |pid| Peer {
        pid,
        comm: "x".into(),
        sock: Some(1),
    };
    let mut row = row(event(Kind::Listen, 1, 1, 80, None), State::Listen, 1);
    row.recv_queue = Some(3);
    row.event.pid = Some(20);
    row.event.comm = Some(Comm([b'x'; 16]));
    row.event.holders = Some(vec![peer(20), peer(21)]);
    table.watch();
    assert_eq!(table.reconcile([row], &scope(&[]), 2), []);
    let row = table.get(Key(1)).unwrap().row();
    assert_eq!((row.event.pid, row.recv_queue), (Some(7), Some(3)));
    let holders: Vec<u32> = row.event.holders.iter().flatten().map(|x| x.pid).collect();
    assert_eq!(holders, [20, 21]);
}

#[test]
fn a_difference_is_told_as_the_event_that_was_missed() {
    let mut table = table(&[event(Kind::Listen, 1, 1, 80, None)]);
    let mut found = Vec::new();
    for now in [10, 20, 30] {
        table.watch();
        found.push(table.reconcile([], &scope(&[]), now));
    }
    let [first, second, third] = found.try_into().unwrap();
    assert!(first.is_empty() && third.is_empty());
    let event = second[0].event(20);
    assert_eq!((event.kind, event.origin), (Kind::Close, Origin::Poll));
    assert_eq!((event.lport, event.ts), (Some(80), 20));
    assert_eq!(states(&table), [(State::Listen, true)]);
}

/// A socket with this inode number is in the table, and in no snapshot any more.
fn lost_sight(mut table: Table, scope: &Scope) -> (usize, Vec<(State, bool)>) {
    let mut differences = 0;
    for _ in 0..3 {
        table.watch();
        differences += table.reconcile([], scope, 2).len();
    }
    (differences, states(&table))
}

#[test]
fn a_socket_that_is_held_without_a_port_is_not_closed() {
    let bind = event(Kind::Bind, 1, 1, 80, None);
    let udp = Event {
        proto: Some(Proto::Udp),
        ..bind.clone()
    };
    for bind in [bind, udp] {
        let mut table = table(std::slice::from_ref(&bind));
        table.watch();
        table.reconcile([row(bind, State::Unconn, 5)], &scope(&[]), 2);
        let held = Scope {
            holders: Arc::new(Holders::of_pairs(vec![(5, 7)])),
            ..scope(&[])
        };
        assert_eq!(lost_sight(table.clone(), &held), (0, vec![]));
        let gone = (1, vec![(State::Unconn, true)]);
        assert_eq!(lost_sight(table, &scope(&[])), gone);
    }
}

#[test]
fn what_remains_of_a_told_end_is_as_the_snapshot_has_it() {
    let [listen, close] = [Kind::Listen, Kind::Close].map(|kind| event(kind, 1, 1, 80, None));
    let bound = row(listen.clone(), State::Unconn, 5);
    let mut table = table(&[listen, close]);
    table.tick(u64::MAX);
    for _ in 0..3 {
        table.watch();
        assert_eq!(table.reconcile([bound.clone()], &scope(&[]), 2), []);
        assert_eq!(states(&table), [(State::Unconn, false)]);
    }
    assert_eq!(lost_sight(table, &scope(&[])), (0, vec![]));
}

#[test]
fn a_namespace_that_went_took_what_nobody_holds() {
    let listen = event(Kind::Listen, 1, 1, 80, None);
    let known = row(listen.clone(), State::Listen, 5);
    let mut table = table(&[listen]);
    table.watch();
    table.reconcile([known], &scope(&[]), 2);
    let gone = Scope::default();
    let held = Scope {
        holders: Arc::new(Holders::of_pairs(vec![(5, 7)])),
        ..Scope::default()
    };
    assert_eq!(
        lost_sight(table.clone(), &held),
        (0, vec![(State::Listen, false)])
    );
    assert_eq!(lost_sight(table, &gone), (1, vec![(State::Listen, true)]));
}

#[test]
fn what_no_event_tells_of_goes_with_its_namespace() {
    let mut table = table(&[]);
    table.watch();
    table.seed([row(
        event(Kind::Connect, 1, 1, 80, Some(9)),
        State::TimeWait,
        0,
    )]);
    assert_eq!(states(&table), [(State::TimeWait, false)]);
    assert_eq!(lost_sight(table, &Scope::default()), (0, vec![]));
}

#[test]
fn what_went_without_an_event_is_counted() {
    let mut table = table(&[event(Kind::Listen, 1, 1, 80, None)]);
    table.watch();
    table.seed([row(
        event(Kind::Connect, 1, 2, 80, Some(9)),
        State::FinWait2,
        0,
    )]);
    let mut unsaid = Vec::new();
    for _ in 0..3 {
        table.watch();
        table.reconcile([], &scope(&[]), 2);
        unsaid.push(table.unsaid());
    }
    assert_eq!(unsaid, [1, 1, 1]);
}

#[test]
fn what_may_be_in_a_gap_is_not_missed() {
    let listen = Event {
        family: Some(Family::Ipv4),
        ..event(Kind::Listen, 1, 1, 80, None)
    };
    let gap = Gap {
        netns: listen.netns,
        table: Some((Proto::Tcp, Family::Ipv4)),
        why: Why::Lines(1),
    };
    let mut table = table(&[listen]);
    let mut missed = |gaps: &[Gap]| {
        table.watch();
        table.reconcile([], &scope(gaps), 2).len()
    };
    for _ in 0..3 {
        assert_eq!(missed(std::slice::from_ref(&gap)), 0);
    }
    assert_eq!((missed(&[]), missed(&[])), (0, 1));
}
