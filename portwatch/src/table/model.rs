//! The table beside a small world of sockets that knows the truth.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::event::{Event, Kind, Origin};
use crate::snapshot::{Gap, Scope};

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
        let mut event = event(kind, self.now, self.cookie, lport, rport);
        event.inode = Some(self.cookie + 1_000);
        let row = Row {
            event,
            state,
            since: None,
            recv_queue: Some(0),
            send_queue: Some(0),
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
                    let remote = self.remote(port);
                    let cookie = self.make(Kind::Accept, State::Estab, port, Some(remote));
                    let socket = self.sockets.get_mut(&cookie).unwrap();
                    socket.held = false;
                    socket.row.event.inode = None;
                }
            }
            Step::Accept(n) => {
                if let Some(cookie) = self.choose(n, |s| !s.held && s.row.state == State::Estab) {
                    let socket = self.sockets.get_mut(&cookie).unwrap();
                    socket.held = true;
                    socket.row.event.inode = Some(cookie + 1_000);
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
                        socket.row.event.inode = None;
                        socket.held = false;
                    } else if let Some(socket) = self.sockets.remove(&cookie) {
                        self.reset_queue(&socket);
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
        let lport = self.sockets[&cookie].row.event.lport.unwrap();
        let remote = (kind == Kind::Connect).then(|| self.remote(lport));
        let row = &mut self.sockets.get_mut(&cookie).unwrap().row;
        row.state = to;
        row.event.kind = kind;
        (row.event.rport, row.event.raddr) = (remote, remote.and(row.event.laddr));
        self.tell(kind, cookie);
    }

    /// What waited at the last listener of a port goes with it.
    fn reset_queue(&mut self, closed: &Socket) {
        let at_port = |x: &Socket| x.row.event.lport == closed.row.event.lport;
        let listens = |x: &Socket| x.row.state == State::Listen && at_port(x);
        if listens(closed) && !self.sockets.values().any(listens) {
            let states = [State::Estab, State::CloseWait];
            let waits = |x: &Socket| !x.held && states.contains(&x.row.state) && at_port(x);
            self.sockets.retain(|_, socket| !waits(socket));
        }
    }

    /// The other port of a new connection of this one: the first that no connection has. What was left
    /// there is replaced.
    fn remote(&mut self, lport: u16) -> u16 {
        let is_at = |socket: &Socket, remote| {
            let event = &socket.row.event;
            (event.lport, event.rport) == (Some(lport), Some(remote))
        };
        let connected = |socket: &Socket| socket.row.state != State::TimeWait;
        let has = |remote| (self.sockets.values()).any(|x| connected(x) && is_at(x, remote));
        let remote = (9..).find(|&remote| !has(remote)).unwrap();
        self.sockets.retain(|_, socket| !is_at(socket, remote));
        remote
    }

    fn snapshot(&self) -> Vec<Row> {
        self.visible().map(|socket| socket.row.clone()).collect()
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

/// A row of this event's socket, as a snapshot has it.
pub fn row(event: Event, state: State, inode: u64) -> Row {
    Row {
        event: Event {
            inode: Some(inode),
            ..event
        },
        state,
        since: None,
        recv_queue: None,
        send_queue: None,
        device: None,
        v6only: None,
    }
}

/// The namespace of all these events, and what was not seen of it.
pub fn scope(gaps: &[Gap]) -> Scope {
    Scope {
        namespaces: HashSet::from([Some(1)]),
        gaps: gaps.to_vec(),
        holders: Arc::default(),
    }
}

pub fn event(kind: Kind, ts: u64, cookie: u64, lport: u16, rport: Option<u16>) -> Event {
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
                if seeding {
                    table.seed(going.rows);
                } else {
                    differences.extend(table.reconcile(going.rows, &scope(&[]), world.now));
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
        differences.extend(table.reconcile(world.snapshot(), &scope(&[]), world.now));
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
        // What no process has is shown as well, and nothing twice.
        let open: Vec<u64> = table.open.values().filter_map(|x| x.socket.sock.get()).collect();
        for socket in world.visible() {
            prop_assert!(open.contains(&socket.row.event.sock.unwrap()));
        }
        let left = (table.open.values()).filter(|x| x.socket.state == State::TimeWait);
        prop_assert_eq!(left.count(), table.left.len());
        let waits = table.open.iter().filter(|(k, open)| waiting(**k, open).is_some());
        prop_assert_eq!(waits.count(), table.waiting.len());
    }

    #[test]
    fn no_sequence_of_events_is_too_strange(events in crate::view::lines::samples::events(0..30)) {
        let mut table = Table::new(Limits { closed: 8, ..Limits::default() });
        for event in &events {
            table.apply(event);
        }
        prop_assert!(table.closed.iter().count() <= 2 * 8);
        let left = (table.open.values()).filter(|x| x.socket.state == State::TimeWait);
        prop_assert_eq!(left.count(), table.left.len());
        let listening = (table.open.iter()).filter(|(k, open)| listening(**k, &open.socket).is_some());
        prop_assert_eq!(listening.count(), table.listeners.len());
        for sight in table.iter() {
            sight.row();
        }
    }
}
