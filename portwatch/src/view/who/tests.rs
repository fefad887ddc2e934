//! Golden answers for rows made by hand.

use std::sync::Arc;

use expect_test::{Expect, expect};
use jiff::tz::TimeZone;

use super::*;
use crate::bind::Refusal;
use crate::device::Device;
use crate::event::{Comm, Kind};
use crate::filter::{Span, Spans};
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

fn rules() -> Rules {
    Rules {
        unprivileged_start: 1024,
        privileged: true,
        ephemeral: Span {
            first: 32768,
            last: 60999,
        },
        reserved: Spans(Vec::new()),
        refusals: Vec::new(),
        unseen: None,
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
    let style = Style {
        colour: false,
        numeric: false,
        width: 80,
        zone: TimeZone::UTC,
        now: NOW,
        netns: Some(1),
        netns_names: HashMap::from([(3, "blue".to_owned())]),
    };
    expected.assert_eq(&answer(question, rules, rows).text(&style));
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
        args: Some(vec!["python3".into(), "-m".into(), "\x1b[2J".into()]),
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

#[test]
fn a_listener_is_told_in_the_first_line() {
    let connection =
        |state, remote: &str| Row::connection(state, "127.0.0.1:8080", remote, 7262, "python3");
    let rows = [
        python(),
        connection(State::Estab, "127.0.0.1:40001"),
        connection(State::Estab, "127.0.0.1:40002"),
        connection(State::TimeWait, "127.0.0.2:40003"),
        client("127.0.0.1:40001", "127.0.0.1:8080"),
    ];
    check(
        question(None),
        rules(),
        &rows,
        expect![[r#"
            8080/tcp: python3 (pid 7262, user root) listens on 127.0.0.1, running since 22:12:20
              command      python3 -m \x1b[2J
              program      /usr/bin/python3.11
              unit         session-3.scope
              parents      bash(7256) < init(1)
              also open in child(7300)
              queue        0 of 128 wait to be accepted
              sockets      2 ESTAB, 1 TIME-WAIT
              peers        127.0.0.1 (2), 127.0.0.2 (1)
              clients here curl(99) to 127.0.0.1
              bind         0.0.0.0: EADDRINUSE (LISTEN of python3 (pid 7262) on 127.0.0.1, which this one includes)
              bind         [::]: EADDRINUSE (LISTEN of python3 (pid 7262) on 127.0.0.1, which this one includes)
            8080/udp: free, nobody has it
            verdict: 8080/tcp is taken on 127.0.0.1 by python3 (pid 7262): a bind there or to 0.0.0.0 or to [::] fails with EADDRINUSE, one to another address succeeds; 8080/udp is free: a bind succeeds
        "#]],
    );
    check(
        question(Some("127.0.0.2")),
        rules(),
        &rows,
        expect![[r#"
            127.0.0.2:8080/tcp: free, nobody has it
            127.0.0.2:8080/udp: free, nobody has it
            verdict: 127.0.0.2:8080/tcp+udp is free: a bind succeeds
        "#]],
    );
}

#[test]
fn all_that_have_the_port_are_named_and_what_is_left_on_other_addresses() {
    let server = |addr: &str, pid| Row::server(Proto::Tcp, &format!("{addr}:8080"), pid, "srv");
    let left = |addr: &str| {
        let local = format!("{addr}:8080");
        Row::connection(State::TimeWait, &local, "10.0.0.9:4000", 9, "srv")
    };
    let mut rows = vec![
        server("127.0.0.1", 1),
        server("127.0.0.2", 2),
        left("127.0.0.1"),
        left("10.0.0.1"),
        left("10.0.0.1"),
    ];
    let verdict = |rows: &[Row]| {
        let question = Question {
            protos: vec![Proto::Tcp],
            ..question(None)
        };
        answer(question, rules(), rows).verdict()
    };
    expect!["8080/tcp is taken on 127.0.0.1, 127.0.0.2 by srv (pid 1) and srv (pid 2): a bind there or to 0.0.0.0 or to [::] fails with EADDRINUSE, one to another address succeeds (on 10.0.0.1 only if it and the sockets there set SO_REUSEADDR)"].assert_eq(&verdict(&rows));
    rows.extend((3..6).map(|pid| server("127.0.0.2", pid)));
    rows.extend([server("0.0.0.0", 1)]);
    expect!["a bind to 8080/tcp fails with EADDRINUSE: srv (pid 1), srv (pid 2), srv (pid 3) and 2 more have it"].assert_eq(&verdict(&rows));
}

#[test]
fn an_address_of_another_machine_cannot_be_bound() {
    let foreign = Rules {
        refusals: [Proto::Tcp, Proto::Udp]
            .map(|x| (x, Refusal::Foreign))
            .into(),
        ..rules()
    };
    check(
        question(Some("203.0.113.7")),
        foreign.clone(),
        &[],
        expect![[r#"
            203.0.113.7:8080/tcp: free, nobody has it
              bind         203.0.113.7: EADDRNOTAVAIL (this machine does not have that address)
            203.0.113.7:8080/udp: free, nobody has it
              bind         203.0.113.7: EADDRNOTAVAIL (this machine does not have that address)
            verdict: a bind to 203.0.113.7:8080/tcp+udp fails with EADDRNOTAVAIL: this machine does not have that address
        "#]],
    );
    let unprivileged = Rules {
        unprivileged_start: 9000,
        privileged: false,
        ..foreign
    };
    for (addr, error) in [("203.0.113.7", "EADDRNOTAVAIL"), ("2001:db8::7", "EACCES")] {
        let answer = answer(question(Some(addr)), unprivileged.clone(), &[]);
        assert_eq!(answer.reports[0].binds[0].error(), Some(error), "{addr}");
    }
}

#[test]
fn multicast_of_ipv6_is_for_udp() {
    let multicast = Rules {
        refusals: vec![(Proto::Tcp, Refusal::Invalid)],
        ..rules()
    };
    check(
        question(Some("ff0e::1")),
        multicast.clone(),
        &[],
        expect![[r#"
            [ff0e::1]:8080/tcp: free, nobody has it
              bind         [ff0e::1]: EINVAL (tcp has no multicast)
            [ff0e::1]:8080/udp: free, nobody has it
            verdict: a bind to [ff0e::1]:8080/tcp fails with EINVAL: tcp has no multicast; [ff0e::1]:8080/udp is free: a bind succeeds
        "#]],
    );
    // it is looked at before the privilege, unlike other addresses of IPv6
    let unprivileged = Rules {
        unprivileged_start: 9000,
        privileged: false,
        ..multicast
    };
    let answer = answer(question(Some("ff0e::1")), unprivileged, &[]);
    let errors: Vec<_> = answer.reports.iter().map(|x| x.binds[0].error()).collect();
    assert_eq!(errors, [Some("EINVAL"), Some("EACCES")]);
}

#[test]
fn only_time_wait_is_no_obstacle_to_servers() {
    let mut row = Row::connection(State::TimeWait, "10.0.0.1:8080", "10.0.0.2:4000", 1, "x");
    (row.event.pid, row.event.comm, row.event.uid) = (None, None, None);
    row.event.context = None;
    check(
        question(None),
        rules(),
        &[row],
        expect![[r#"
            8080/tcp: nobody listens, but 1 other socket has it
              sockets      1 TIME-WAIT
              peers        10.0.0.2 (1)
              bind         0.0.0.0: EADDRINUSE unless both set SO_REUSEADDR (TIME-WAIT of the kernel on 10.0.0.1, which this one includes)
              bind         [::]: EADDRINUSE unless both set SO_REUSEADDR (TIME-WAIT of the kernel on 10.0.0.1, which this one includes)
            8080/udp: free, nobody has it
            verdict: a bind to 8080/tcp fails with EADDRINUSE unless it and the sockets there set SO_REUSEADDR: nobody listens, only connections in TIME-WAIT are left; 8080/udp is free: a bind succeeds
        "#]],
    );
}

#[test]
fn who_has_a_port_without_serving_is_named_and_success_is_not_promised() {
    let verdict = |addr: Option<&str>, port: u16, rows: &[Row]| {
        let question = Question {
            port,
            protos: vec![Proto::Tcp],
            ..question(addr)
        };
        answer(question, rules(), rows).verdict()
    };
    let fixed = [
        client("127.0.0.1:8080", "10.0.0.2:443"),
        Row {
            state: State::Unconn,
            ..Row::server(Proto::Tcp, "127.0.0.1:8080", 7, "bound")
        },
    ];
    expect!["a bind to 8080/tcp fails with EADDRINUSE unless it and the sockets there set SO_REUSEADDR: nobody listens, but bound (pid 7) and curl (pid 99) have it"]
        .assert_eq(&verdict(None, 8080, &fixed));
    let picked = [client("127.0.0.1:40000", "10.0.0.2:443")];
    expect!["a bind to 40000/tcp fails with EADDRINUSE unless it and the sockets there set SO_REUSEADDR, which clients whose port the kernel picked hardly do: nobody listens, but curl (pid 99) has it"]
        .assert_eq(&verdict(None, 40000, &picked));
    // which end is the client is not known
    let between = [client("127.0.0.1:40000", "10.0.0.2:40001")];
    expect!["a bind to 40000/tcp fails with EADDRINUSE unless it and the sockets there set SO_REUSEADDR: nobody listens, but curl (pid 99) has it"]
        .assert_eq(&verdict(None, 40000, &between));
    let ipv6 = [client("[::1]:8080", "[::1]:443")];
    expect!["a bind to 0.0.0.0:8080/tcp may fail with EADDRINUSE unless it and the sockets there set SO_REUSEADDR: nobody listens, but curl (pid 99) has it, perhaps only for IPv6"]
        .assert_eq(&verdict(Some("0.0.0.0"), 8080, &ipv6));
    expect!["127.0.0.1:8080/tcp is free: a bind succeeds"].assert_eq(&verdict(
        Some("127.0.0.1"),
        8080,
        &ipv6,
    ));
    let served = [
        client("[::1]:8080", "[::1]:443"),
        Row::server(Proto::Tcp, "[::1]:8080", 7, "srv"),
    ];
    expect!["8080/tcp is taken on [::1] by srv (pid 7): a bind there or to [::] fails with EADDRINUSE, one to another address succeeds (perhaps on 0.0.0.0 only if it and the sockets there set SO_REUSEADDR)"].assert_eq(&verdict(None, 8080, &served));
}

#[test]
fn json_tells_on_what_an_error_depends() {
    let connection = |local: &str| {
        let remote = if local.starts_with('[') {
            "[::1]:443"
        } else {
            "127.0.0.1:443"
        };
        Row::connection(State::Estab, local, remote, 99, "curl")
    };
    let binds = |rows: &[Row]| {
        let json = json(&answer(question(Some("0.0.0.0")), rules(), rows));
        let mut bind = json["protocols"][0]["binds"][0].clone();
        bind.as_object_mut().unwrap().remove("obstacles");
        bind.to_string()
    };
    expect![[r#"{"error":"EADDRINUSE","error_with_reuseaddr":"EADDRINUSE","error_with_reuseaddr_if":["a socket there has not set SO_REUSEADDR"],"laddr":"0.0.0.0"}"#]].assert_eq(&binds(&[connection("127.0.0.1:8080")]));
    expect![[r#"{"error":"EADDRINUSE","error_if":["a socket there is for IPv4 as well"],"error_with_reuseaddr":"EADDRINUSE","error_with_reuseaddr_if":["a socket there is for IPv4 as well and has not set SO_REUSEADDR"],"laddr":"0.0.0.0"}"#]].assert_eq(&binds(&[connection("[::1]:8080")]));
    expect![[r#"{"error":"EADDRINUSE","error_with_reuseaddr":"EADDRINUSE","error_with_reuseaddr_if":["a socket there is for IPv4 as well and has not set SO_REUSEADDR","a socket there has not set SO_REUSEADDR"],"laddr":"0.0.0.0"}"#]].assert_eq(&binds(&[
        connection("[::1]:8080"),
        connection("127.0.0.1:8080"),
    ]));
    expect![[r#"{"error":"EADDRINUSE","error_with_reuseaddr":"EADDRINUSE","laddr":"0.0.0.0"}"#]]
        .assert_eq(&binds(&[
            Row::server(Proto::Tcp, "127.0.0.1:8080", 7, "srv"),
            connection("[::1]:8080"),
        ]));
    expect![[r#"{"laddr":"0.0.0.0"}"#]].assert_eq(&binds(&[]));
}

#[test]
fn another_namespace_has_its_own_ports() {
    let mut contained = Row::server(Proto::Tcp, "0.0.0.0:8080", 55, "nginx");
    contained.event.netns = Some(2);
    contained.event.context = Some(Arc::new(Context {
        container: Some("0123456789ab".into()),
        ..Context::default()
    }));
    let mut named = Row::server(Proto::Udp, "[::]:8080", 56, "x");
    named.event.netns = Some(3);
    check(
        question(None),
        rules(),
        &[contained, named],
        expect![[r#"
            8080/tcp: nginx (pid 55, user 0) listens on 0.0.0.0 in container 0123456789ab in another network namespace (2)
              queue        0 of 128 wait to be accepted
            8080/udp: x (pid 56, user root) receives on [::] in another network namespace (blue)
            verdict: 8080/tcp+udp is free here, a bind succeeds: each network namespace has ports of its own
        "#]],
    );
}

#[test]
fn sockets_of_all_other_namespaces_are_counted_together() {
    let connection = |netns, state, remote: &str| {
        let mut row = Row::connection(state, "10.0.0.1:8080", remote, 1, "x");
        row.event.netns = Some(netns);
        row
    };
    let elsewhere = [
        connection(2, State::Estab, "10.0.0.2:4000"),
        connection(2, State::TimeWait, "10.0.0.2:4001"),
        connection(3, State::Estab, "10.0.0.2:4000"),
    ];
    let question = Question {
        protos: vec![Proto::Tcp],
        ..question(None)
    };
    check(
        question.clone(),
        rules(),
        &elsewhere,
        expect![[r#"
            8080/tcp: free here, nobody has it
              sockets      2 ESTAB in other namespaces, 1 TIME-WAIT in other namespaces
              peers        10.0.0.2 (3)
            verdict: 8080/tcp is free: a bind succeeds
        "#]],
    );
    let mut all = elsewhere.to_vec();
    all.push(connection(1, State::Estab, "10.0.0.2:4000"));
    check(
        question.clone(),
        rules(),
        &all,
        expect![[r#"
            8080/tcp: nobody listens, but 1 other socket has it
              sockets      1 ESTAB, 2 ESTAB in other namespaces, 1 TIME-WAIT in other namespaces
              peers        10.0.0.2 (4)
              bind         0.0.0.0: EADDRINUSE unless both set SO_REUSEADDR (ESTAB of x (pid 1) on 10.0.0.1, which this one includes)
              bind         [::]: EADDRINUSE unless both set SO_REUSEADDR (ESTAB of x (pid 1) on 10.0.0.1, which this one includes)
            verdict: a bind to 8080/tcp fails with EADDRINUSE unless it and the sockets there set SO_REUSEADDR: nobody listens, but x (pid 1) has it
        "#]],
    );
    check(
        question,
        rules(),
        &all[1..2],
        expect![[r#"
            8080/tcp: free here, nobody has it
              sockets      1 TIME-WAIT in another namespace
              peers        10.0.0.2 (1)
            verdict: 8080/tcp is free: a bind succeeds
        "#]],
    );
}

#[test]
fn a_wildcard_of_ipv6_may_be_for_ipv4_too() {
    let wildcard = |v6only| Row {
        v6only,
        ..Row::server(Proto::Tcp, "[::]:8080", 7262, "python3")
    };
    for (v6only, expected) in [
        (
            Some(false),
            expect![
                "a bind to 8080/tcp fails with EADDRINUSE: python3 (pid 7262) has it; 8080/udp is free: a bind succeeds"
            ],
        ),
        (
            Some(true),
            expect![
                "8080/tcp is taken on [::] by python3 (pid 7262): a bind there fails with EADDRINUSE, one to an IPv4 address succeeds; 8080/udp is free: a bind succeeds"
            ],
        ),
        (
            None,
            expect![
                "a bind to 8080/tcp fails with EADDRINUSE: python3 (pid 7262) has it; 8080/udp is free: a bind succeeds"
            ],
        ),
    ] {
        let answer = answer(question(None), rules(), &[wildcard(v6only)]).verdict();
        expected.assert_eq(&answer);
    }
}

#[test]
fn sockets_bound_to_a_device_are_told_with_it() {
    let on = |device: &str, local: &str, pid| Row {
        device: Device::new(device.as_bytes()),
        ..Row::server(Proto::Tcp, local, pid, "srv")
    };
    let ask = |addr, device: Option<&str>| Question {
        device: device.and_then(|x| Device::new(x.as_bytes())),
        protos: vec![Proto::Tcp],
        ..question(addr)
    };
    let verdict = |question, rows: &[Row]| answer(question, rules(), rows).verdict();
    let one = [on("lo", "127.0.0.53:8080", 1)];
    let all = [
        on("eth0", "0.0.0.0:8080", 1),
        on("eth\x1b", "0.0.0.0:8080", 2),
    ];
    expect!["8080/tcp is taken on 127.0.0.53%lo by srv (pid 1): a bind there or to 0.0.0.0 or to [::] fails with EADDRINUSE, one to another address succeeds"].assert_eq(&verdict(ask(None, None), &one));
    expect!["a bind to 127.0.0.53:8080/tcp fails with EADDRINUSE unless it is for another interface than lo: srv (pid 1) has it"].assert_eq(&verdict(ask(Some("127.0.0.53"), None), &one));
    expect!["a bind to 127.0.0.53%lo:8080/tcp fails with EADDRINUSE: srv (pid 1) has it"]
        .assert_eq(&verdict(ask(Some("127.0.0.53"), Some("lo")), &one));
    expect!["127.0.0.53%eth0:8080/tcp is free: a bind succeeds"]
        .assert_eq(&verdict(ask(Some("127.0.0.53"), Some("eth0")), &one));
    expect![[r#"a bind to 8080/tcp fails with EADDRINUSE unless it is for another interface than eth0 and eth\x1b: srv (pid 1) and srv (pid 2) have it"#]].assert_eq(&verdict(ask(None, None), &all));
    expect!["a bind to *%eth0:8080/tcp fails with EADDRINUSE: srv (pid 1) has it"]
        .assert_eq(&verdict(ask(None, Some("eth0")), &all));
    expect!["*%eth1:8080/tcp is free: a bind succeeds"]
        .assert_eq(&verdict(ask(None, Some("eth1")), &all));
    let absent = Rules {
        refusals: vec![(Proto::Tcp, Refusal::NoDevice)],
        privileged: false,
        ..rules()
    };
    let nowhere = answer(ask(Some("::1"), Some("eth9")), absent, &[]).verdict();
    expect![
        "a bind to [::1]%eth9:8080/tcp fails with ENODEV: there is no such network interface here"
    ]
    .assert_eq(&nowhere);
    check(
        ask(None, None),
        rules(),
        &all,
        expect![[r#"
        8080/tcp: srv (pid 2, user root) listens on 0.0.0.0%eth\x1b
          queue        0 of 128 wait to be accepted
        8080/tcp: srv (pid 1, user root) listens on 0.0.0.0%eth0
          queue        0 of 128 wait to be accepted
          bind         0.0.0.0: EADDRINUSE (LISTEN of srv (pid 1) on 0.0.0.0%eth0, the same address; LISTEN of srv (pid 2) on 0.0.0.0%eth\x1b, the same address)
          bind         [::]: EADDRINUSE (LISTEN of srv (pid 1) on 0.0.0.0%eth0, the same address; LISTEN of srv (pid 2) on 0.0.0.0%eth\x1b, the same address)
        verdict: a bind to 8080/tcp fails with EADDRINUSE unless it is for another interface than eth0 and eth\x1b: srv (pid 1) and srv (pid 2) have it
    "#]],
    );
}

#[test]
fn privilege_and_ranges_are_told() {
    let mut low = question(None);
    low.port = 80;
    let denied = Rules {
        privileged: false,
        ..rules()
    };
    check(
        low,
        denied,
        &[],
        expect![[r#"
            80/tcp: free, nobody has it
              bind         0.0.0.0: EACCES
              bind         [::]: EACCES
            80/udp: free, nobody has it
              bind         0.0.0.0: EACCES
              bind         [::]: EACCES
            note: ports below 1024 need root or CAP_NET_BIND_SERVICE
            verdict: a bind to 80/tcp+udp fails with EACCES: ports below 1024 need root or CAP_NET_BIND_SERVICE
        "#]],
    );
    let mut high = question(None);
    high.port = 40000;
    let reserved = Rules {
        reserved: Spans(vec!["40000-40010".parse().unwrap()]),
        ..rules()
    };
    check(
        high.clone(),
        rules(),
        &[],
        expect![[r#"
            40000/tcp: free, nobody has it
            40000/udp: free, nobody has it
            note: the kernel may give it to any outgoing connection (32768-60999); sysctl net.ipv4.ip_local_reserved_ports keeps it out
            verdict: 40000/tcp+udp is free: a bind succeeds
        "#]],
    );
    check(
        high,
        reserved,
        &[],
        expect![[r#"
            40000/tcp: free, nobody has it
            40000/udp: free, nobody has it
            note: kept out of the kernel's own choice (32768-60999) by ip_local_reserved_ports
            verdict: 40000/tcp+udp is free: a bind succeeds
        "#]],
    );
}

#[test]
fn a_group_is_one_server_and_a_hidden_process_is_told_as_such() {
    let rows = [
        Row::server(Proto::Tcp, "0.0.0.0:8080", 10, "worker"),
        Row::server(Proto::Tcp, "0.0.0.0:8080", 11, "worker"),
    ];
    check(
        question(None),
        rules(),
        &rows,
        expect![[r#"
            8080/tcp: worker (pid 10, user root) listens on 0.0.0.0
              also open in worker(11)
              shared       by several sockets with SO_REUSEPORT: others that set it may join
              queue        0 of 256 wait to be accepted
              bind         0.0.0.0: EADDRINUSE (LISTEN of worker (pid 10) on 0.0.0.0, the same address; LISTEN of worker (pid 11) on 0.0.0.0, the same address)
              bind         [::]: EADDRINUSE (LISTEN of worker (pid 10) on 0.0.0.0, the same address; LISTEN of worker (pid 11) on 0.0.0.0, the same address)
            8080/udp: free, nobody has it
            verdict: a bind to 8080/tcp fails with EADDRINUSE: worker (pid 10) and worker (pid 11) have it; 8080/udp is free: a bind succeeds
        "#]],
    );
    let mut hidden = python();
    (hidden.event.pid, hidden.event.comm, hidden.event.holders) = (None, None, None);
    hidden.event.context = Some(Arc::new(Context {
        user: Some("root".into()),
        ..Context::default()
    }));
    check(
        question(None),
        rules(),
        &[hidden],
        expect![[r#"
            8080/tcp: a process of user root listens on 127.0.0.1
              queue        0 of 128 wait to be accepted
              bind         0.0.0.0: EADDRINUSE (LISTEN of a process of user root on 127.0.0.1, which this one includes)
              bind         [::]: EADDRINUSE (LISTEN of a process of user root on 127.0.0.1, which this one includes)
            8080/udp: free, nobody has it
            verdict: 8080/tcp is taken on 127.0.0.1 by a process of user root: a bind there or to 0.0.0.0 or to [::] fails with EADDRINUSE, one to another address succeeds; 8080/udp is free: a bind succeeds
        "#]],
    );
}

fn json(answer: &Answer<'_>) -> serde_json::Value {
    let mut out = Vec::new();
    answer.put_json(&mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn json_is_harmless_and_leaves_out_what_is_absent() {
    let local = "127.0.0.1:8080";
    let mut client = client("127.0.0.1:40001", local);
    client.event.pid = None;
    client.event.comm = None;
    let mut evil = python();
    evil.event.comm = Some(Comm::from("\u{202e}\x1b[2J"));
    let rows = [
        evil,
        Row::connection(State::Estab, local, "127.0.0.1:40001", 7262, "python3"),
        client,
    ];
    let mut question = question(None);
    question.netns = None;
    let mut out = Vec::new();
    answer(question, rules(), &rows).put_json(&mut out);
    let text = String::from_utf8(out).unwrap();
    let deceives = |c| c != '\n' && sanitize::is_deceptive(c) || c == '\x1b';
    assert!(!text.contains(deceives), "{text}");
    assert!(text.contains(r"\u202e\u001b[2J"), "{text}");
    assert!(text.contains(r#""clients":[{"#), "{text}");
    assert!(!text.contains("null"), "{text}");
}

#[test]
fn json_has_the_documented_keys() {
    let rows = [
        python(),
        Row::connection(
            State::Estab,
            "127.0.0.1:8080",
            "127.0.0.1:40001",
            7262,
            "python3",
        ),
    ];
    let json = json(&answer(question(Some("127.0.0.1")), rules(), &rows));
    expect![[r#"
        {
          "addr": "127.0.0.1",
          "limits": [],
          "netns": 1,
          "port": 8080,
          "protocols": [
            {
              "binds": [
                {
                  "error": "EADDRINUSE",
                  "error_with_reuseaddr": "EADDRINUSE",
                  "laddr": "127.0.0.1",
                  "obstacles": [
                    {
                      "comm": "python3",
                      "laddr": "127.0.0.1",
                      "pid": 7262,
                      "state": "LISTEN",
                      "why": "the same address"
                    },
                    {
                      "comm": "python3",
                      "laddr": "127.0.0.1",
                      "pid": 7262,
                      "state": "ESTAB",
                      "why": "the same address"
                    }
                  ]
                }
              ],
              "clients": [],
              "peers": [
                {
                  "count": 1,
                  "raddr": "127.0.0.1"
                }
              ],
              "proto": "tcp",
              "servers": [
                {
                  "args": [
                    "python3",
                    "-m",
                    "\u001b[2J"
                  ],
                  "backlog": 128,
                  "comm": "python3",
                  "exe": "/usr/bin/python3.11",
                  "family": "ipv4",
                  "holders": [
                    {
                      "comm": "python3",
                      "pid": 7262
                    },
                    {
                      "comm": "child",
                      "pid": 7300
                    }
                  ],
                  "inode": 726200,
                  "laddr": "127.0.0.1",
                  "lport": 8080,
                  "netns": 1,
                  "parents": [
                    {
                      "comm": "bash",
                      "pid": 7256
                    },
                    {
                      "comm": "init",
                      "pid": 1
                    }
                  ],
                  "pid": 7262,
                  "proto": "tcp",
                  "recv_queue": 0,
                  "send_queue": 128,
                  "sock": 72620,
                  "started": "2023-11-14T22:12:20.000000000Z",
                  "state": "LISTEN",
                  "uid": 0,
                  "unit": "session-3.scope",
                  "user": "root"
                }
              ],
              "states": [
                {
                  "count": 1,
                  "netns": 1,
                  "state": "ESTAB"
                }
              ],
              "verdict": "a bind to 127.0.0.1:8080/tcp fails with EADDRINUSE: python3 (pid 7262) has it"
            },
            {
              "binds": [
                {
                  "laddr": "127.0.0.1",
                  "obstacles": []
                }
              ],
              "clients": [],
              "peers": [],
              "proto": "udp",
              "servers": [],
              "states": [],
              "verdict": "127.0.0.1:8080/udp is free: a bind succeeds"
            }
          ],
          "remarks": []
        }"#]].assert_eq(&serde_json::to_string_pretty(&json).unwrap());
}

#[test]
fn a_session_tells_what_was_before() {
    let events = crate::view::lines::samples::typical();
    let wanted = |event: &Event| event.rport.is_none() && event.laddr.is_some();
    let mut answer = answer(question(None), rules(), &[]);
    answer.past = Some(Past {
        at: NOW + 60_000_000_000,
        history: events.into_iter().filter(wanted).collect(),
    });
    let style = Style {
        colour: false,
        numeric: false,
        width: 80,
        zone: TimeZone::UTC,
        now: NOW,
        netns: Some(1),
        netns_names: HashMap::new(),
    };
    expect![[r#"
        8080/tcp: free, nobody has it
        8080/udp: free, nobody has it
        before, on this port:
          2023-11-14 22:13:20.124 listen tcp 0.0.0.0 by nginx(812)
          2023-11-14 22:13:20.125 bind   tcp 0.0.0.0 EADDRINUSE by \x1b]0;x\x07\xff(4242), held by nginx(812)
          2023-11-14 22:13:20.130 close  tcp 0.0.0.0 by nginx(812), open for 1h02m
        verdict: 8080/tcp+udp is free: a bind succeeds
    "#]].assert_eq(&answer.text(&style));
    let json = json(&answer);
    assert_eq!(json["at"], "2023-11-14T22:14:20.000000000Z");
    assert_eq!(json["history"][1]["error"], "EADDRINUSE");
    assert_eq!(json["history"][1].get("seq"), None);
}
