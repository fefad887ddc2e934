use proptest::prelude::*;

use super::*;
use crate::event::Family;
use crate::snapshot::{Traffic, Why};

const TICK_NS: u64 = 200_000_000;
const STEPS: usize = 14;

fn socket(proto: Proto, state: State, inode: u64) -> Socket {
    let local = "127.0.0.1".parse().unwrap();
    let port = 10_000 + u16::try_from(inode).unwrap();
    let connected = !matches!(state, State::Unconn | State::Listen);
    Socket {
        proto,
        family: Family::Ipv4,
        state,
        local: (local, port),
        remote: connected.then_some((local, 9)),
        device: None,
        netns: Some(1),
        sock: Some(inode + 500),
        inode: Some(inode),
        v6only: None,
        uid: 0,
        recv_queue: 0,
        send_queue: Some(7),
        traffic: None,
    }
}

fn nobody(_: &Socket) -> Option<Owner> {
    None
}

/// Kinds of events of one step after another; the first snapshot is no step.
fn kinds(snapshots: &[Vec<Socket>]) -> Vec<Vec<Kind>> {
    let mut compare = Compare::new(snapshots[0].clone(), nobody);
    let steps = snapshots.iter().enumerate().skip(1);
    steps
        .map(|(step, now)| {
            let events = compare.step(now.clone(), &[], step as u64 * TICK_NS, nobody);
            events.into_iter().map(|event| event.kind).collect()
        })
        .collect()
}

#[test]
fn a_listener_and_its_connection_begin_and_end_once() {
    let listener = socket(Proto::Tcp, State::Listen, 1);
    let server = |state, inode| Socket {
        local: listener.local,
        inode,
        ..socket(Proto::Tcp, state, 2)
    };
    let waiting = server(State::Estab, None);
    let accepted = server(State::Estab, Some(2));
    let left = server(State::TimeWait, None);
    let snapshots = [
        vec![],
        vec![listener.clone(), waiting],
        vec![listener.clone(), accepted.clone()],
        vec![listener.clone(), accepted],
        vec![listener, left.clone()],
        vec![left],
    ];
    let expected = [
        vec![Kind::Listen],
        vec![Kind::Accept],
        vec![],
        vec![Kind::Close],
        vec![Kind::Close],
    ];
    assert_eq!(kinds(&snapshots), expected);
}

#[test]
fn a_connection_is_accepted_though_its_listener_is_gone_meanwhile() {
    let listener = socket(Proto::Tcp, State::Listen, 1);
    let accepted = Socket {
        local: listener.local,
        ..socket(Proto::Tcp, State::Estab, 2)
    };
    let snapshots = [vec![listener], vec![accepted]];
    assert_eq!(kinds(&snapshots), [[Kind::Close, Kind::Accept]]);
}

#[test]
fn a_number_given_to_another_socket_is_an_end_and_a_beginning() {
    let first = socket(Proto::Udp, State::Unconn, 1);
    let second = Socket {
        sock: Some(9000),
        ..first.clone()
    };
    let snapshots = [vec![first], vec![second]];
    assert_eq!(kinds(&snapshots), [[Kind::Close, Kind::Bind]]);
}

#[test]
fn a_socket_that_changes_its_peer_connects_again() {
    let first = socket(Proto::Udp, State::Estab, 1);
    let mut second = first.clone();
    second.remote = Some(("127.0.0.1".parse().unwrap(), 10));
    let snapshots = [vec![], vec![first], vec![second]];
    let expected = [vec![Kind::Bind, Kind::Connect], vec![Kind::Connect]];
    assert_eq!(kinds(&snapshots), expected);
}

#[test]
fn a_socket_that_begins_anew_has_an_end_for_each_life() {
    let listener = socket(Proto::Tcp, State::Listen, 1);
    let connection = socket(Proto::Tcp, State::Estab, 1);
    let bound = socket(Proto::Tcp, State::Unconn, 1);
    let snapshots = [
        vec![bound.clone()],
        vec![listener.clone()],
        vec![bound.clone()],
        vec![bound.clone()],
        vec![listener],
        vec![connection],
        vec![bound],
        vec![],
    ];
    let expected = [
        vec![Kind::Listen],
        vec![Kind::Close],
        vec![],
        vec![Kind::Listen],
        vec![Kind::Connect],
        vec![Kind::Close],
        vec![],
    ];
    assert_eq!(kinds(&snapshots), expected);
}

