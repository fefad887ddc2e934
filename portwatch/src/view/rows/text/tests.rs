//! Golden tables for rows made by hand.

use std::sync::Arc;

use expect_test::{Expect, expect};

use super::*;
use crate::event::{Comm, Context, Peer, Proto};
use crate::row::State;
use crate::service;

const NOW: u64 = 1_700_000_000_000_000_000;

fn check(layout: Layout, rows: &[Row], change: impl Fn(&mut Style), expected: Expect) {
    let mut style = Style::sample();
    change(&mut style);
    let mut rows = rows.to_vec();
    for row in &mut rows {
        row.event.service = service::of(&row.event);
    }
    let mut out = Vec::new();
    Text::new(layout, style).put(&mut out, rows);
    expected.assert_eq(&String::from_utf8(out).unwrap());
}

fn peer(pid: u32, comm: &str) -> Peer {
    Peer {
        pid,
        comm: comm.into(),
        sock: None,
    }
}

fn servers() -> Vec<Row> {
    let mut rows = vec![
        Row::server(Proto::Tcp, "0.0.0.0:22", 640, "sshd"),
        Row::server(Proto::Udp, "127.0.0.53:53", 512, "systemd-resolve"),
        Row::server(Proto::Tcp, "[::]:80", 812, "nginx"),
        Row::server(Proto::Tcp, "127.0.0.1:2222", 4_194_304, "sshd"),
        Row::server(Proto::Tcp, "10.0.0.1:5432", 900, "postgres"),
        Row::server(Proto::Mptcp, "[2001:db8:1:2:3:4:5:6]:8080", 7262, "x"),
        Row::server(Proto::Udp, "[fe80::1]:546", 1, "x"),
    ];
    rows[0].since = Some(NOW - 3_600_000_000_000);
    rows[2].event.holders = Some(
        [
            (812, "nginx"),
            (816, "nginx"),
            (815, "nginx"),
            (814, "nginx"),
            (820, "nginx"),
        ]
        .map(|(pid, comm)| peer(pid, comm))
        .into_iter()
        .chain([peer(900, "log\x1b[2J"), peer(901, "log\x1b[2J")])
        .collect(),
    );
    rows[2].recv_queue = Some(3);
    rows[2].since = Some(NOW - 30 * 86_400_000_000_000);
    rows[4].event.netns = Some(2);
    rows[4].event.context = Some(Arc::new(Context {
        container: Some("0123456789ab".into()),
        ..Context::default()
    }));
    rows[5].event.netns = Some(3);
    let mut hostile = [0; 16];
    hostile[..7].copy_from_slice(b"\x1b]0;x\x07\xff");
    rows[5].event.comm = Some(Comm(hostile));
    // the kernel did not tell whose it is
    let nobody = &mut rows[6].event;
    (nobody.pid, nobody.uid, nobody.comm) = (None, None, None);
    (nobody.context, nobody.holders, nobody.netns) = (None, None, Some(4));
    rows
}

