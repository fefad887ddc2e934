//! What is on the screen.

use crossterm::event::KeyCode;
use expect_test::expect;
use ratatui::style::Modifier;

use super::*;

#[test]
fn everything_is_in_sight_at_80_by_24() {
    check(
        &[],
        (80, 24),
        expect![[r#"
            portwatch, tracepoint probes · 1234 events lost
            LISTENING AND BOUND 3 · by LOCAL, rising
            PROTO LOCAL                       PID COMM                QUEUE ACCEPTED     AGE
            tcp   0.0.0.0:80                  812 nginx               ?/511        1      1s
            tcp   0.0.0.0:8080               4242 \x1b]0;x\x07\x…     bound               1s
            tcp   [2001:db8:1234:56…:8081    4242 日本語日本          ?/128        0      1s


            CONNECTIONS 2 · by AGE, rising
            PROTO STATE        LOCAL             REMOTE               PID COMM           AGE
            tcp   end:remote   10.0.0.1:80       10.0.0.2:40001       812 nginx        2.50s
            tcp   ECONNREFUSED 192.168.10…:54321 192.168.1…:54322    4243 a-fifteen…
            tcp   ESTAB        [2001:db8:…:40000 [2001:db8::…:443 4194304 curl            1s
            tcp   ESTAB        192.0.2.100:40000 192.0.2.77:443   4194304 curl            1s


            EVENTS
            22:13:20.127 connect tcp      4243 a-fifteen-chars 192.168.100.200: ECONNREFUSED
            22:13:20.128 accept  tcp       812 nginx        10.0.0.1:80     10.0.0.2:40001
            22:13:20.129 close   tcp       812 nginx        10.0.0.1:80     10.0.0.2:40001
            22:13:20.126 connect tcp   4194304 curl         192.0.2.100:40000 192.0.2.77:443
            22:13:20.131 reset   tcp         - -            127.0.0.1:9     127.0.0.1:40002
            22:13:20.132 lost    *** 1234 events lost: they came faster than they could be r
            ? help · Tab pane · / filter · s sort · Space freeze · Enter details · q quit
        "#]],
    );
}

#[test]
fn a_backlog_that_nobody_told_is_left_out() {
    let mut listen = samples::typical().remove(0);
    (listen.sock, listen.backlog) = (Some(1), None);
    let text = lines(&draw(&mut screen(), &scene(&[listen]), 80, 24));
    let line = text.lines().find(|line| line.contains("0.0.0.0:80"));
    let expected =
        "tcp   0.0.0.0:80                  812 nginx                   ?        0      1s";
    assert_eq!(line, Some(expected));
}

/// A server, one that wanted the same port, a client that is served, and one that is not.
#[test]
fn the_readme_shows_the_screen_as_it_is() {
    let mut events = samples::typical();
    for (event, cookie) in events.iter_mut().zip([1, 2, 3, 4, 5, 5]) {
        event.sock = Some(cookie);
        event.netns = Some(1);
    }
    let mut taken = events.remove(1);
    taken.comm = Some("python3".into());
    taken.context = None;
    events.insert(1, taken);
    events.truncate(6);
    let picture = lines(&draw(&mut screen(), &scene(&events), 80, 20));
    let readme = include_str!("../../../../../README.md");
    assert!(
        readme.contains(&format!("```text\n{picture}```\n")),
        "{picture}"
    );
}

#[test]
fn more_columns_come_at_120_by_40() {
    check(
        &[],
        (120, 40),
        expect![[r#"
            portwatch, tracepoint probes · 1234 events lost
            LISTENING AND BOUND 3 · by LOCAL, rising
            PROTO LOCAL                          PID COMM                QUEUE ACCEPTED     AGE USER     SERVICE      WHERE
            tcp   0.0.0.0:80                     812 nginx               ?/511        1      1s root     http
            tcp   0.0.0.0:8080                  4242 \x1b]0;x\x07\x…     bound               1s 0        http-alt
            tcp   [2001:db8:1234:5678:…:8081    4242 日本語日本          ?/128        0      1s 0        tproxy








            CONNECTIONS 2 · by AGE, rising
            PROTO STATE        LOCAL                   REMOTE                    PID COMM                AGE      RX      TX     RTT
            tcp   end:remote   10.0.0.1:80             10.0.0.2:40001            812 nginx             2.50s    420B    1.2M   180us
            tcp   ECONNREFUSED 192.168.100.200:54321   192.168.100.201:54322    4243 a-fifteen-chars
            tcp   ESTAB        [2001:db8::1]:40000     [2001:db8::2]:443     4194304 curl                 1s
            tcp   ESTAB        192.0.2.100:40000       192.0.2.77:443        4194304 curl                 1s






            EVENTS
            22:13:20.124 listen  tcp       812 nginx        0.0.0.0:80      -               backlog=511 service=http user=root exe=/
            22:13:20.125 bind    tcp      4242 \x1b]0;x\x07\xff 0.0.0.0:80  -               EADDRINUSE held_by=nginx(812) uid=0 exe=
            22:13:20.125 bind    tcp      4242 \x1b]0;x\x07\xff 0.0.0.0:8080 -              uid=0 exe="/tmp/\u{202e}gpj.x (deleted)"
            22:13:20.125 listen  tcp      4242 日本語日本   [2001:db8:1234:5678:9abc:def0:1234:5678]:8081 - backlog=128 uid=0 exe="/
            22:13:20.126 connect tcp   4194304 curl         [2001:db8::1]:40000 [2001:db8::2]:443 latency=12.3ms service=https user=
            22:13:20.127 connect tcp      4243 a-fifteen-chars 192.168.100.200:54321 192.168.100.201:54322 ECONNREFUSED user=alice e
            22:13:20.128 accept  tcp       812 nginx        10.0.0.1:80     10.0.0.2:40001  waited=30us
            22:13:20.129 close   tcp       812 nginx        10.0.0.1:80     10.0.0.2:40001  remote duration=2.50s rtt=180us rx=420B
            22:13:20.126 connect tcp   4194304 curl         192.0.2.100:40000 192.0.2.77:443 latency=12.3ms service=https user=alice
            22:13:20.131 reset   tcp         - -            127.0.0.1:9     127.0.0.1:40002 sent reason=NO_SOCKET
            22:13:20.132 lost    *** 1234 events lost: they came faster than they could be read; try --ring-size ***

            ? help · Tab pane · / filter · s sort · Space freeze · Enter details · q quit
        "#]],
    );
}

#[test]
fn details_tell_of_process_and_port() {
    check(
        &[KeyCode::Enter],
        (80, 24),
        expect![[r#"
        portwatch, tracepoint probes · 1234 events lost
        socket      tcp 0.0.0.0:80
        state       LISTEN
        service     http
        since       22:13:20
        namespace   1
        cookie      1
        process     nginx(812)
        exe         /usr/sbin/nginx
        args        nginx -g "daemon off;"
        user        root
        parents     systemd(1)
        unit        nginx.service
        cgroup      /system.slice/nginx.service
        backlog     511
        accepted    1

        history of port 80, the latest first
          22:13:20 bind failed: EADDRINUSE, \x1b]0;x\x07\xff(4242)
          22:13:20 listen, nginx(812)



        Up Down scroll · any other key goes back
    "#]],
    );
}

#[test]
fn details_of_what_closed_tell_how() {
    check(
        &[KeyCode::Tab, KeyCode::Enter],
        (80, 30),
        expect![[r#"
            portwatch, tracepoint probes · 1234 events lost
            socket      tcp 10.0.0.1:80 10.0.0.2:40001
            state       ESTAB, closed: end:remote
            service     http
            since       22:13:20
            namespace   1
            cookie      5
            process     nginx(812)
            exe         /usr/sbin/nginx
            args        nginx -g "daemon off;"
            user        root
            parents     systemd(1)
            unit        nginx.service
            cgroup      /system.slice/nginx.service
            waited      30us
            open for    2.50s
            received    420B
            sent        1.2M
            rtt         180us
            retransmits 2

            history of port 80, the latest first
              22:13:20 bind failed: EADDRINUSE, \x1b]0;x\x07\xff(4242)
              22:13:20 listen, nginx(812)





            Up Down scroll · any other key goes back
        "#]],
    );
}

#[test]
fn help_fits_on_the_screen() {
    check(
        &[KeyCode::Char('?')],
        (80, 24),
        expect![[r#"
            portwatch, tracepoint probes · 1234 events lost
            Tab, Shift-Tab   next, previous pane
            Up Down j k      select; PgUp PgDn g G: further
            Enter            details of the selected socket
            /                filter as you type: words, all of them have to match;
                             Enter keeps it, Esc takes it back
            Esc              show all again
            s  S             sort by the next, previous column
            r                the other way round
            z                only this pane, all panes
            ?  h             this help
            q  Ctrl-C        quit
            Space  p         freeze and go on

            Dim rows are closed; they stay for some seconds. AGE of those is how
            long they were open. QUEUE: connections that wait to be accepted, of how
            many may; "bound" does not listen. LATENCY: of the handshake, or of the
            wait in the accept queue. "nginx +3": three more sockets share the
            address; the line is of all of them.
            Queues, bytes, RTT, holders and states such as CLOSE-WAIT are read now
            and then, all else as it happens.


            any key goes back
        "#]],
    );
}

#[test]
fn an_empty_table_says_so() {
    let mut empty = Scene::new("kprobe probes".into(), Limits::default());
    let first = lines(&draw(&mut screen(), &empty, 60, 14));
    empty.status.seeded = true;
    let second = lines(&draw(&mut screen(), &empty, 60, 14));
    expect![[r#"
        portwatch, kprobe probes · reading open sockets · nothing lo
        LISTENING AND BOUND 0 · by LOCAL, rising
        PROTO LOCAL                              PID COMM
        reading open sockets

        CONNECTIONS 0 · by AGE, rising
        PROTO STATE        LOCAL            REMOTE               PID
        reading open sockets

        EVENTS



        ? help · Tab pane · / filter · s sort · Space freeze · Enter
        ----
        portwatch, kprobe probes · nothing lost
        LISTENING AND BOUND 0 · by LOCAL, rising
        PROTO LOCAL                              PID COMM
        none

        CONNECTIONS 0 · by AGE, rising
        PROTO STATE        LOCAL            REMOTE               PID
        none

        EVENTS



        ? help · Tab pane · / filter · s sort · Space freeze · Enter
    "#]]
    .assert_eq(&format!("{first}----\n{second}"));
}

#[test]
fn losses_differences_and_limits_are_said_at_the_top() {
    let mut scene = typical();
    scene.status.differences = 2;
    scene.status.limits = vec!["only own\u{1b}".into(), "other".into()];
    let backend = draw(&mut screen(), &scene, 120, 24);
    expect![[r#"portwatch, tracepoint probes · 1234 events lost · 2 differences repaired · only own\x1b · other"#]].assert_eq(lines(&backend).lines().next().unwrap());
    scene.status.differences = 1;
    let text = lines(&draw(&mut screen(), &scene, 120, 24));
    assert!(text.contains(" · 1 difference repaired · "), "{text}");
}

#[test]
fn a_namespace_goes_by_its_name_where_it_has_one() {
    let mut listen = samples::typical().swap_remove(0);
    (listen.sock, listen.netns, listen.context) = (Some(1), Some(4026532177), None);
    let (mut screen, scene) = (screen(), scene(&[listen]));
    let text = lines(&draw(&mut screen, &scene, 200, 24));
    assert!(text.contains(" net:4026532177"), "{text}");
    screen.name_namespaces(HashMap::from([(4026532177, "blue\u{1b}".to_owned())]));
    type_text(&mut screen, &scene, "/blue");
    let text = lines(&draw(&mut screen, &scene, 200, 24));
    assert!(text.contains(r" blue\x1b"), "{text}");
    assert!(!text.contains("net:"), "{text}");
    press(&mut screen, &scene, &[KeyCode::Enter, KeyCode::Enter]);
    let text = lines(&draw(&mut screen, &scene, 200, 24));
    let line = r"namespace   blue\x1b (4026532177)";
    assert!(text.contains(line), "{text}");
}

#[test]
fn what_is_closed_is_dim() {
    let (mut screen, scene) = (screen(), typical());
    let backend = draw(&mut screen, &scene, 80, 24);
    let text = lines(&backend);
    let mut dim = Vec::new();
    for (y, line) in text.lines().enumerate() {
        let y = u16::try_from(y).unwrap();
        let style = backend.buffer()[(0, y)].modifier;
        if style.contains(Modifier::DIM) && line.starts_with("tcp") {
            dim.push(line.split_whitespace().nth(1).unwrap().to_owned());
        }
    }
    dim.sort();
    assert_eq!(dim, ["ECONNREFUSED", "end:remote"]);
}

#[test]
fn no_name_reaches_the_terminal_raw() {
    let scene = typical();
    for keys in [&[][..], &[KeyCode::Down, KeyCode::Down, KeyCode::Enter]] {
        let mut screen = screen();
        press(&mut screen, &scene, keys);
        let text = lines(&draw(&mut screen, &scene, 120, 40));
        assert!(text.contains("\\x1b"), "{text}");
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        assert!(!text.contains('\u{202e}'));
    }
}
