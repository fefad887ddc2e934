//! Golden answers for rows made by hand.

mod elsewhere;
mod json;
mod past;
mod taken;

use std::sync::Arc;

use expect_test::Expect;

use super::*;
use crate::event::Kind;
use crate::port;

const NOW: u64 = 1_700_000_000_000_000_000;

fn question(addr: Option<&str>) -> Question {
    Question {
        port: 8080,
        addr: addr.map(|x| x.parse().unwrap()),
        device: None,
        protos: vec![Proto::Tcp, Proto::Udp],
        netns: Some(1),
    }
}

fn answer<'a>(question: Question, rules: Rules, rows: &'a [Row]) -> Answer<'a> {
    Answer {
        reports: port::reports(&question, &rules, rows),
        question,
        rules,
        started: HashMap::from([(7262, NOW - 60_000_000_000)]),
        limits: &[],
        past: None,
    }
}

fn check(question: Question, rules: Rules, rows: &[Row], expected: Expect) {
    expected.assert_eq(&answer(question, rules, rows).text(&Style::sample()));
}

fn peer(pid: u32, comm: &str) -> Peer {
    Peer {
        pid,
        comm: comm.into(),
        sock: None,
    }
}

/// Python's web server on the loopback address.
fn python() -> Row {
    let mut row = Row::server(Proto::Tcp, "127.0.0.1:8080", 7262, "python3");
    row.event.context = Some(Arc::new(Context {
        exe: Some("/usr/bin/python3.11".into()),
        args: Some(["python3".into(), "-m".into(), "\x1b[2J".into()].into()),
        user: Some("root".into()),
        parents: Some(vec![peer(7256, "bash"), peer(1, "init")]),
        unit: Some("session-3.scope".into()),
        ..Context::default()
    }));
    row.event.holders = Some(vec![peer(7262, "python3"), peer(7300, "child")]);
    row
}

/// A connection that was made from here.
fn client(local: &str, remote: &str) -> Row {
    let mut row = Row::connection(State::Estab, local, remote, 99, "curl");
    row.event.kind = Kind::Connect;
    row
}