#[test]
fn servers_are_a_dense_table() {
    check(
        Layout::Servers,
        &servers(),
        |_| {},
        expect![[r#"
            PROTO LOCAL                  PID COMM         USER SINCE QUEUE WHERE        SERVICE
            tcp   0.0.0.0:22             640 sshd         root 21:13 0/128 -            ssh
            udp   127.0.0.53:53          512 systemd-resolve root -      0 -            domain
            tcp   [::]:80                812 nginx        root Oct15 3/128 -            http +814-816,820,log\x1b[2J:900-901
            tcp   127.0.0.1:2222     4194304 sshd         root -     0/128 -            - !ssh on an unusual port (usually 22)
            tcp   10.0.0.1:5432          900 postgres     0    -     0/128 0123456789ab postgresql
            mptcp [2001:db8:1:2:3:4:5:6]:8080 7262 \x1b]0;x\x07\xff root - 0/128 blue   http-alt
            udp   [fe80::1]:546            - -            -    -         0 net:4        dhcpv6-client
        "#]],
    );
    check(
        Layout::Servers,
        &servers(),
        |x| x.width = 140,
        expect![[r#"
            PROTO LOCAL                           PID COMM             USER SINCE QUEUE WHERE        SERVICE
            tcp   0.0.0.0:22                      640 sshd             root 21:13 0/128 -            ssh
            udp   127.0.0.53:53                   512 systemd-resolve  root -         0 -            domain
            tcp   [::]:80                         812 nginx            root Oct15 3/128 -            http +814-816,820,log\x1b[2J:900-901
            tcp   127.0.0.1:2222              4194304 sshd             root -     0/128 -            - !ssh on an unusual port (usually 22)
            tcp   10.0.0.1:5432                   900 postgres         0    -     0/128 0123456789ab postgresql
            mptcp [2001:db8:1:2:3:4:5:6]:8080    7262 \x1b]0;x\x07\xff root -     0/128 blue         http-alt
            udp   [fe80::1]:546                     - -                -    -         0 net:4        dhcpv6-client
        "#]],
    );
}

#[test]
fn on_a_usual_machine_it_fits_80_columns() {
    let rows = &servers()[..4];
    check(
        Layout::Servers,
        rows,
        |_| {},
        expect![[r#"
            PROTO LOCAL              PID COMM            USER SINCE QUEUE SERVICE
            tcp   0.0.0.0:22         640 sshd            root 21:13 0/128 ssh
            udp   127.0.0.53:53      512 systemd-resolve root -         0 domain
            tcp   [::]:80            812 nginx           root Oct15 3/128 http +814-816,820,log\x1b[2J:900-901
            tcp   127.0.0.1:2222 4194304 sshd            root -     0/128 - !ssh on an unusual port (usually 22)
        "#]],
    );
    check(
        Layout::Servers,
        rows,
        |x| x.numeric = true,
        expect![[r#"
            PROTO LOCAL              PID COMM            USER SINCE QUEUE SERVICE
            tcp   0.0.0.0:22         640 sshd            0    21:13 0/128 -
            udp   127.0.0.53:53      512 systemd-resolve 0    -         0 -
            tcp   [::]:80            812 nginx           0    Oct15 3/128 - +814-816,820,log\x1b[2J:900-901
            tcp   127.0.0.1:2222 4194304 sshd            0    -     0/128 - !ssh on an unusual port (usually 22)
        "#]],
    );
}

#[test]
fn a_process_without_a_name_has_its_column() {
    check(
        Layout::Servers,
        &[Row::server(Proto::Tcp, "0.0.0.0:9", 7, "")],
        |_| {},
        expect![[r#"
            PROTO LOCAL     PID COMM USER QUEUE SERVICE
            tcp   0.0.0.0:9   7 ""   root 0/128 discard
        "#]],
    );
}

#[test]
fn all_sockets_have_state_and_peer() {
    let mut rows = servers()[..2].to_vec();
    for (state, remote) in [
        (State::Estab, "192.168.100.201:54321"),
        (State::CloseWait, "[2001:db8::2]:40000"),
        (State::TimeWait, "127.0.0.1:40000"),
    ] {
        let local = if remote.starts_with('[') {
            "[2001:db8::1]:80"
        } else {
            "10.0.0.1:80"
        };
        rows.push(Row::connection(state, local, remote, 812, "nginx"));
    }
    let timewait = &mut rows[4].event;
    (timewait.pid, timewait.comm, timewait.holders) = (None, None, None);
    check(
        Layout::All,
        &rows,
        |_| {},
        expect![[r#"
            PROTO STATE      LOCAL           REMOTE          PID COMM         QUEUE SERVICE
            tcp   LISTEN     0.0.0.0:22      -               640 sshd         0/128 ssh
            udp   UNCONN     127.0.0.53:53   -               512 systemd-resolve  0 domain
            tcp   ESTAB      10.0.0.1:80     192.168.100.201:54321 812 nginx      0 http
            tcp   CLOSE-WAIT [2001:db8::1]:80 [2001:db8::2]:40000 812 nginx       0 http
            tcp   TIME-WAIT  10.0.0.1:80     127.0.0.1:40000   - -                0 http
        "#]],
    );
}

#[test]
fn chosen_columns_and_nothing_at_all() {
    use crate::row::Column as C;
    let columns = vec![
        C::Event(Field::Lport),
        C::State,
        C::Event(Field::Holders),
        C::Since,
        C::Note,
    ];
    check(
        Layout::Chosen(columns),
        &servers()[1..4],
        |_| {},
        expect![[r#"
            LPORT STATE  HOLDERS                        SINCE                          NOTE
               53 UNCONN systemd-resolve(512)           -                              -
               80 LISTEN nginx(812),nginx(816),nginx(815),nginx(814),nginx(820),log\x1b[2J(900),log\x1b[2J(901) 2023-10-15T22:13:20.000000000Z -
             2222 LISTEN sshd(4194304)                  -                              ssh on an unusual port (usually 22)
        "#]],
    );
    check(
        Layout::Servers,
        &[],
        |x| x.colour = true,
        expect![[r#"
            [2mPROTO[0m [2mLOCAL[0m [2mPID[0m [2mCOMM[0m [2mUSER[0m [2mQUEUE[0m [2mSERVICE[0m
        "#]],
    );
    check(
        Layout::All,
        &[],
        |_| {},
        expect![[r#"
        PROTO STATE LOCAL REMOTE PID COMM QUEUE SERVICE
    "#]],
    );
}
