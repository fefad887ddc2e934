//! What the table says after a few events and snapshots.

use std::sync::Arc;

use super::model::{event, row, scope};
use super::*;
use crate::event::{Comm, Event, Family, Kind, Origin, Peer};
use crate::snapshot::{Gap, Holders, Scope, Why};

fn table(events: &[Event]) -> Table {
    let mut table = Table::new(Limits::default());
    for event in events {
        table.apply(event);
    }
    table
}

fn states(table: &Table) -> Vec<(State, bool)> {
    (table.iter())
        .map(|sight| (sight.socket.state, sight.end.is_some()))
        .collect()
}

#[test]
fn a_listener_counts_what_it_accepts() {
    let mut wide = event(Kind::Listen, 1, 1, 80, None);
    wide.laddr = Some("0.0.0.0".parse().unwrap());
    let mut other = event(Kind::Listen, 1, 2, 80, None);
    other.laddr = Some("127.0.0.2".parse().unwrap());
    let mut elsewhere = wide.clone();
    (elsewhere.sock, elsewhere.netns) = (Some(3), Some(2));
    let accept = event(Kind::Accept, 2, 4, 80, Some(9));
    let table = table(&[wide, other, elsewhere, accept]);
    let accepted = |cookie| table.get(Key(cookie)).unwrap().row().event.accepted;
    assert_eq!([1, 2, 3].map(accepted), [Some(1), Some(0), Some(0)]);
}

#[test]
fn a_group_that_shares_a_port_counts_by_process() {
    let member = |cookie, pid| Event {
        pid: Some(pid),
        ..event(Kind::Listen, 1, cookie, 80, None)
    };
    let accept = Event {
        pid: Some(11),
        ..event(Kind::Accept, 2, 9, 80, Some(9))
    };
    let table = table(&[member(1, 10), member(2, 11), member(3, 12), accept]);
    let accepted = |cookie| table.get(Key(cookie)).unwrap().row().event.accepted;
    assert_eq!([1, 2, 3].map(accepted), [Some(0), Some(1), Some(0)]);
}

#[test]
fn a_connection_is_established_before_it_is_accepted() {
    let after = |kind, cookie| Event {
        latency_us: Some(2),
        ..event(kind, 5_000, cookie, 80, Some(9))
    };
    let table = table(&[after(Kind::Accept, 1), after(Kind::Connect, 2)]);
    let since = |cookie| table.get(Key(cookie)).unwrap().row().since;
    assert_eq!([1, 2].map(since), [Some(3_000), Some(5_000)]);
}

#[test]
fn what_is_bound_without_a_port_comes_with_its_port() {
    let bind = event(Kind::Bind, 1, 1, 0, None);
    let close = Event {
        kind: Kind::Close,
        ..bind.clone()
    };
    let connect = event(Kind::Connect, 2, 1, 80, Some(9));
    let nameless = Event {
        lport: None,
        ..close.clone()
    };
    for close in [close, nameless] {
        assert_eq!(states(&table(&[bind.clone(), close])), []);
    }
    let connected = table(&[bind, connect]);
    assert_eq!(states(&connected), [(State::Estab, false)]);
}

#[test]
fn a_failed_attempt_ends_a_socket_that_was_not_bound() {
    let failed = |error: i32| Event {
        error: u16::try_from(error).ok(),
        ..event(Kind::Connect, 2, 1, 80, Some(9))
    };
    let (slow, refused) = (failed(libc::EINPROGRESS), failed(libc::ECONNREFUSED));
    assert_eq!(
        states(&table(std::slice::from_ref(&slow))),
        [(State::SynSent, false)]
    );
    let gone = table(&[slow.clone(), refused.clone()]);
    assert_eq!(states(&gone), [(State::SynSent, true)]);
    assert_eq!(
        states(&table(std::slice::from_ref(&refused))),
        [(State::SynSent, true)]
    );
    let bind = event(Kind::Bind, 1, 1, 80, None);
    let bound = table(&[bind, slow, refused]);
    assert_eq!(states(&bound), [(State::Unconn, false)]);
    let row = bound.iter().next().unwrap().row();
    assert_eq!((row.event.rport, row.event.kind), (None, Kind::Bind));
}

