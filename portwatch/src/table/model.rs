//! The table beside a small world of sockets that knows the truth.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::event::{Comm, Event, Family, Origin, Peer};
use crate::snapshot::{Gap, Why};

/// Nanoseconds that each step takes.
const STEP: u64 = 1_000_000;

/// What happens next, with numbers that choose which socket it happens to.
#[derive(Clone, Debug)]
enum Step {
    Bind {
        port: u16,
    },
    Listen(usize),
    Connect(usize),
    /// The connection appears, and nobody accepts it yet.
    Arrive(usize),
    Accept(usize),
    /// The other side closes: no event tells.
    PeerCloses(usize),
    Close {
        which: usize,
        time_wait: bool,
    },
    /// What TIME-WAIT left is gone.
    Expire(usize),
    /// The event of the last step never comes.
    Lose,
    /// A snapshot begins, or goes on: it reads some sockets now, others later.
    Read {
        most: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let n = || any::<usize>();
    prop_oneof![
        3 => (1..5u16).prop_map(|port| Step::Bind { port }),
        2 => n().prop_map(Step::Listen),
        2 => n().prop_map(Step::Connect),
        2 => n().prop_map(Step::Arrive),
        2 => n().prop_map(Step::Accept),
        1 => n().prop_map(Step::PeerCloses),
        3 => (n(), any::<bool>()).prop_map(|(which, time_wait)| Step::Close { which, time_wait }),
        1 => n().prop_map(Step::Expire),
        1 => Just(Step::Lose),
        5 => (0..2usize).prop_map(|most| Step::Read { most }),
    ]
}

#[derive(Clone, Debug)]
struct Socket {
    row: Row,
    /// A process has it.
    held: bool,
}

/// Sockets by cookie, and what of them is on its way to the table.
struct World {
    now: u64,
    cookie: u64,
    sockets: BTreeMap<u64, Socket>,
    event: Option<Event>,
}

impl World {
    fn new() -> Self {
        Self {
            now: 1_000 * STEP,
            cookie: 0,
            sockets: BTreeMap::new(),
            event: None,
        }
    }

    fn make(&mut self, kind: Kind, state: State, lport: u16, rport: Option<u16>) -> u64 {
        self.cookie += 1;
        let event = event(kind, self.now, self.cookie, lport, rport);
        let row = Row {
            event,
            state,
            since: None,
            recv_queue: Some(0),
            send_queue: Some(0),
            inode: Some(self.cookie + 1_000),
            device: None,
            v6only: None,
        };
        self.sockets.insert(self.cookie, Socket { row, held: true });
        self.cookie
    }

    /// The one of those that fit which the number chooses.
    fn choose(&self, number: usize, fit: impl Fn(&Socket) -> bool) -> Option<u64> {
        let fitting: Vec<u64> = (self.sockets.iter())
            .filter(|(_, socket)| fit(socket))
            .map(|(&cookie, _)| cookie)
            .collect();
        fitting.get(number % fitting.len().max(1)).copied()
    }

    fn tell(&mut self, kind: Kind, cookie: u64) {
        let socket = &self.sockets[&cookie].row.event;
        let lport = socket.lport.unwrap();
        self.event = Some(event(kind, self.now, cookie, lport, socket.rport));
    }

    /// Carries out one step; what it tells is in `event` afterwards.
    fn carry_out(&mut self, step: &Step) {
        self.now += STEP;
        match *step {
            Step::Bind { port } => {
                let cookie = self.make(Kind::Bind, State::Unconn, port, None);
                self.tell(Kind::Bind, cookie);
            }
            Step::Listen(n) => self.turn(n, State::Unconn, Kind::Listen, State::Listen),
            Step::Connect(n) => self.turn(n, State::Unconn, Kind::Connect, State::Estab),
            Step::Arrive(n) => {
                if let Some(listener) = self.choose(n, |s| s.row.state == State::Listen) {
                    let port = self.sockets[&listener].row.event.lport.unwrap();
                    let cookie = self.make(Kind::Accept, State::Estab, port, Some(9));
                    let socket = self.sockets.get_mut(&cookie).unwrap();
                    socket.held = false;
                    socket.row.inode = None;
                }
            }
            Step::Accept(n) => {
                if let Some(cookie) = self.choose(n, |s| !s.held && s.row.state == State::Estab) {
                    let socket = self.sockets.get_mut(&cookie).unwrap();
                    socket.held = true;
                    socket.row.inode = Some(cookie + 1_000);
                    self.tell(Kind::Accept, cookie);
                }
            }
            Step::PeerCloses(n) => {
                if let Some(cookie) = self.choose(n, |s| s.row.state == State::Estab) {
                    self.sockets.get_mut(&cookie).unwrap().row.state = State::CloseWait;
                }
            }
            Step::Close { which, time_wait } => {
                if let Some(cookie) = self.choose(which, |s| s.held) {
                    self.tell(Kind::Close, cookie);
                    let socket = self.sockets.get_mut(&cookie).unwrap();
                    if time_wait && socket.row.state == State::Estab {
                        socket.row.state = State::TimeWait;
                        socket.row.inode = None;
                        socket.held = false;
                    } else {
                        self.sockets.remove(&cookie);
                    }
                }
            }
            Step::Expire(n) => {
                if let Some(cookie) = self.choose(n, |s| s.row.state == State::TimeWait) {
                    self.sockets.remove(&cookie);
                }
            }
            Step::Lose | Step::Read { .. } => {}
        }
    }

