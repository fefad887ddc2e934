//! Which events and snapshots are about the same socket.

use super::*;

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
