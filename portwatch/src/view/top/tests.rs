//! The screen as it is drawn, and as keys change it.

use std::collections::HashMap;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Modifier;

use super::play::Speed;
use super::*;
use crate::event::{Event, Kind};
use crate::table::Limits;
use crate::view::lines::samples;

/// A second after the last of the sample events.
const NOW: u64 = 1_700_000_001_132_456_789;

/// Milliseconds of the sample events, and then cookies: each socket has one.
fn scene(events: &[Event]) -> Scene {
    let mut scene = Scene::new("tracepoint probes".into(), Limits::default());
    for event in events {
        scene.table.apply(event);
        scene.show(event.clone());
    }
    scene.status.seeded = true;
    scene
}

/// A server with a client, an attempt to bind that failed, something hostile, and a loss.
fn typical() -> Scene {
    let mut events = samples::typical();
    for (event, cookie) in events.iter_mut().zip([1, 2, 3, 4, 5, 5, 6, 7, 8]) {
        event.sock = Some(cookie);
        event.netns = Some(1);
    }
    let [
        listen,
        taken,
        connect,
        refused,
        accept,
        close,
        _,
        reset,
        lost,
    ] = events.try_into().unwrap();
    let mut evil = taken.clone();
    evil.error = None;
    evil.holders = None;
    evil.sock = Some(20);
    evil.lport = Some(8080);
    let mut wide = evil.clone();
    wide.kind = Kind::Listen;
    wide.comm = Some(crate::event::Comm(
        *b"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe6\x97\xa5\xe6\x9c\xac\0",
    ));
    wide.sock = Some(21);
    wide.lport = Some(8081);
    wide.laddr = Some("2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap());
    wide.backlog = Some(128);
    let mut contained = connect.clone();
    contained.sock = Some(22);
    contained.netns = Some(4026532177);
    contained.raddr = Some("192.0.2.77".parse().unwrap());
    contained.laddr = Some("192.0.2.100".parse().unwrap());
    scene(&[
        listen, taken, evil, wide, connect, refused, accept, close, contained, reset, lost,
    ])
}

fn screen() -> Screen {
    let look = Look {
        colour: true,
        numeric: false,
        netns: Some(1),
        netns_names: HashMap::new(),
        zone: TimeZone::UTC,
    };
    Screen::new(look, None)
}

fn draw(screen: &mut Screen, scene: &Scene, width: u16, height: u16) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| screen.draw(frame, scene, NOW))
        .unwrap();
    terminal.backend().clone()
}