#[test]
fn a_connect_without_an_outcome_ends_without_a_connection() {
    let mut connecting = socket(Proto::Tcp, State::SynSent, 1);
    connecting.traffic = Some(Traffic {
        rtt_us: 0,
        retrans: 3,
        rx_bytes: 0,
        tx_bytes: 1,
    });
    let bound = socket(Proto::Tcp, State::Unconn, 1);
    for last in [vec![], vec![bound]] {
        let mut compare = Compare::new(vec![], nobody);
        let mut told = Vec::new();
        let ticks = std::iter::repeat_n(vec![connecting.clone()], 7);
        for (step, now) in ticks.chain([last, vec![]]).enumerate() {
            told.extend(compare.step(now, &[], step as u64 * TICK_NS, nobody));
        }
        let [connect, close] = &told[..] else {
            panic!("{told:?}");
        };
        assert!(connect.has_error(libc::EINPROGRESS));
        assert_eq!(close.kind, Kind::Close);
        let told = (close.duration_us, close.tx_bytes, close.retrans);
        assert_eq!(told, (None, None, None));
    }
}

#[test]
fn an_end_tells_what_was_last_known() {
    let traffic = Traffic {
        rtt_us: 40,
        retrans: 1,
        rx_bytes: 10,
        tx_bytes: 20,
    };
    let state = State::CloseWait;
    let last = Socket {
        traffic: Some(traffic),
        state,
        ..socket(Proto::Tcp, state, 1)
    };
    let mut compare = Compare::new(vec![], nobody);
    compare.step(
        vec![socket(Proto::Tcp, State::Estab, 1)],
        &[],
        1_000_000,
        nobody,
    );
    compare.step(vec![last], &[], 2_000_000, nobody);
    let events = compare.step(vec![], &[], 4_000_000, nobody);
    let [event] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((event.kind, event.origin), (Kind::Close, Origin::Poll));
    assert_eq!((event.rx_bytes, event.tx_bytes), (Some(10), Some(20)));
    assert_eq!((event.rtt_us, event.retrans), (Some(40), Some(1)));
    assert_eq!((event.duration_us, event.ts), (Some(3_000), 4_000_000));
    assert_eq!(event.cause, Some(Cause::Remote));
    assert_eq!((event.sock, event.netns), (Some(501), Some(1)));
}

#[test]
fn what_is_missing_or_new_is_noticed() {
    let one = socket(Proto::Udp, State::Unconn, 1);
    let compare = Compare::new(vec![one.clone()], nobody);
    assert!(!compare.misses(std::slice::from_ref(&one), &[]) && !compare.has_news(&[one]));
    let other = socket(Proto::Udp, State::Unconn, 2);
    assert!(compare.misses(std::slice::from_ref(&other), &[]) && compare.has_news(&[other]));
    let nobodys = Socket {
        inode: None,
        ..socket(Proto::Tcp, State::TimeWait, 3)
    };
    assert!(!compare.has_news(&[nobodys]));
}

#[test]
fn what_may_be_in_a_gap_has_not_ended() {
    let listener = socket(Proto::Tcp, State::Listen, 1);
    let accepted = Socket {
        local: listener.local,
        ..socket(Proto::Tcp, State::Estab, 2)
    };
    let other = socket(Proto::Udp, State::Unconn, 3);
    let gap = |netns, table| {
        let why = Why::Lines(1);
        [Gap { netns, table, why }]
    };
    let tcp = Some((Proto::Tcp, Family::Ipv4));
    for gaps in [gap(Some(1), tcp), gap(None, tcp)] {
        let mut compare = Compare::new(vec![listener.clone(), other.clone()], nobody);
        assert!(!compare.misses(std::slice::from_ref(&other), &gaps));
        let events = compare.step(vec![], &gaps, 1, nobody);
        assert_eq!(
            events[..].iter().map(|x| x.sock).collect::<Vec<_>>(),
            [Some(503)]
        );
        // whose listener cannot be seen
        let events = compare.step(vec![accepted.clone()], &gaps, 2, nobody);
        assert_eq!(events[0].kind, Kind::Accept);
        let whole = vec![listener.clone(), accepted.clone()];
        assert_eq!(compare.step(whole, &[], 3, nobody), []);
        assert_eq!(compare.step(vec![], &[], 4, nobody).len(), 2);
    }
    for gaps in [
        gap(Some(2), None),
        gap(None, Some((Proto::Tcp, Family::Ipv6))),
    ] {
        let mut compare = Compare::new(vec![listener.clone()], nobody);
        assert!(compare.misses(&[], &gaps));
        assert_eq!(compare.step(vec![], &gaps, 1, nobody).len(), 1);
    }
}

