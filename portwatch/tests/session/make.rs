//! Sessions with known contents.

use std::path::Path;
use std::sync::Arc;

use portwatch::event::{Cause, Comm, Context, Event, Family, Kind, Origin, Peer, Proto};
use portwatch::session::{self, About, Finish, Run, SecretKey, Sign, Writer};

/// 2026-11-23T03:12:00Z
pub const START: u64 = 1_795_403_520_000_000_000;
const MS: u64 = 1_000_000;
/// Events in a batch.
pub const BATCH: usize = 10;

/// A server, a hostile program that wants its port, a loss, and 24 connections with both ends.
pub fn events() -> Vec<Event> {
    let peer = |pid, comm: &str| Peer {
        pid,
        comm: comm.into(),
        sock: None,
    };
    let server = Arc::new(Context {
        exe: Some("/usr/sbin/nginx".into()),
        args: Some(["nginx".into(), "-g".into(), "daemon off;".into()].into()),
        user: Some("root".into()),
        parents: Some(vec![peer(1, "systemd")]),
        cgroup: Some("/system.slice/nginx.service".into()),
        unit: Some("nginx.service".into()),
        container: None,
    });
    let client = Arc::new(Context {
        exe: Some("/usr/bin/curl".into()),
        args: Some(["curl".into(), "http://10.0.0.1/".into()].into()),
        user: Some("alice".into()),
        parents: Some(vec![peer(4000, "bash"), peer(3999, "sshd")]),
        container: Some("0123456789ab".into()),
        ..Context::default()
    });
    let hostile = Arc::new(Context {
        exe: Some("/tmp/\u{202e}gpj.x".into()),
        args: Some(["=cmd|' /C calc'!A0".into(), "\x1b[2J\n,\"".into()].into()),
        ..Context::default()
    });
    let event = |ms: u64, kind, pid, comm: &[u8], context: &Arc<Context>| {
        let mut name = [0; 16];
        name[..comm.len()].copy_from_slice(comm);
        let mut event = Event::new(kind, Origin::Live, START + ms * MS);
        event.proto = Some(Proto::Tcp);
        event.family = Some(Family::Ipv4);
        event.netns = Some(4_026_531_840);
        (event.pid, event.tid, event.ppid) = (Some(pid), Some(pid), Some(1));
        (event.uid, event.gid) = (Some(0), Some(0));
        event.comm = Some(Comm(name));
        event.context = Some(context.clone());
        event
    };
    let local = Some("10.0.0.1".parse().unwrap());
    let remote = Some("10.0.0.2".parse().unwrap());

    let mut bind = event(0, Kind::Bind, 812, b"nginx", &server);
    (bind.laddr, bind.lport, bind.sock) = (local, Some(80), Some(7));
    let mut listen = event(1, Kind::Listen, 812, b"nginx", &server);
    (listen.laddr, listen.lport, listen.sock) = (local, Some(80), Some(7));
    (listen.backlog, listen.service) = (Some(511), Some("http"));
    let mut taken = event(2, Kind::Bind, 4242, b"\x1b]0;x\x07\xff", &hostile);
    (taken.laddr, taken.lport) = (local, Some(80));
    taken.error = Some(libc::EADDRINUSE as u16);
    taken.holders = Some(vec![Peer {
        pid: 812,
        comm: "nginx".into(),
        sock: Some(7),
    }]);
    let mut events = vec![bind, listen, taken];
    for number in 0..24_u64 {
        let ms = 10 + number * 10;
        let port = 40_000 + number as u16;
        let out = |ms, kind| {
            let mut event = event(ms, kind, 4243, b"curl", &client);
            (event.laddr, event.lport) = (remote, Some(port));
            (event.raddr, event.rport) = (local, Some(80));
            event.sock = Some(1000 + number);
            (event.uid, event.gid, event.ppid) = (Some(1000), Some(1000), Some(4000));
            event
        };
        let mut connect = out(ms, Kind::Connect);
        connect.latency_us = Some(90);
        let mut closed = out(ms + 5, Kind::Close);
        (closed.cause, closed.duration_us) = (Some(Cause::Remote), Some(5000));
        (closed.rx_bytes, closed.tx_bytes) = (Some(4400), Some(78));
        let back = |ms, kind| {
            let mut event = event(ms, kind, 812, b"nginx", &server);
            (event.laddr, event.lport) = (local, Some(80));
            (event.raddr, event.rport) = (remote, Some(port));
            event.sock = Some(u64::MAX - number);
            event
        };
        let mut accept = back(ms + 1, Kind::Accept);
        accept.latency_us = Some(30);
        let mut close = back(ms + 4, Kind::Close);
        (close.cause, close.duration_us) = (Some(Cause::Local), Some(3000));
        (close.rx_bytes, close.tx_bytes) = (Some(78), Some(4400));
        events.extend([connect, accept, close, closed]);
    }
    let mut lost = Event::new(Kind::Lost, Origin::Live, START + 300 * MS);
    lost.count = Some(12);
    let mut end = event(301, Kind::Close, 812, b"nginx", &server);
    (end.laddr, end.lport, end.sock) = (local, Some(80), Some(7));
    (end.cause, end.duration_us, end.accepted) = (Some(Cause::Local), Some(300_000), Some(24));
    events.extend([lost, end]);
    for (at, event) in events.iter_mut().enumerate() {
        event.seq = at as u64 + 1;
    }
    events
}

/// A session with [`events`] in one run, which ends with a batch of its own.
pub fn session(path: &Path, key: Option<&SecretKey>) {
    let db = session::create(path).unwrap();
    run(&db, key, true);
}

pub fn run(db: &rusqlite::Connection, key: Option<&SecretKey>, finished: bool) {
    let sign = |hash: &[u8; 32]| key.unwrap().sign(hash);
    let sign = key.map(|_| &sign as Sign<'_>);
    let mut writer = Writer::new(db, Box::new(|_, _| About::default())).unwrap();
    let began = Run {
        began: START,
        host: Some("db1".into()),
        kernel: Some("6.18.0".into()),
        arch: Some("x86_64".into()),
        boot: Some("11111111-2222-3333-4444-555555555555".into()),
        version: "0.1.0".into(),
        source: "tracepoint probes".into(),
        ..Run::default()
    };
    writer.begin(&began).unwrap();
    writer.checkpoint(START, []).unwrap();
    for events in events().chunks(BATCH) {
        events.iter().for_each(|event| {
            writer.event(event).unwrap();
        });
        writer.commit(sign).unwrap();
    }
    writer.exit(4243, START + 400 * MS, Some(0)).unwrap();
    if finished {
        let finish = Finish {
            ended: START + 500 * MS,
            reason: "interrupted".into(),
            complete: false,
            accounts: "{}".into(),
        };
        writer.finish(&finish).unwrap();
    }
    writer.commit(sign).unwrap();
}
