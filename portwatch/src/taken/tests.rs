//! What a failed bind is told after a few events and snapshots.

use super::*;
use crate::event::Origin;
use crate::row::State;

const SECOND: u64 = 1_000_000_000;

fn event(kind: Kind, ts: u64, pid: u32, sock: u64, laddr: &str) -> Event {
    let mut comm = [0; 16];
    comm[..2].copy_from_slice(b"nc");
    let mut event = Event::new(kind, Origin::Live, ts);
    event.proto = Some(Proto::Tcp);
    event.netns = Some(1);
    event.laddr = Some(laddr.parse().unwrap());
    event.lport = Some(80);
    event.sock = Some(sock);
    event.pid = Some(pid);
    event.comm = Some(Comm(comm));
    event
}

/// Pids and sockets of the holders that a failed bind to this address is told.
fn holders(taken: &Taken, ts: u64, laddr: &str) -> Vec<(u32, Option<u64>)> {
    let mut failed = event(Kind::Bind, ts, 999, 999, laddr);
    failed.error = Some(libc::EADDRINUSE as u16);
    taken.tell(&mut failed, &[]);
    let holders = failed.holders.unwrap_or_default();
    holders.iter().map(|x| (x.pid, x.sock)).collect()
}

#[test]
fn holders_are_those_in_the_way_and_those_who_left_in_the_last_minute() {
    let mut taken = Taken::default();
    taken.note(&event(Kind::Bind, SECOND, 10, 1, "127.0.0.1"));
    taken.note(&event(Kind::Listen, SECOND, 10, 1, "127.0.0.1"));
    taken.note(&event(Kind::Bind, SECOND, 20, 2, "127.0.0.2"));
    assert_eq!(holders(&taken, SECOND, "127.0.0.1"), [(10, Some(1))]);
    assert_eq!(
        holders(&taken, SECOND, "0.0.0.0"),
        [(10, Some(1)), (20, Some(2))]
    );
    taken.note(&event(Kind::Close, 2 * SECOND, 10, 1, "127.0.0.1"));
    taken.note(&event(Kind::Bind, 3 * SECOND, 30, 3, "127.0.0.1"));
    assert_eq!(
        holders(&taken, 3 * SECOND, "127.0.0.1"),
        [(30, Some(3)), (10, Some(1))]
    );
    taken.note(&event(Kind::Close, 70 * SECOND, 30, 3, "127.0.0.1"));
    assert_eq!(holders(&taken, 70 * SECOND, "127.0.0.1"), [(30, Some(3))]);
}

#[test]
fn who_left_is_told_also_when_nothing_told_that_it_came() {
    let mut taken = Taken::default();
    let closed = event(Kind::Close, SECOND, 10, 1, "127.0.0.1");
    let mut connection = event(Kind::Close, SECOND, 11, 2, "127.0.0.1");
    connection.rport = Some(50_000);
    taken.note(&closed);
    taken.note(&connection);
    assert_eq!(holders(&taken, SECOND, "0.0.0.0"), [(10, Some(1))]);
    taken.note(&event(Kind::Close, 62 * SECOND, 12, 3, "127.0.0.1"));
    assert_eq!(holders(&taken, 62 * SECOND, "0.0.0.0"), [(12, Some(3))]);
}

#[test]
fn a_bind_that_leaves_the_port_open_takes_none() {
    let mut taken = Taken::default();
    for sock in 1..=3 {
        let mut bind = event(Kind::Bind, SECOND, 10, sock, "127.0.0.1");
        bind.lport = Some(0);
        taken.note(&bind);
        let mut connection = event(Kind::Close, SECOND, 10, sock, "127.0.0.1");
        connection.rport = Some(50_000);
        taken.note(&connection);
    }
    assert!(taken.binders.is_empty() && taken.ports.is_empty());
}

#[test]
fn a_socket_that_changed_its_port_holds_the_other_one() {
    let mut taken = Taken::default();
    let bind = event(Kind::Bind, SECOND, 10, 1, "127.0.0.1");
    taken.note(&bind);
    taken.note(&Event {
        lport: Some(81),
        ..bind.clone()
    });
    taken.note(&event(Kind::Bind, 2 * SECOND, 20, 2, "127.0.0.1"));
    let both = [(20, Some(2)), (10, Some(1))];
    assert_eq!(holders(&taken, 2 * SECOND, "127.0.0.1"), both);
    // at its end it has none at all
    taken.note(&Event {
        kind: Kind::Close,
        lport: Some(0),
        ..bind
    });
    assert_eq!(taken.ports.len(), 1);
    assert_eq!(taken.departures.len(), 2);
}

