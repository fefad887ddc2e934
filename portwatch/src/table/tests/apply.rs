//! What single events do.

use super::*;

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
