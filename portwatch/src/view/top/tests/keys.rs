//! What keys do, and what they leave as it is.

use std::num::NonZeroUsize;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::event::{Origin, Proto};
use crate::row::Row;

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
    others[2].proto = Some(Proto::Udp);
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
fn a_process_with_several_of_the_sockets_is_named_once() {
    let (mut scene, mut another) = workers();
    (another.kind, another.sock) = (Kind::Listen, Some(4));
    scene.table.apply(&another);
    let mut screen = screen();
    press(&mut screen, &scene, &[KeyCode::Enter]);
    let details = lines(&draw(&mut screen, &scene, 80, 24));
    assert!(details.contains("4 share the address"), "{details}");
    let holders = "held by     nginx(812), nginx(813), nginx(814)";
    assert!(details.contains(holders), "{details}");
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
fn of_a_port_without_a_history_no_more_is_said_than_is_known() {
    let ports = const { NonZeroUsize::new(1).unwrap() };
    let limits = Limits {
        ports,
        ..Limits::default()
    };
    let mut scene = Scene::new("tracepoint probes".into(), limits);
    let before = Row::server(Proto::Tcp, "127.0.0.1:443", 7, "srv");
    scene.table.seed([before]);
    let said = |scene: &Scene| {
        let mut screen = screen();
        press(&mut screen, scene, &[KeyCode::Enter]);
        let text = lines(&draw(&mut screen, scene, 80, 40));
        let mut lines = text.lines();
        lines.find(|line| line.starts_with("history of port 443"));
        lines.next().unwrap().to_owned()
    };
    assert_eq!(said(&scene), "  nothing since portwatch runs");
    for port in [1, 2] {
        let mut bind = Event::new(Kind::Bind, Origin::Live, NOW);
        (bind.sock, bind.lport) = (Some(port), Some(port as u16));
        bind.error = Some(1);
        scene.table.apply(&bind);
    }
    assert_eq!(said(&scene), "  nothing remembered");
    scene.status.play = play::played(false).status.play;
    assert_eq!(said(&scene), "  nothing shortly before this moment");
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