#[test]
fn what_closed_stays_in_sight_for_a_while() {
    let limits = Limits {
        closed_ns: 10,
        closed: 2,
        ..Limits::default()
    };
    let mut table = Table::new(limits);
    for cookie in 1..=3 {
        table.apply(&event(Kind::Connect, 0, cookie, 80, Some(9)));
        let mut close = event(Kind::Close, cookie, cookie, 80, Some(9));
        (close.rx_bytes, close.duration_us) = (Some(5), Some(6));
        table.apply(&close);
    }
    let kept: Vec<_> = table.iter().map(|sight| sight.row().event).collect();
    let kept: Vec<_> = (kept.iter())
        .map(|event| (event.sock, event.rx_bytes, event.duration_us))
        .collect();
    assert_eq!(
        kept,
        [(Some(2), Some(5), Some(6)), (Some(3), Some(5), Some(6))]
    );
    table.tick(12);
    assert_eq!(table.iter().count(), 1);
    table.tick(13);
    assert_eq!(table.iter().count(), 0);
}

#[test]
fn connections_do_not_crowd_out_a_listener_that_closed() {
    let mut table = Table::new(Limits {
        closed: 2,
        ..Limits::default()
    });
    table.apply(&event(Kind::Listen, 1, 1, 80, None));
    table.apply(&event(Kind::Close, 2, 1, 80, None));
    for cookie in 2..9 {
        table.apply(&event(Kind::Connect, cookie, cookie, 81, Some(9)));
        table.apply(&event(Kind::Close, cookie, cookie, 81, Some(9)));
    }
    let kept: Vec<_> = table.iter().map(|sight| sight.socket.sock.get()).collect();
    assert_eq!(kept, [Some(1), Some(7), Some(8)]);
}

#[test]
fn without_cookies_sockets_are_known_by_their_addresses() {
    let unnamed = |kind, rport| Event {
        sock: None,
        ..event(kind, 1, 0, 80, rport)
    };
    let mut table = table(&[unnamed(Kind::Bind, None)]);
    table.apply(&unnamed(Kind::Connect, Some(9)));
    assert_eq!(states(&table), [(State::Estab, false)]);
    table.apply(&unnamed(Kind::Close, Some(9)));
    assert_eq!(states(&table), [(State::Estab, true)]);
}

#[test]
fn without_cookies_those_that_share_an_address_are_known_by_their_inodes() {
    for proto in [Proto::Tcp, Proto::Udp] {
        let (kind, state) = match proto {
            Proto::Tcp => (Kind::Listen, State::Listen),
            _ => (Kind::Bind, State::Unconn),
        };
        let member = |kind, inode| Event {
            sock: None,
            inode: Some(inode),
            proto: Some(proto),
            ..event(kind, 1, 0, 80, None)
        };
        let snapshot = |inodes: &[u64]| -> Vec<Row> {
            (inodes.iter().rev())
                .map(|&inode| row(member(kind, inode), state, inode))
                .collect()
        };
        let mut table = table(&[]);
        table.watch();
        table.apply(&member(kind, 13));
        table.seed(snapshot(&[11, 12, 13]));
        table.apply(&member(kind, 14));
        table.apply(&member(Kind::Close, 12));
        for _ in 0..2 {
            table.watch();
            let rows = snapshot(&[11, 13, 14]);
            assert_eq!(table.reconcile(rows, &scope(&[]), 2), []);
        }
        let open = table.iter().filter(|sight| sight.end.is_none());
        let mut inodes: Vec<_> = open.map(|x| x.socket.inode.get()).collect();
        inodes.sort_unstable();
        assert_eq!(inodes, [Some(11), Some(13), Some(14)]);
    }
}

#[test]
fn a_cookie_that_came_later_is_no_other_socket() {
    let unnamed = Event {
        sock: None,
        ..event(Kind::Listen, 1, 0, 80, None)
    };
    let mut table = table(&[unnamed]);
    let named = row(event(Kind::Listen, 1, 5, 80, None), State::Listen, 1);
    for _ in 0..3 {
        table.watch();
        assert_eq!(table.reconcile([named.clone()], &scope(&[]), 2), []);
    }
    assert_eq!(table.len(), 1);
}

#[test]
fn accepted_mptcp_sockets_are_not_taken_for_their_listener() {
    let mptcp = |kind, rport| Event {
        proto: Some(Proto::Mptcp),
        ..event(kind, 1, 1, 80, rport)
    };
    let table = table(&[mptcp(Kind::Listen, None), mptcp(Kind::Accept, Some(9))]);
    assert_eq!(table.len(), 2);
}

