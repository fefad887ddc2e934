//! Connections that no process has, and what ends them.

use super::*;

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