/// Lines of the screen, without what is empty at their ends.
fn lines(backend: &TestBackend) -> String {
    let buffer = backend.buffer();
    let width = usize::from(buffer.area.width);
    let mut out = String::new();
    for row in buffer.content().chunks(width) {
        let mut line = String::new();
        let mut skip = 0;
        for cell in row {
            if skip == 0 {
                line.push_str(cell.symbol());
                skip = unicode_width::UnicodeWidthStr::width(cell.symbol());
            }
            skip = skip.saturating_sub(1);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn press(screen: &mut Screen, scene: &Scene, keys: &[KeyCode]) -> Option<Action> {
    let mut action = None;
    for &code in keys {
        // Keys go by what is on the screen.
        draw(screen, scene, 80, 24);
        action = screen.key(KeyEvent::new(code, KeyModifiers::NONE), scene, NOW);
    }
    action
}

fn type_text(screen: &mut Screen, scene: &Scene, text: &str) {
    let keys: Vec<KeyCode> = text.chars().map(KeyCode::Char).collect();
    press(screen, scene, &keys);
}

fn check(keys: &[KeyCode], (width, height): (u16, u16), expected: Expect) {
    let (mut screen, scene) = (screen(), typical());
    press(&mut screen, &scene, keys);
    expected.assert_eq(&lines(&draw(&mut screen, &scene, width, height)));
}

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
    let readme = include_str!("../../../../README.md");
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

#[test]
fn a_filter_works_as_it_is_typed() {
    let (mut screen, scene) = (screen(), typical());
    let shown = |screen: &mut Screen| {
        draw(screen, &scene, 80, 24);
        [0, 1].map(|which| screen.lists[which].order.keys.len())
    };
    assert_eq!(shown(&mut screen), [3, 4]);
    type_text(&mut screen, &scene, "/NGINX q");
    assert_eq!(screen.wanted.typed, "NGINX q");
    assert_eq!(shown(&mut screen), [0, 0]);
    press(
        &mut screen,
        &scene,
        &[KeyCode::Backspace, KeyCode::Backspace],
    );
    assert_eq!(shown(&mut screen), [1, 1]);
    let text = lines(&draw(&mut screen, &scene, 80, 24));
    assert!(text.contains("LISTENING AND BOUND 1 of 3"), "{text}");
    assert!(text.ends_with("/NGINX_\n"), "{text}");
    press(&mut screen, &scene, &[KeyCode::Enter]);
    assert_eq!(shown(&mut screen), [1, 1]);
    type_text(&mut screen, &scene, "/x");
    press(&mut screen, &scene, &[KeyCode::Esc]);
    assert_eq!(screen.wanted.typed, "NGINX");
    press(&mut screen, &scene, &[KeyCode::Esc]);
    assert_eq!(shown(&mut screen), [3, 4]);
}

#[test]
fn the_filter_of_the_command_line_hides_rows() {
    let scene = typical();
    let mut screen = screen();
    screen.wanted.filter = Some(Filter {
        uids: crate::filter::Spans(vec![1000.into()]),
        ..Filter::default()
    });
    draw(&mut screen, &scene, 80, 24);
    assert_eq!([0, 1].map(|x| screen.lists[x].order.keys.len()), [0, 2]);
}

#[test]
fn every_column_sorts_and_turns_round() {
    let (mut screen, scene) = (screen(), typical());
    for pane in [0, 1] {
        for _ in screen.lists[pane].columns {
            press(&mut screen, &scene, &[KeyCode::Char('s')]);
            draw(&mut screen, &scene, 80, 24);
            let list = &screen.lists[pane];
            let rank = |key: &Key| list.sort.column.rank(scene.table.get(*key).unwrap().socket);
            let ranks: Vec<_> = list.order.keys.iter().map(rank).collect();
            let known: Vec<_> = ranks.iter().copied().flatten().collect();
            assert!(
                ranks[..known.len()].iter().all(Option::is_some),
                "absent ones last"
            );
            match list.sort.falls {
                true => assert!(known.is_sorted_by(|a, b| a >= b)),
                false => assert!(known.is_sorted()),
            }
            let before = list.sort.falls;
            press(&mut screen, &scene, &[KeyCode::Char('r')]);
            assert_ne!(screen.lists[pane].sort.falls, before);
        }
        press(&mut screen, &scene, &[KeyCode::Tab]);
    }
}

/// Three workers at port 80 with a socket each (SO_REUSEPORT), the second of which came last, and
/// what looks like one of them but has another address, namespace, protocol, or is closed.
fn workers() -> (Scene, Event) {
    let mut listen = samples::typical().remove(0);
    listen.netns = Some(1);
    let worker = |cookie: u64, pid: u32| Event {
        sock: Some(cookie),
        pid: Some(pid),
        ..listen.clone()
    };
    let mut events = vec![worker(1, 812), worker(3, 814), worker(2, 813)];
    let mut others = [21, 22, 23, 24].map(|cookie| worker(cookie, 900));
    others[0].laddr = Some("127.0.0.1".parse().unwrap());
    others[1].netns = Some(2);
    others[2].proto = Some(crate::event::Proto::Udp);
    others[2].kind = Kind::Bind;
    events.extend(others.clone());
    let mut close = others[3].clone();
    close.kind = Kind::Close;
    let mut accept = worker(30, 814);
    accept.kind = Kind::Accept;
    accept.rport = Some(4000);
    accept.raddr = accept.laddr;
    events.extend([close, accept]);
    let mut end = worker(1, 812);
    end.kind = Kind::Close;
    (scene(&events), end)
}

#[test]
fn sockets_that_share_an_address_are_one_line() {
    let (scene, _) = workers();
    let mut screen = screen();
    let text = lines(&draw(&mut screen, &scene, 80, 24));
    let pane: Vec<&str> = text.lines().skip(1).take(7).collect();
    expect![[r#"
        LISTENING AND BOUND 4 · by LOCAL, rising
        PROTO LOCAL                       PID COMM                QUEUE ACCEPTED     AGE
        tcp   0.0.0.0:80                  812 nginx +2           ?/1533        1      1s
        tcp   0.0.0.0:80                  900 nginx               ?/511        0      1s
        udp   0.0.0.0:80                  900 nginx                                   1s
        tcp   0.0.0.0:80                  900 nginx              closed        0     0us
        tcp   127.0.0.1:80                900 nginx               ?/511        0      1s"#]]
    .assert_eq(&pane.join("\n"));
    press(&mut screen, &scene, &[KeyCode::Enter]);
    let text = lines(&draw(&mut screen, &scene, 80, 24));
    let details: Vec<&str> = text.lines().skip(1).take(18).collect();
    expect![[r#"
        socket      tcp 0.0.0.0:80
        state       LISTEN
        sockets     3 share the address
        service     http
        since       22:13:20
        namespace   1
        process     nginx(812)
        exe         /usr/sbin/nginx
        args        nginx -g "daemon off;"
        user        root
        parents     systemd(1)
        unit        nginx.service
        cgroup      /system.slice/nginx.service
        held by     nginx(812), nginx(813), nginx(814)
        backlog     1533
        accepted    1

        history of port 80, the latest first"#]]
    .assert_eq(&details.join("\n"));
}

#[test]
fn any_member_is_found_and_the_line_stays_when_its_first_one_goes() {
    let (mut scene, end) = workers();
    let mut screen = screen();
    let shown = |screen: &mut Screen, scene: &Scene| {
        draw(screen, scene, 80, 24);
        screen.lists[0].order.keys.len()
    };
    assert_eq!(shown(&mut screen, &scene), 5);
    type_text(&mut screen, &scene, "/813");
    assert_eq!(shown(&mut screen, &scene), 1);
    press(&mut screen, &scene, &[KeyCode::Esc]);
    press(&mut screen, &scene, &[KeyCode::Enter]);
    scene.table.apply(&end);
    let details = lines(&draw(&mut screen, &scene, 80, 24));
    assert!(details.contains("2 share the address"), "{details}");
    assert!(details.contains("process     nginx(813)"), "{details}");
    press(&mut screen, &scene, &[KeyCode::Esc]);
    let text = lines(&draw(&mut screen, &scene, 80, 24));
    assert!(text.contains("813 nginx +1"), "{text}");
    // a selected one that stands for others, and then no more, leads to the same line
    let key = |pid| {
        let open = scene.table.iter().filter(|x| x.end.is_none());
        let mut listeners = open.filter(|x| x.socket.is_listening());
        let sight = listeners.find(|x| x.socket.pid.get() == Some(pid));
        sight.unwrap().key
    };
    screen.lists[0].selected = Some(key(814));
    draw(&mut screen, &scene, 80, 24);
    assert_eq!(screen.lists[0].selected, Some(key(813)));
}

#[test]
fn a_selected_row_stays_selected_wherever_it_goes() {
    let (mut screen, mut scene) = (screen(), typical());
    press(&mut screen, &scene, &[KeyCode::Down]);
    let key = screen.lists[0].selected.unwrap();
    let mut lower = samples::typical().remove(0);
    (lower.sock, lower.netns, lower.lport) = (Some(99), Some(1), Some(1));
    scene.table.apply(&lower);
    draw(&mut screen, &scene, 80, 24);
    assert_eq!(
        (screen.lists[0].selected, screen.lists[0].at),
        (Some(key), 2)
    );
    press(&mut screen, &scene, &[KeyCode::Home]);
    assert_eq!(screen.lists[0].selected, None);
}

#[test]
fn frozen_nothing_moves() {
    let (mut screen, mut scene) = (screen(), typical());
    press(&mut screen, &scene, &[KeyCode::Char(' ')]);
    let before = lines(&draw(&mut screen, &scene, 80, 24));
    assert!(before.contains("FROZEN"));
    scene.table.tick(u64::MAX);
    scene.table.seed([]);
    scene.events.clear();
    assert_eq!(lines(&draw(&mut screen, &scene, 80, 24)), before);
    press(&mut screen, &scene, &[KeyCode::Char('p')]);
    assert_ne!(lines(&draw(&mut screen, &scene, 80, 24)), before);
}

#[test]
fn details_stay_when_the_socket_is_forgotten() {
    let (mut screen, mut scene) = (screen(), typical());
    let keys = [KeyCode::Tab, KeyCode::Enter];
    assert_eq!(press(&mut screen, &scene, &keys), Some(Action::Refresh));
    scene.table.tick(u64::MAX);
    for _ in 0..2 {
        let text = lines(&draw(&mut screen, &scene, 80, 24));
        assert_eq!(text.matches("(gone)").count(), 1, "{text}");
        assert!(text.contains("10.0.0.1:80 10.0.0.2:40001"), "{text}");
    }
}

#[test]
fn quitting_is_always_possible() {
    let scene = typical();
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    for keys in [
        &[][..],
        &[KeyCode::Char('/')],
        &[KeyCode::Char('?')],
        &[KeyCode::Enter],
    ] {
        let mut screen = screen();
        press(&mut screen, &scene, keys);
        assert_eq!(screen.key(control('c'), &scene, NOW), Some(Action::Quit));
        assert_eq!(screen.key(control('z'), &scene, NOW), Some(Action::Suspend));
    }
    assert_eq!(
        press(&mut screen(), &scene, &[KeyCode::Char('q')]),
        Some(Action::Quit)
    );
}

#[test]
fn thousands_of_rows_are_scrolled_through() {
    let mut scene = typical();
    let mut listen = samples::typical().remove(0);
    for n in 0..5_000u16 {
        (listen.sock, listen.lport) = (Some(1_000 + u64::from(n)), Some(10_000 + n));
        scene.table.apply(&listen);
        scene.show(listen.clone());
    }
    let mut screen = screen();
    press(&mut screen, &scene, &[KeyCode::End]);
    let last = lines(&draw(&mut screen, &scene, 80, 24));
    assert!(
        last.contains("0.0.0.0:14999") && !last.contains("0.0.0.0:10000"),
        "{last}"
    );
    assert!(last.contains("LISTENING AND BOUND 5003"), "{last}");
    press(&mut screen, &scene, &[KeyCode::PageUp]);
    assert_eq!(screen.lists[0].at, 5_002 - screen.page);
    press(&mut screen, &scene, &[KeyCode::BackTab, KeyCode::Home]);
    let first = lines(&draw(&mut screen, &scene, 80, 24));
    assert!(
        first.contains("0.0.0.0:14000"),
        "a thousand events are kept: {first}"
    );
}

fn any_key() -> impl Strategy<Value = KeyCode> {
    use KeyCode::*;
    let named = prop::sample::select(vec![
        Up,
        Down,
        PageUp,
        PageDown,
        Home,
        End,
        Enter,
        Esc,
        Tab,
        BackTab,
        Backspace,
        F(1),
    ]);
    prop_oneof![
        3 => named,
        2 => prop::sample::select("?/sSrzp jkgGx".chars().collect::<Vec<_>>()).prop_map(Char),
        1 => any::<char>().prop_map(Char),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_size_no_keys_and_no_events_are_too_strange(
        events in samples::events(0..20),
        keys in proptest::collection::vec((any_key(), 1..50u16, 1..30u16), 0..40),
    ) {
        let scene = scene(&events);
        let mut screen = screen();
        draw(&mut screen, &scene, 10, 3);
        for (code, width, height) in keys {
            screen.key(KeyEvent::new(code, KeyModifiers::NONE), &scene, NOW);
            let text = lines(&draw(&mut screen, &scene, width, height));
            prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", text);
        }
    }
}

/// The typical scene as it is played.
fn played(paused: bool) -> Scene {
    let mut scene = typical();
    scene.status.play = Some(Play {
        began: NOW - 60_000_000_000,
        ended: NOW + 3_600_000_000_000,
        paused,
        speed: Speed::default().faster().faster(),
    });
    scene
}

#[test]
fn a_session_that_is_played_tells_where_it_is() {
    for (paused, head) in [
        (
            false,
            "portwatch · 2023-11-14 22:13:21 x4, 1m00s of 1h01m ·",
        ),
        (
            true,
            "portwatch ·  STOPPED  · 2023-11-14 22:13:21 x4, 1m00s of 1h01m",
        ),
    ] {
        let text = lines(&draw(&mut screen(), &played(paused), 100, 24));
        assert!(text.starts_with(head), "{text}");
        assert!(text.contains("Space stop · + - speed · . step"), "{text}");
    }
}

#[test]
fn keys_play_a_session_and_nothing_else() {
    let scene = played(false);
    let shift = KeyModifiers::SHIFT;
    let none = KeyModifiers::NONE;
    for (code, modifiers, expected) in [
        (KeyCode::Char(' '), none, Control::Pause),
        (KeyCode::Char('+'), shift, Control::Faster),
        (KeyCode::Char('-'), none, Control::Slower),
        (KeyCode::Char('.'), none, Control::Step),
        (KeyCode::Left, none, Control::Seek(-10)),
        (KeyCode::Right, shift, Control::Seek(60)),
        (KeyCode::Home, none, Control::Start),
        (KeyCode::End, none, Control::End),
    ] {
        let mut screen = screen();
        draw(&mut screen, &scene, 80, 24);
        let action = screen.key(KeyEvent::new(code, modifiers), &scene, NOW);
        assert_eq!(action, Some(Action::Play(expected)));
        assert!(!screen.is_frozen());
        // where text is typed they are text, and of what is live nothing
        press(&mut screen, &scene, &[KeyCode::Char('/')]);
        let action = screen.key(KeyEvent::new(code, modifiers), &scene, NOW);
        assert_eq!(action, None);
        let mut live = self::screen();
        let action = live.key(KeyEvent::new(code, modifiers), &typical(), NOW);
        assert_eq!(action, None);
    }
}

#[test]
fn help_is_of_what_there_is() {
    let mut screen = screen();
    press(&mut screen, &typical(), &[KeyCode::Char('?')]);
    let live = lines(&draw(&mut screen, &typical(), 80, 24));
    assert!(live.contains("Space  p         freeze and go on"), "{live}");
    assert!(!live.contains("Left Right"), "{live}");
    let played = lines(&draw(&mut screen, &played(false), 80, 24));
    assert!(
        played.contains("Left Right       10 s back, ahead; with Shift a minute"),
        "{played}"
    );
    assert!(!played.contains("freeze"), "{played}");
    assert!(
        played.contains("address; the line is of all of them."),
        "its last line: {played}"
    );
}

#[test]
fn speeds_are_powers_of_two() {
    let mut speed = Speed::default();
    let faster: Vec<String> = std::iter::repeat_with(|| {
        speed = speed.faster();
        speed.to_string()
    })
    .take(7)
    .collect();
    assert_eq!(faster, ["x2", "x4", "x8", "x16", "x32", "x64", "x64"]);
    assert_eq!(speed.distance(1_000), 64_000);
    let slow = Speed::default().slower();
    assert_eq!((slow, slow.distance(1_000)), (slow.slower(), 500));
    assert_eq!(slow.to_string(), "x1/2");
}