fn mptcp_listener(cookie: Option<u64>, inode: u64) -> Row {
    let mut listen = event(Kind::Listen, 1, 0, 80, None);
    (listen.proto, listen.sock) = (Some(Proto::Mptcp), cookie);
    row(listen, State::Listen, inode)
}

#[test]
fn mptcp_listeners_that_share_an_address_are_several() {
    let told = [1, 2, 3].map(|cookie| mptcp_listener(Some(cookie), 0).event);
    let mut table = table(&told);
    assert_eq!(table.len(), 3);
    // A snapshot does not tell the cookies of all.
    let rows = [(None, 12), (Some(2), 11), (None, 13)];
    let rows = rows.map(|(cookie, inode)| mptcp_listener(cookie, inode));
    for _ in 0..3 {
        table.watch();
        assert_eq!(table.reconcile(rows.clone(), &scope(&[]), 2), []);
    }
    let mut inodes: Vec<_> = table.iter().map(|x| x.socket.inode.get()).collect();
    inodes.sort_unstable();
    assert_eq!(inodes, [Some(11), Some(12), Some(13)]);
    for (event, left) in told.iter().zip([2, 1, 0]) {
        table.apply(&Event {
            kind: Kind::Close,
            ..event.clone()
        });
        assert_eq!(table.len(), left);
    }
}

#[test]
fn an_mptcp_listener_without_a_cookie_gets_it_when_it_ends() {
    let close = Event {
        kind: Kind::Close,
        ..mptcp_listener(Some(7), 0).event
    };
    let mut table = table(&[]);
    table.watch();
    table.seed([mptcp_listener(None, 1)]);
    table.apply(&close);
    assert_eq!(states(&table), [(State::Listen, true)]);
    // One that events told of while the snapshot was taken is not there twice.
    let listen = mptcp_listener(Some(8), 0).event;
    for after in [
        None,
        Some(Event {
            sock: Some(8),
            ..close
        }),
    ] {
        let mut table = Table::new(Limits::default());
        table.watch();
        table.apply(&listen);
        after.iter().for_each(|event| table.apply(event));
        table.seed([mptcp_listener(None, 1)]);
        assert_eq!(table.len(), usize::from(after.is_none()));
    }
}

#[test]
fn an_mptcp_socket_that_was_bound_first_is_one() {
    let mptcp = |kind, rport| Event {
        proto: Some(Proto::Mptcp),
        ..event(kind, 1, 1, 80, rport)
    };
    let refused = Event {
        error: Some(libc::ECONNREFUSED as u16),
        ..mptcp(Kind::Connect, Some(9))
    };
    let mut table = table(&[mptcp(Kind::Bind, None), refused]);
    assert_eq!(states(&table), [(State::Unconn, false)]);
    table.apply(&mptcp(Kind::Connect, Some(9)));
    assert_eq!(states(&table), [(State::Estab, false)]);
    table.apply(&mptcp(Kind::Close, Some(9)));
    assert_eq!(states(&table), [(State::Estab, true)]);
}

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
fn a_connection_replaces_what_was_left_at_its_addresses() {
    let connect = |cookie| event(Kind::Connect, 1, cookie, 80, Some(9));
    let left = row(connect(1), State::TimeWait, 0);
    let other = row(event(Kind::Connect, 1, 2, 80, Some(10)), State::TimeWait, 0);
    let elsewhere = Event {
        netns: Some(2),
        ..connect(3)
    };
    let mut table = table(&[]);
    table.watch();
    table.seed([left.clone(), other.clone()]);
    table.apply(&elsewhere);
    assert_eq!(table.len(), 3);
    table.apply(&connect(4));
    let left_are = |table: &Table| {
        let mut cookies: Vec<_> = (table.iter()).map(|x| x.socket.sock.get()).collect();
        cookies.sort_unstable();
        cookies
    };
    assert_eq!(left_are(&table), [Some(2), Some(3), Some(4)]);
    // A snapshot begun before shows it still.
    table.watch();
    table.apply(&connect(5));
    table.reconcile([left, other.clone()], &scope(&[]), 2);
    assert!(!left_are(&table).contains(&Some(1)));
    // In a queue, only snapshots tell of it.
    table.watch();
    let queued = row(event(Kind::Accept, 1, 6, 80, Some(10)), State::Estab, 0);
    table.reconcile([other, queued], &scope(&[]), 3);
    assert!(!left_are(&table).contains(&Some(2)));
    assert!(left_are(&table).contains(&Some(6)));
}

