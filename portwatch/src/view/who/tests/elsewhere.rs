//! Other addresses, devices, namespaces, and what the machine allows.

use expect_test::expect;

use super::*;
use crate::bind::Refusal;
use crate::device::Device;
use crate::filter::Spans;

#[test]
fn an_address_of_another_machine_cannot_be_bound() {
    let foreign = Rules {
        refusals: [Proto::Tcp, Proto::Udp]
            .map(|x| (x, Refusal::Foreign))
            .into(),
        ..Rules::DEFAULT
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
        ..Rules::DEFAULT
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
fn a_wildcard_of_ipv6_meets_no_ipv4_where_it_is_for_ipv6_only() {
    let rules = Rules {
        v6only: true,
        ..Rules::DEFAULT
    };
    let question = Question {
        protos: vec![Proto::Tcp],
        ..question(None)
    };
    let listener = |addr: &str| Row::server(Proto::Tcp, &format!("{addr}:8080"), 7, "srv");
    check(
        question.clone(),
        rules.clone(),
        &[listener("0.0.0.0")],
        expect![[r#"
            8080/tcp: srv (pid 7, user root) listens on 0.0.0.0
              queue        0 of 128 wait to be accepted
              bind         0.0.0.0: EADDRINUSE (LISTEN of srv (pid 7) on 0.0.0.0, the same address)
            verdict: 8080/tcp is taken on 0.0.0.0 by srv (pid 7): a bind there fails with EADDRINUSE, one to an IPv6 address succeeds
        "#]],
    );
    let verdict = |rows: &[Row]| answer(question.clone(), rules.clone(), rows).verdict();
    let client = client("127.0.0.1:8080", "10.0.0.2:443");
    expect!["8080/tcp is taken on 127.0.0.1 by srv (pid 7): a bind there or to 0.0.0.0 fails with EADDRINUSE, one to another address succeeds"].assert_eq(&verdict(&[listener("127.0.0.1")]));
    expect!["a bind to 8080/tcp on [::], perhaps also on 0.0.0.0, fails with EADDRINUSE: srv (pid 7) has it"].assert_eq(&verdict(&[listener("[::]")]));
    expect!["a bind to 8080/tcp fails with EADDRINUSE: srv (pid 7) has it"]
        .assert_eq(&verdict(&[listener("0.0.0.0"), listener("[::1]")]));
    expect!["a bind to 8080/tcp on 0.0.0.0 fails with EADDRINUSE unless it and the sockets there set SO_REUSEADDR, one on [::] succeeds: nobody listens, but curl (pid 99) has it"].assert_eq(&verdict(&[client]));
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
        Rules::DEFAULT,
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
        Rules::DEFAULT,
        &elsewhere,
        expect![[r#"
            8080/tcp: free here, nobody has it
              sockets      2 ESTAB in other namespaces, 1 TIME-WAIT in other namespaces
              peers        10.0.0.2 (2) in another network namespace (2), 10.0.0.2 (1) in another network namespace (blue)
            verdict: 8080/tcp is free: a bind succeeds
        "#]],
    );
    let mut all = elsewhere.to_vec();
    all.push(connection(1, State::Estab, "10.0.0.2:4000"));
    check(
        question.clone(),
        Rules::DEFAULT,
        &all,
        expect![[r#"
            8080/tcp: nobody listens, but 1 other socket has it
              sockets      1 ESTAB, 2 ESTAB in other namespaces, 1 TIME-WAIT in other namespaces
              peers        10.0.0.2 (1), 10.0.0.2 (2) in another network namespace (2), 10.0.0.2 (1) in another network namespace (blue)
              bind         0.0.0.0: EADDRINUSE unless both set SO_REUSEADDR (ESTAB of x (pid 1) on 10.0.0.1, which this one includes)
              bind         [::]: EADDRINUSE unless both set SO_REUSEADDR (ESTAB of x (pid 1) on 10.0.0.1, which this one includes)
            verdict: a bind to 8080/tcp fails with EADDRINUSE unless it and the sockets there set SO_REUSEADDR: nobody listens, but x (pid 1) has it
        "#]],
    );
    check(
        question,
        Rules::DEFAULT,
        &all[1..2],
        expect![[r#"
            8080/tcp: free here, nobody has it
              sockets      1 TIME-WAIT in another namespace
              peers        10.0.0.2 (1) in another network namespace (2)
            verdict: 8080/tcp is free: a bind succeeds
        "#]],
    );
}

#[test]
fn clients_of_other_namespaces_are_told_with_theirs_and_come_last() {
    let mut elsewhere = client("127.0.0.1:4001", "127.0.0.1:8080");
    elsewhere.event.netns = Some(3);
    let here = client("127.0.0.1:4000", "127.0.0.1:8080");
    let mut hidden = here.clone();
    (hidden.event.pid, hidden.event.comm) = (None, None);
    let question = Question {
        protos: vec![Proto::Tcp],
        ..question(None)
    };
    check(
        question,
        Rules::DEFAULT,
        &[elsewhere.clone(), elsewhere, here, hidden],
        expect![[r#"
            8080/tcp: free, nobody has it
              clients here a process of user root to 127.0.0.1, curl(99) to 127.0.0.1, curl(99) to 127.0.0.1 x2 in another network namespace (blue)
            verdict: 8080/tcp is free: a bind succeeds
        "#]],
    );
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
    let verdict = |question, rows: &[Row]| answer(question, Rules::DEFAULT, rows).verdict();
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
        ..Rules::DEFAULT
    };
    let nowhere = answer(ask(Some("::1"), Some("eth9")), absent, &[]).verdict();
    expect![
        "a bind to [::1]%eth9:8080/tcp fails with ENODEV: there is no such network interface here"
    ]
    .assert_eq(&nowhere);
    check(
        ask(None, None),
        Rules::DEFAULT,
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
        ..Rules::DEFAULT
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
        ..Rules::DEFAULT
    };
    check(
        high.clone(),
        Rules::DEFAULT,
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