#[test]
fn a_listener_of_ipv6_alone_is_in_the_way_of_ipv6_alone() {
    let mut taken = Taken::default();
    taken.note(&event(Kind::Bind, SECOND, 10, 100, "::"));
    let mut row = Row::server(Proto::Tcp, "[::]:80", 10, "nc");
    row.v6only = Some(true);
    row.event.sock = Some(100);
    taken.refresh(vec![row], SECOND);
    let told = |family, laddr| {
        let mut failed = event(Kind::Bind, SECOND, 99, 99, laddr);
        failed.error = Some(libc::EADDRINUSE as u16);
        failed.family = Some(family);
        taken.tell(&mut failed, &[]);
        failed.holders.unwrap_or_default().len()
    };
    assert_eq!(told(Family::Ipv4, "127.0.0.1"), 0);
    // of a socket of IPv6, but mapped
    assert_eq!(told(Family::Ipv6, "127.0.0.1"), 0);
    assert_eq!(told(Family::Ipv6, "::1"), 1);
}

#[test]
fn a_wildcard_of_ipv4_is_not_in_the_way_of_ipv6() {
    let mut taken = Taken::default();
    taken.note(&event(Kind::Bind, SECOND, 10, 1, "0.0.0.0"));
    assert_eq!(holders(&taken, SECOND, "::1"), []);
    let there = [(10, Some(1))];
    for laddr in ["::", "0.0.0.0", "127.0.0.1"] {
        assert_eq!(holders(&taken, SECOND, laddr), there);
    }
}

#[test]
fn connections_of_a_process_are_one_holder_and_none_beside_its_listener() {
    let connection = |pid, sock| {
        let mut row = Row::connection(State::Estab, "127.0.0.1:80", "127.0.0.1:9", pid, "nc");
        row.event.sock = Some(sock);
        row.event.holders.as_mut().unwrap()[0].sock = Some(sock);
        row
    };
    let mut taken = Taken::default();
    let rows = [connection(11, 1), connection(10, 2), connection(11, 3)];
    let server = Row::server(Proto::Tcp, "0.0.0.0:80", 10, "nc");
    taken.refresh(rows.into_iter().chain([server]), SECOND);
    let told = [(10, Some(100)), (11, Some(1))];
    assert_eq!(holders(&taken, SECOND, "127.0.0.1"), told);
}

#[test]
fn who_passed_a_socket_on_does_not_hold_it() {
    let mut taken = Taken::default();
    let mut server = Row::server(Proto::Tcp, "0.0.0.0:80", 11, "nc");
    server.event.sock = Some(1);
    server.event.holders.as_mut().unwrap()[0].sock = Some(1);
    taken.note(&event(Kind::Bind, SECOND, 10, 1, "0.0.0.0"));
    assert_eq!(holders(&taken, SECOND, "0.0.0.0"), [(10, Some(1))]);
    taken.refresh([server], 2 * SECOND);
    assert_eq!(holders(&taken, 2 * SECOND, "0.0.0.0"), [(11, Some(1))]);
}

#[test]
fn those_who_left_are_told_for_a_minute_the_latest_first_and_not_all() {
    let mut taken = Taken::default();
    for sock in 1..=100 {
        let bind = event(Kind::Bind, sock * SECOND, sock as u32, sock, "0.0.0.0");
        taken.note(&bind);
        taken.note(&Event {
            kind: Kind::Close,
            ..bind
        });
    }
    let told = holders(&taken, 101 * SECOND, "0.0.0.0");
    assert_eq!(told.len(), 60);
    assert_eq!(told[0], (100, Some(100)));
    assert_eq!(holders(&taken, 159 * SECOND, "0.0.0.0").len(), 2);
    for sock in 200..400 {
        let bind = event(Kind::Bind, 160 * SECOND, sock, u64::from(sock), "0.0.0.0");
        taken.note(&bind);
        taken.note(&Event {
            kind: Kind::Close,
            ..bind
        });
    }
    assert_eq!(holders(&taken, 160 * SECOND, "0.0.0.0").len(), TOLD);
}