#[test]
fn what_waits_to_be_accepted_goes_with_its_listener() {
    let listen = |cookie, addr: &str| Event {
        laddr: addr.parse().ok(),
        ..event(Kind::Listen, 1, cookie, 80, None)
    };
    let waits = |cookie, addr: &str, state, inode| {
        let came = Event {
            laddr: addr.parse().ok(),
            ..event(Kind::Accept, 1, cookie, 80, Some(9))
        };
        row(came, state, inode)
    };
    let listeners = [
        listen(1, "127.0.0.1"),
        listen(2, "0.0.0.0"),
        listen(3, "0.0.0.0"),
    ];
    let mut table = table(&listeners);
    table.watch();
    table.seed([
        waits(11, "127.0.0.1", State::Estab, 0),
        waits(12, "127.0.0.2", State::CloseWait, 0),
        waits(13, "127.0.0.3", State::Estab, 113),
        waits(14, "127.0.0.4", State::FinWait2, 0),
        waits(15, "127.0.0.5", State::TimeWait, 0),
    ]);
    let mut left = |closed: &Event| {
        table.apply(&Event {
            kind: Kind::Close,
            ts: 2,
            ..closed.clone()
        });
        let open = table.iter().filter(|x| x.end.is_none() && x.key >= Key(11));
        let mut open: Vec<_> = open.map(|x| x.key.0).collect();
        open.sort_unstable();
        open
    };
    let [exact, one, other] = &listeners;
    assert_eq!(left(exact), [12, 13, 14, 15]);
    assert_eq!(left(one), [12, 13, 14, 15], "the other one may have it");
    assert_eq!(left(other), [13, 14, 15]);
    assert_eq!(table.waiting.len(), 0);
}

#[test]
fn what_a_process_has_taken_does_not_go_with_the_listener() {
    let listen = event(Kind::Listen, 1, 1, 80, None);
    let accept = event(Kind::Accept, 3, 2, 80, Some(9));
    let mut table = table(std::slice::from_ref(&listen));
    table.watch();
    table.seed([row(accept.clone(), State::Estab, 0)]);
    table.apply(&accept);
    table.apply(&Event {
        kind: Kind::Close,
        ..listen
    });
    assert!(table.get(Key(2)).unwrap().end.is_none());
}

#[test]
fn time_wait_is_over_after_a_minute() {
    const SECOND: u64 = 1_000_000_000;
    let came = |ts, rport| event(Kind::Connect, ts, u64::from(rport), 80, Some(rport));
    let mut table = table(&[]);
    table.watch();
    table.seed([
        row(came(0, 1), State::TimeWait, 0),
        row(came(30 * SECOND, 2), State::TimeWait, 0),
        row(came(0, 3), State::FinWait2, 0),
    ]);
    let mut left = |seconds| {
        table.tick(seconds * SECOND);
        table.len()
    };
    assert_eq!([59, 65, 93, 95].map(&mut left), [3, 2, 2, 1]);
    // It began when it was seen to.
    table.watch();
    let rows = [row(came(100 * SECOND, 3), State::TimeWait, 0)];
    table.reconcile(rows, &scope(&[]), 100 * SECOND);
    let mut left = |seconds| {
        table.tick(seconds * SECOND);
        table.len()
    };
    assert_eq!([159, 165].map(&mut left), [1, 0]);
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

/// All that grows with the number of sockets: what the table keeps of each, the places of hash
/// tables at their emptiest, and half of a B-tree's.
#[test]
fn a_hundred_thousand_rows_take_a_small_part_of_64_mib() {
    let bucket = size_of::<Key>() + size_of::<u64>() + size_of::<Open>();
    let index = 2 * size_of::<usize>() * 8 / 7 + 2;
    let listener = 2 * size_of::<(Maybe<u32>, u16, Key)>();
    // A row is in one of these at most, as is what waits in the first one's space.
    let left = 2 * size_of::<(Key, Key)>();
    let each = bucket + index + listener.max(left);
    assert!(each * 100_000 <= 32 << 20, "{each} bytes a row");
}
