//! Ports that somebody has.

use expect_test::expect;

use super::*;

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
        Rules::DEFAULT,
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
        Rules::DEFAULT,
        &rows,
        expect![[r#"
            127.0.0.2:8080/tcp: free, nobody has it
            127.0.0.2:8080/udp: free, nobody has it
            verdict: 127.0.0.2:8080/tcp+udp is free: a bind succeeds
        "#]],
    );
}

#[test]
fn what_is_left_of_a_connection_is_no_client() {
    let left = Row {
        state: State::TimeWait,
        ..client("127.0.0.1:40001", "127.0.0.1:8080")
    };
    let answer = answer(question(None), Rules::DEFAULT, std::slice::from_ref(&left));
    assert_eq!(answer.reports[0].clients(), []);
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
        answer(question, Rules::DEFAULT, rows).verdict()
    };
    expect!["8080/tcp is taken on 127.0.0.1, 127.0.0.2 by srv (pid 1) and srv (pid 2): a bind there or to 0.0.0.0 or to [::] fails with EADDRINUSE, one to another address succeeds (on 10.0.0.1 only if it and the sockets there set SO_REUSEADDR)"].assert_eq(&verdict(&rows));
    rows.extend((3..6).map(|pid| server("127.0.0.2", pid)));
    rows.extend([server("0.0.0.0", 1)]);
    expect!["a bind to 8080/tcp fails with EADDRINUSE: srv (pid 1), srv (pid 2), srv (pid 3) and 2 more have it"].assert_eq(&verdict(&rows));
}

#[test]
fn only_time_wait_is_no_obstacle_to_servers() {
    let mut row = Row::connection(State::TimeWait, "10.0.0.1:8080", "10.0.0.2:4000", 1, "x");
    (row.event.pid, row.event.comm, row.event.uid) = (None, None, None);
    row.event.context = None;
    check(
        question(None),
        Rules::DEFAULT,
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
        answer(question, Rules::DEFAULT, rows).verdict()
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
                "a bind to 8080/tcp on [::], perhaps also on 0.0.0.0, fails with EADDRINUSE: python3 (pid 7262) has it; 8080/udp is free: a bind succeeds"
            ],
        ),
    ] {
        let answer = answer(question(None), Rules::DEFAULT, &[wildcard(v6only)]).verdict();
        expected.assert_eq(&answer);
    }
}

#[test]
fn where_only_some_addresses_are_taken_the_others_are_told_by_what_meets_them() {
    let listener = |addr: &str, v6only| Row {
        v6only,
        ..Row::server(Proto::Tcp, &format!("{addr}:8080"), 7, "srv")
    };
    let bound = |addr: &str, v6only| Row {
        state: State::Unconn,
        ..listener(addr, v6only)
    };
    let left = Row::connection(State::TimeWait, "127.0.0.1:8080", "10.0.0.9:4000", 9, "srv");
    let verdict = |rows: &[Row]| {
        let question = Question {
            protos: vec![Proto::Tcp],
            ..question(None)
        };
        answer(question, Rules::DEFAULT, rows).verdict()
    };
    let only_v6 = Some(true);
    expect!["8080/tcp is taken on [::] by srv (pid 7): a bind there fails with EADDRINUSE, one to an IPv4 address succeeds (on 0.0.0.0 and on 127.0.0.1 only if it and the sockets there set SO_REUSEADDR)"].assert_eq(&verdict(&[listener("[::]", only_v6), left.clone()]));
    expect!["8080/tcp is taken on [::1] by srv (pid 7): a bind there or to [::] fails with EADDRINUSE, one to another address succeeds (on 0.0.0.0 and on 127.0.0.1 only if it and the sockets there set SO_REUSEADDR)"].assert_eq(&verdict(&[listener("[::1]", only_v6), left.clone()]));
    expect!["8080/tcp is taken on 127.0.0.2, [::] by srv (pid 7): a bind there or to 0.0.0.0 fails with EADDRINUSE, one to another IPv4 address succeeds (on 127.0.0.1 only if it and the sockets there set SO_REUSEADDR)"].assert_eq(&verdict(&[
        listener("[::]", only_v6),
        listener("127.0.0.2", None),
        left,
    ]));
    expect!["8080/tcp is taken on 127.0.0.2 by srv (pid 7): a bind there or to 0.0.0.0 or to [::] fails with EADDRINUSE, one to another address succeeds (on those of IPv6 only if it and the sockets there set SO_REUSEADDR)"].assert_eq(&verdict(&[
        bound("[::]", only_v6),
        listener("127.0.0.2", None),
    ]));
    expect!["8080/tcp is taken on 127.0.0.2 by srv (pid 7): a bind there or to 0.0.0.0 or to [::] fails with EADDRINUSE, one to another address succeeds only if it and the sockets there set SO_REUSEADDR"].assert_eq(&verdict(&[
        bound("[::]", Some(false)),
        listener("127.0.0.2", None),
    ]));
    expect!["8080/tcp is taken on 127.0.0.2 by srv (pid 7): a bind there or to 0.0.0.0 or to [::] fails with EADDRINUSE, one to another address succeeds (perhaps on those of IPv4 and on those of IPv6 only if it and the sockets there set SO_REUSEADDR)"].assert_eq(&verdict(&[
        bound("[::]", None),
        listener("127.0.0.2", None),
    ]));
    expect!["8080/tcp is taken on [::1] by srv (pid 7): a bind there or to [::] fails with EADDRINUSE, one to another address succeeds (on those of IPv4 only if it and the sockets there set SO_REUSEADDR)"].assert_eq(&verdict(&[
        bound("0.0.0.0", None),
        listener("[::1]", only_v6),
    ]));
    // nobody listens
    expect!["a bind to 8080/tcp on [::] fails with EADDRINUSE unless it and the sockets there set SO_REUSEADDR, one on 0.0.0.0 succeeds: nobody listens, but srv (pid 7) has it"].assert_eq(&verdict(&[bound("[::1]", only_v6)]));
    expect!["a bind to 8080/tcp on [::], perhaps also on 0.0.0.0, fails with EADDRINUSE unless it and the sockets there set SO_REUSEADDR: nobody listens, but curl (pid 99) has it"].assert_eq(&verdict(&[client("[::1]:8080", "[::1]:443")]));
}