#[test]
fn a_snapshot_tells_the_rest_and_is_asked_for_when_it_is_old() {
    let mut taken = Taken::default();
    let mut failed = event(Kind::Bind, SECOND, 99, 99, "0.0.0.0");
    assert!(!taken.needs_snapshot(&failed, SECOND));
    failed.error = Some(libc::EADDRINUSE as u16);
    assert!(taken.needs_snapshot(&failed, SECOND));
    let mut seed = event(Kind::Listen, SECOND, 10, 1, "127.0.0.1");
    let peer = |pid| Peer {
        pid,
        comm: "nc".into(),
        sock: Some(1),
    };
    seed.holders = Some(vec![peer(10), peer(11)]);
    let row = Row {
        event: seed,
        state: State::Listen,
        since: None,
        recv_queue: None,
        send_queue: None,
        device: None,
        v6only: None,
    };
    taken.refresh(vec![row], SECOND);
    assert!(!taken.needs_snapshot(&failed, SECOND));
    taken.note(&event(Kind::Bind, SECOND, 10, 1, "127.0.0.1"));
    let both = [(10, Some(1)), (11, Some(1))];
    assert_eq!(holders(&taken, SECOND, "0.0.0.0"), both);
    // what left since the snapshot is told once, as such
    taken.note(&event(Kind::Close, SECOND, 10, 1, "127.0.0.1"));
    assert_eq!(holders(&taken, SECOND, "0.0.0.0"), [(10, Some(1))]);
    // any event shows that it is too old to be kept
    taken.needs_snapshot(&event(Kind::Listen, 3 * SECOND, 10, 2, "127.0.0.2"), SECOND);
    assert!(taken.seen.is_empty());
    failed.ts = 3 * SECOND;
    assert!(taken.needs_snapshot(&failed, SECOND));
}

#[test]
fn who_came_after_a_failed_bind_was_not_in_its_way() {
    let seen = |sock, pid| {
        let mut row = Row::server(Proto::Tcp, "0.0.0.0:80", pid, "nc");
        row.event.sock = sock;
        row.event.holders.as_mut().unwrap()[0].sock = sock;
        row.event.netns = Some(1);
        row
    };
    let mut failed = event(Kind::Bind, 2 * SECOND, 10, 1, "0.0.0.0");
    failed.error = Some(libc::EADDRINUSE as u16);
    let mut connect = event(Kind::Connect, 3 * SECOND, 30, 3, "127.0.0.1");
    connect.latency_us = Some(2_000_000);
    let later = [
        event(Kind::Bind, 3 * SECOND, 20, 2, "0.0.0.0"),
        event(Kind::Bind, 3 * SECOND, 21, 5, "0.0.0.0"),
        connect,
    ];
    let mut taken = Taken::default();
    // Of other namespaces a snapshot tells no cookies.
    let there = [(Some(1), 10), (Some(2), 20), (None, 21), (Some(3), 30)];
    taken.refresh(there.map(|(sock, pid)| seen(sock, pid)), 2 * SECOND);
    taken.tell(&mut failed, &later);
    let told = failed.holders.unwrap();
    assert_eq!(told.iter().map(|x| x.pid).collect::<Vec<_>>(), [30]);
}

#[test]
fn who_had_the_port_before_events_came_and_left_it_after_the_failed_bind_was_in_its_way() {
    let taken = Taken::default();
    let mut failed = event(Kind::Bind, SECOND, 999, 999, "0.0.0.0");
    failed.error = Some(libc::EADDRINUSE as u16);
    let closed = |pid, sock| event(Kind::Close, SECOND + 5, pid, sock, "127.0.0.1");
    let later = [
        closed(10, 1),
        closed(999, 999),
        event(Kind::Bind, SECOND + 2, 20, 2, "127.0.0.1"),
        closed(20, 2),
    ];
    taken.tell(&mut failed, &later);
    let holders = failed.holders.unwrap_or_default();
    let holders: Vec<_> = holders.iter().map(|x| (x.pid, x.sock)).collect();
    assert_eq!(holders, [(10, Some(1))]);
}

#[test]
fn who_ended_a_connection_left_its_remains_on_the_port() {
    let ended = |ts, pid, sock, cause| {
        let mut ended = event(Kind::Close, ts, pid, sock, "127.0.0.1");
        ended.rport = Some(9);
        ended.cause = Some(cause);
        ended
    };
    let mut taken = Taken::default();
    taken.note(&ended(SECOND, 10, 1, Cause::Local));
    taken.note(&ended(SECOND, 11, 2, Cause::Local));
    taken.note(&ended(SECOND, 12, 3, Cause::Remote));
    assert_eq!(holders(&taken, SECOND, "0.0.0.0"), [(11, Some(2))]);
    assert_eq!(holders(&taken, SECOND, "127.0.0.2"), []);
    assert_eq!(holders(&taken, 62 * SECOND, "0.0.0.0"), []);
    // a listener that is there says it all
    taken.note(&event(Kind::Bind, 2 * SECOND, 11, 4, "0.0.0.0"));
    assert_eq!(holders(&taken, 2 * SECOND, "0.0.0.0"), [(11, Some(4))]);
}