    /// A socket in one state goes to another and an event tells.
    fn turn(&mut self, n: usize, from: State, kind: Kind, to: State) {
        let Some(cookie) = self.choose(n, |s| s.row.state == from) else {
            return;
        };
        let row = &mut self.sockets.get_mut(&cookie).unwrap().row;
        row.state = to;
        row.event.kind = kind;
        row.event.rport = (kind == Kind::Connect).then_some(9);
        self.tell(kind, cookie);
    }

    fn snapshot(&self) -> Vec<Row> {
        let rows = self.visible().map(|socket| socket.row.clone());
        // Something in the namespace is always there to be seen.
        rows.chain([anchor()]).collect()
    }

    /// What a snapshot shows: not tcp sockets that are only bound.
    fn visible(&self) -> impl Iterator<Item = &Socket> {
        (self.sockets.values()).filter(|socket| socket.row.state != State::Unconn)
    }

    /// Open sockets that the table has to have, with their states.
    fn truth(&self) -> BTreeMap<u64, State> {
        let held = self.sockets.iter().filter(|(_, socket)| socket.held);
        held.map(|(&cookie, socket)| (cookie, socket.row.state))
            .collect()
    }
}

const ANCHOR: u64 = 1 << 40;

fn anchor() -> Row {
    Row {
        event: event(Kind::Bind, 0, ANCHOR, 53, None),
        state: State::Unconn,
        since: None,
        recv_queue: None,
        send_queue: None,
        inode: None,
        device: None,
        v6only: None,
    }
}

fn event(kind: Kind, ts: u64, cookie: u64, lport: u16, rport: Option<u16>) -> Event {
    let mut event = Event::new(kind, Origin::Live, ts);
    event.proto = Some(Proto::Tcp);
    event.netns = Some(1);
    event.sock = Some(cookie);
    event.laddr = Some("127.0.0.1".parse().unwrap());
    event.raddr = rport.and(event.laddr);
    event.lport = Some(lport);
    event.rport = rport;
    event.pid = Some(7);
    event
}

/// A snapshot that is being taken.
#[derive(Default)]
struct Reading {
    rows: Vec<Row>,
    /// Cookie that was read last.
    at: u64,
}

impl Reading {
    /// Reads some more; whether that was all.
    fn go_on(&mut self, world: &World, most: usize) -> bool {
        let rest: Vec<(u64, Row)> = (world.visible())
            .map(|socket| (socket.row.event.sock.unwrap(), socket.row.clone()))
            .filter(|(cookie, _)| *cookie > self.at)
            .collect();
        for (cookie, row) in rest.iter().take(most) {
            self.at = *cookie;
            self.rows.push(row.clone());
        }
        rest.len() <= most
    }
}

/// Open sockets of the table that a process has, with their states. CLOSE-WAIT may not be known yet.
fn told(table: &Table, world: &World) -> BTreeMap<u64, State> {
    let open = table.open.values().filter(|open| open.told);
    open.map(|open| {
        let cookie = open.socket.sock.get().unwrap();
        let real = world.sockets.get(&cookie).map(|socket| socket.row.state);
        match (open.socket.state, real) {
            (State::Estab, Some(State::CloseWait)) => (cookie, State::CloseWait),
            (state, _) => (cookie, state),
        }
    })
    .collect()
}

/// Runs the steps. The table starts after the first `before` of them. Returns it with the world and
/// the differences that were found on the way, and whether any was suspected.
fn play(steps: &[Step], before: usize) -> (Table, World, Vec<Difference>, bool) {
    let mut world = World::new();
    let (early, late) = steps.split_at(before.min(steps.len()));
    for step in early {
        world.carry_out(step);
    }
    world.event = None;
    let mut table = Table::new(Limits::default());
    let mut reading = Some(Reading::default());
    let mut seeding = true;
    let (mut differences, mut doubted) = (Vec::new(), false);
    table.watch();
    for step in late {
        if matches!(step, Step::Lose) {
            world.event = None;
            continue;
        }
        if let Some(event) = world.event.take() {
            table.apply(&event);
        }
        world.carry_out(step);
        if let Step::Read { most } = *step {
            let mut going = reading.take().unwrap_or_else(|| {
                table.watch();
                Reading::default()
            });
            if going.go_on(&world, most) {
                going.rows.push(anchor());
                if seeding {
                    table.seed(going.rows);
                } else {
                    differences.extend(table.reconcile(going.rows, &[], world.now));
                    doubted |= table.in_doubt();
                }
                seeding = false;
            } else {
                reading = Some(going);
            }
        }
    }
    if let Some(event) = world.event.take() {
        table.apply(&event);
    }
    if seeding {
        table.watch();
        table.seed(world.snapshot());
    }
    (table, world, differences, doubted)
}

/// Quiet comparisons until nothing is in doubt.
fn settle(table: &mut Table, world: &World) -> Vec<Difference> {
    let mut differences = Vec::new();
    for _ in 0..2 {
        table.watch();
        differences.extend(table.reconcile(world.snapshot(), &[], world.now));
    }
    differences
}

/// Only bound, a socket that was there before the start is seen by no snapshot.
fn without_unseen(map: BTreeMap<u64, State>) -> BTreeMap<u64, State> {
    let seen = map.into_iter().filter(|(_, state)| *state != State::Unconn);
    seen.collect()
}

proptest! {
    #[test]
    fn without_losses_the_table_is_the_truth_and_no_difference_is_found(
        steps in proptest::collection::vec(step(), 0..120),
        before in 0..30usize,
    ) {
        let steps: Vec<Step> = steps.into_iter().filter(|x| !matches!(x, Step::Lose)).collect();
        let (mut table, world, differences, doubted) = play(&steps, before);
        prop_assert!(differences.is_empty() && !doubted, "a false alarm");
        prop_assert_eq!(without_unseen(told(&table, &world)), without_unseen(world.truth()));
        prop_assert_eq!(settle(&mut table, &world), vec![]);
        prop_assert_eq!(without_unseen(told(&table, &world)), without_unseen(world.truth()));
    }

    #[test]
    fn after_losses_two_comparisons_make_the_table_the_truth(
        steps in proptest::collection::vec(step(), 0..120),
        before in 0..30usize,
    ) {
        let (mut table, world, ..) = play(&steps, before);
        let wrong = without_unseen(told(&table, &world)) != without_unseen(world.truth());
        let differences = settle(&mut table, &world);
        prop_assert!(!wrong || !differences.is_empty(), "papered over");
        prop_assert_eq!(without_unseen(told(&table, &world)), without_unseen(world.truth()));
        prop_assert_eq!(settle(&mut table, &world), vec![]);
        // What no process has is shown as well.
        let open: Vec<u64> = table.open.values().filter_map(|x| x.socket.sock.get()).collect();
        for socket in world.visible() {
            prop_assert!(open.contains(&socket.row.event.sock.unwrap()));
        }
    }

    #[test]
    fn no_sequence_of_events_is_too_strange(events in crate::view::lines::samples::events(0..30)) {
        let mut table = Table::new(Limits { closed: 8, ..Limits::default() });
        for event in &events {
            table.apply(event);
        }
        prop_assert!(table.closed.iter().count() <= 2 * 8);
        let listening = (table.open.iter()).filter(|(k, open)| listening(**k, &open.socket).is_some());
        prop_assert_eq!(listening.count(), table.listeners.len());
        for sight in table.iter() {
            sight.row();
        }
    }
}

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
        [(State::Estab, true)]
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
fn a_cookie_that_came_later_is_no_other_socket() {
    let unnamed = Event {
        sock: None,
        ..event(Kind::Listen, 1, 0, 80, None)
    };
    let mut table = table(&[unnamed]);
    let named = Row {
        event: event(Kind::Listen, 1, 5, 80, None),
        state: State::Listen,
        inode: Some(1),
        device: None,
        v6only: None,
        ..anchor()
    };
    for _ in 0..3 {
        table.watch();
        assert_eq!(table.reconcile([named.clone()], &[], 2), []);
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
    Row {
        event: listen,
        state: State::Listen,
        inode: Some(inode),
        ..anchor()
    }
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
        assert_eq!(table.reconcile(rows.clone(), &[], 2), []);
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
    let mut row = Row {
        event: event(Kind::Listen, 1, 1, 80, None),
        state: State::Listen,
        inode: Some(1),
        device: None,
        v6only: None,
        recv_queue: Some(3),
        ..anchor()
    };
    row.event.pid = Some(20);
    row.event.comm = Some(Comm([b'x'; 16]));
    row.event.holders = Some(vec![peer(20), peer(21)]);
    table.watch();
    assert_eq!(table.reconcile([row], &[], 2), []);
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
        found.push(table.reconcile([anchor()], &[], now));
    }
    let [first, second, third] = found.try_into().unwrap();
    assert!(first.is_empty() && third.is_empty());
    let event = second[0].event(20);
    assert_eq!((event.kind, event.origin), (Kind::Close, Origin::Poll));
    assert_eq!((event.lport, event.ts), (Some(80), 20));
    assert_eq!(
        states(&table),
        [(State::Unconn, false), (State::Listen, true)]
    );
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
        table.reconcile([anchor()], gaps, 2).len()
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
    let each = bucket + index + listener;
    assert!(each * 100_000 <= 32 << 20, "{each} bytes a row");
}