/// A socket's life: what it is in each snapshot, and the steps at which something is to be told.
#[derive(Clone, Debug)]
struct Life {
    proto: Proto,
    states: Vec<Option<(State, bool)>>,
    expected: Vec<(usize, Kind, bool)>,
}

/// One that has `state` and a holder from `from` to before `to`.
fn simple(proto: Proto, state: State, begins: Kind, from: usize, to: usize) -> Life {
    let states = (0..STEPS).map(|step| (from..to).contains(&step).then_some((state, true)));
    let mut expected = Vec::new();
    if from > 0 && from < to {
        expected.push((from, begins, false));
    }
    if from < to && to < STEPS {
        expected.push((to, Kind::Close, false));
    }
    Life {
        proto,
        states: states.collect(),
        expected,
    }
}

/// Tries to connect from `from`, has done so at `done`, closes at `to`, and lingers for two steps.
fn client(from: usize, done: usize, to: usize) -> Life {
    let state = |step: usize| match step {
        _ if step < from => None,
        _ if step < done.min(to) => Some((State::SynSent, true)),
        _ if step < to => Some((State::Estab, true)),
        _ if step < to + 2 => Some((State::TimeWait, false)),
        _ => None,
    };
    let there_at_start = from == 0;
    // five steps are a second
    let slow = !there_at_start && done.min(to) > from + 5;
    let connected = done < to;
    let mut expected = Vec::new();
    if slow {
        expected.push((from + 5, Kind::Connect, true));
    }
    if connected && done > 0 {
        expected.push((done, Kind::Connect, false));
    }
    if from < to && (there_at_start || slow || connected) {
        expected.push((to, Kind::Close, false));
    }
    expected.retain(|(step, ..)| *step < STEPS);
    Life {
        proto: Proto::Tcp,
        states: (0..STEPS).map(state).collect(),
        expected,
    }
}

fn life() -> impl Strategy<Value = Life> {
    let listener = |from, to| simple(Proto::Tcp, State::Listen, Kind::Listen, from, to);
    let udp = |from, to| simple(Proto::Udp, State::Unconn, Kind::Bind, from, to);
    let span = || (0..STEPS).prop_flat_map(|from| (Just(from), from..STEPS + 4));
    prop_oneof![
        span().prop_map(move |(from, to)| listener(from, to)),
        span().prop_map(move |(from, to)| udp(from, to)),
        span()
            .prop_flat_map(|(from, to)| (Just(from), from..to + 2, Just(to)))
            .prop_map(|(from, done, to)| client(from, done, to)),
    ]
}

proptest! {
    /// Whatever lives together, each is told of as if it were alone, closes first.
    #[test]
    fn every_life_is_told_as_it_was(lives in proptest::collection::vec(life(), 0..12)) {
        let at = |step: usize| -> Vec<Socket> {
            let there = lives.iter().enumerate().filter_map(|(i, life)| {
                let (state, held) = life.states[step]?;
                let socket = socket(life.proto, state, i as u64 + 1);
                Some(Socket { inode: socket.inode.filter(|_| held), ..socket })
            });
            // the order of a snapshot says nothing
            let mut there: Vec<Socket> = there.collect();
            let by = step % there.len().max(1);
            there.rotate_left(by);
            there
        };
        let mut compare = Compare::new(at(0), nobody);
        for step in 1..STEPS {
            let events = compare.step(at(step), &[], step as u64 * TICK_NS, nobody);
            let closes = events.iter().take_while(|x| x.kind == Kind::Close).count();
            prop_assert!(events[closes..].iter().all(|x| x.kind != Kind::Close));
            let mut told: Vec<_> = events
                .iter()
                .map(|x| (x.sock.unwrap() - 501, x.kind, x.error.is_some()))
                .collect();
            let mut expected: Vec<_> = (0_u64..)
                .zip(&lives)
                .flat_map(|(i, life)| life.expected.iter().map(move |x| (i, x)))
                .filter(|(_, (when, ..))| *when == step)
                .map(|(i, (_, kind, failed))| (i, *kind, *failed))
                .collect();
            told.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(told, expected);
        }
    }
}