#[test]
fn a_udp_socket_of_ipv6_with_a_peer_may_be_for_ipv4_too() {
    let mut row = Row::connection(State::Estab, "[::1]:8080", "[::1]:53", 9, "dig");
    row.event.proto = Some(Proto::Udp);
    let question = Question {
        protos: vec![Proto::Udp],
        ..question(None)
    };
    expect!["8080/udp is taken on [::1] by dig (pid 9): a bind there or to [::], perhaps also to 0.0.0.0, fails with EADDRINUSE, one to another address succeeds"].assert_eq(&answer(question, Rules::DEFAULT, &[row]).verdict());
}

#[test]
fn a_group_is_one_server_and_a_hidden_process_is_told_as_such() {
    let rows = [
        Row::server(Proto::Tcp, "0.0.0.0:8080", 10, "worker"),
        Row::server(Proto::Tcp, "0.0.0.0:8080", 11, "worker"),
    ];
    check(
        question(None),
        Rules::DEFAULT,
        &rows,
        expect![[r#"
            8080/tcp: worker (pid 10, user root) listens on 0.0.0.0
              also open in worker(11)
              shared       by several sockets with SO_REUSEPORT: others that set it may join if the same user opens them
              queue        0 of 256 wait to be accepted
              bind         0.0.0.0: EADDRINUSE (LISTEN of worker (pid 10) on 0.0.0.0, the same address; LISTEN of worker (pid 11) on 0.0.0.0, the same address)
              bind         [::]: EADDRINUSE (LISTEN of worker (pid 10) on 0.0.0.0, the same address; LISTEN of worker (pid 11) on 0.0.0.0, the same address)
            8080/udp: free, nobody has it
            verdict: a bind to 8080/tcp fails with EADDRINUSE: worker (pid 10) and worker (pid 11) have it; 8080/udp is free: a bind succeeds
        "#]],
    );
    let rows = [10, 11].map(|pid| Row::server(Proto::Udp, "0.0.0.0:8080", pid, "worker"));
    let text = answer(question(None), Rules::DEFAULT, &rows).text(&Style::sample());
    let shared = text.lines().find(|line| line.starts_with("  shared "));
    expect!["  shared       by several sockets with SO_REUSEPORT or SO_REUSEADDR: others that set it may join, with SO_REUSEPORT only those that the same user opens"].assert_eq(shared.unwrap());
    let mut hidden = python();
    (hidden.event.pid, hidden.event.comm, hidden.event.holders) = (None, None, None);
    hidden.event.context = Some(Arc::new(Context {
        user: Some("root".into()),
        ..Context::default()
    }));
    check(
        question(None),
        Rules::DEFAULT,
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
