//! Events for the tests of the views: any that can be, and some typical ones.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::event::{Cause, Comm, Context, Event, Family, Kind, Origin, Peer, Proto};

/// Some events of a few processes that share their contexts.
pub fn events(count: Range<usize>) -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec(event(), count)
}

/// Any event at all, with text as hostile as can be.
pub fn event() -> impl Strategy<Value = Event> {
    let head = (
        any::<u64>(),
        any::<u64>(),
        select(Kind::ALL),
        select(Origin::ALL),
        of(select(Proto::ALL)),
        of(select(Family::ALL)),
        of(addr()),
        of(any::<u16>()),
        of(addr()),
        of(any::<u16>()),
    );
    let owner = (
        of(any::<u64>()),
        of(any::<u64>()),
        of(any::<u32>()),
        of(any::<u32>()),
        of(any::<u32>()),
        of(any::<u32>()),
        of(any::<u32>()),
        of(any::<u32>()),
        of(any::<[u8; 16]>().prop_map(Comm)),
        of(context().prop_map(Arc::new)),
    );
    let outcome = (
        of(any::<u16>()),
        of(any::<u32>()),
        of(any::<u64>()),
        of(any::<u64>()),
        of(any::<u64>()),
        of(any::<u64>()),
        of(any::<u32>()),
        of(any::<u32>()),
        of(any::<u32>()),
    );
    let rest = (
        of(select(Cause::ALL)),
        of(select(&["TCP_STATE", "odd \"reason\"\n"][..])),
        of(peers()),
        of(any::<u64>()),
        of(Just("http")),
    );
    (head, owner, outcome, rest).prop_map(|(head, owner, outcome, rest)| {
        let (ts, seq, kind, origin, proto, family, laddr, lport, raddr, rport) = head;
        let (sock, inode, netns, pid, tid, ppid, uid, gid, comm, context) = owner;
        let (
            error,
            backlog,
            latency_us,
            duration_us,
            rx_bytes,
            tx_bytes,
            rtt_us,
            retrans,
            accepted,
        ) = outcome;
        let (cause, reason, holders, count, service) = rest;
        Event {
            ts,
            seq,
            kind,
            origin,
            proto,
            family,
            laddr,
            lport,
            raddr,
            rport,
            sock,
            inode,
            netns,
            pid,
            tid,
            ppid,
            uid,
            gid,
            comm,
            context,
            error,
            backlog,
            latency_us,
            duration_us,
            rx_bytes,
            tx_bytes,
            rtt_us,
            retrans,
            accepted,
            cause,
            reason,
            holders,
            count,
            service,
        }
    })
}

fn addr() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>()
}

fn context() -> impl Strategy<Value = Context> {
    let text = || of(any::<String>());
    let args = of(proptest::collection::vec(any::<String>(), 0..4));
    (text(), args, text(), of(peers()), text(), text(), text()).prop_map(
        |(exe, args, user, parents, cgroup, container, unit)| Context {
            exe,
            args: args.map(Arc::from),
            user,
            parents,
            cgroup,
            container,
            unit,
        },
    )
}

fn peers() -> impl Strategy<Value = Vec<Peer>> {
    let peer = (any::<u32>(), any::<String>(), of(any::<u64>()));
    proptest::collection::vec(
        peer.prop_map(|(pid, comm, sock)| Peer { pid, comm, sock }),
        0..3,
    )
}

/// A day in the life of a small machine.
pub fn typical() -> Vec<Event> {
    const START: u64 = 1_700_000_000_123_456_789;
    let addr = |x: &str| Some(x.parse().unwrap());
    let peer = |pid, comm: &str| Peer {
        pid,
        comm: comm.into(),
        sock: None,
    };
    let nginx = Arc::new(Context {
        exe: Some("/usr/sbin/nginx".into()),
        args: Some(["nginx".into(), "-g".into(), "daemon off;".into()].into()),
        user: Some("root".into()),
        parents: Some(vec![peer(1, "systemd")]),
        cgroup: Some("/system.slice/nginx.service".into()),
        container: None,
        unit: Some("nginx.service".into()),
    });
    let curl = Arc::new(Context {
        exe: Some("/usr/bin/curl".into()),
        args: Some(["curl".into(), "https://[2001:db8::2]/".into()].into()),
        user: Some("alice".into()),
        parents: Some(vec![peer(4000, "bash"), peer(3999, "sshd")]),
        container: Some("0123456789ab".into()),
        ..Context::default()
    });
    let evil = Arc::new(Context {
        exe: Some("/tmp/\u{202e}gpj.x (deleted)".into()),
        args: Some(["x".into(), String::new(), "a b".into(), "\x1b[2J\n".into()].into()),
        ..Context::default()
    });
    let event = |ms: u64, kind, pid, comm: &[u8], context: &Arc<Context>| {
        let mut event = Event::new(kind, Origin::Live, START + ms * 1_000_000);
        let mut name = [0; 16];
        name[..comm.len()].copy_from_slice(comm);
        event.seq = ms;
        event.proto = Some(Proto::Tcp);
        event.family = Some(Family::Ipv4);
        event.pid = Some(pid);
        event.uid = Some(0);
        event.comm = Some(Comm(name));
        event.context = Some(context.clone());
        event
    };

    let mut listen = event(1, Kind::Listen, 812, b"nginx", &nginx);
    (listen.laddr, listen.lport) = (addr("0.0.0.0"), Some(80));
    (listen.backlog, listen.service) = (Some(511), Some("http"));

    let mut taken = event(2, Kind::Bind, 4242, b"\x1b]0;x\x07\xff", &evil);
    (taken.laddr, taken.lport) = (addr("0.0.0.0"), Some(80));
    taken.error = Some(libc::EADDRINUSE as u16);
    taken.holders = Some(vec![Peer {
        pid: 812,
        comm: "nginx".into(),
        sock: Some(7),
    }]);

    let mut connect = event(3, Kind::Connect, 4194304, b"curl", &curl);
    connect.family = Some(Family::Ipv6);
    (connect.laddr, connect.lport) = (addr("2001:db8::1"), Some(40000));
    (connect.raddr, connect.rport) = (addr("2001:db8::2"), Some(443));
    (connect.latency_us, connect.service) = (Some(12_345), Some("https"));
    connect.uid = Some(1000);

    let mut refused = event(4, Kind::Connect, 4243, b"a-fifteen-chars", &curl);
    (refused.laddr, refused.lport) = (addr("192.168.100.200"), Some(54321));
    (refused.raddr, refused.rport) = (addr("192.168.100.201"), Some(54322));
    refused.error = Some(libc::ECONNREFUSED as u16);

    let mut accept = event(5, Kind::Accept, 812, b"nginx", &nginx);
    (accept.laddr, accept.lport) = (addr("10.0.0.1"), Some(80));
    (accept.raddr, accept.rport) = (addr("10.0.0.2"), Some(40001));
    accept.latency_us = Some(30);

    let mut close = event(6, Kind::Close, 812, b"nginx", &nginx);
    (close.laddr, close.lport) = (addr("10.0.0.1"), Some(80));
    (close.raddr, close.rport) = (addr("10.0.0.2"), Some(40001));
    close.cause = Some(Cause::Remote);
    (close.duration_us, close.rtt_us, close.retrans) = (Some(2_500_000), Some(180), Some(2));
    (close.rx_bytes, close.tx_bytes) = (Some(420), Some(1_300_000));

    let mut ended = event(7, Kind::Close, 812, b"nginx", &nginx);
    (ended.laddr, ended.lport) = (addr("0.0.0.0"), Some(80));
    (ended.cause, ended.accepted) = (Some(Cause::Local), Some(1));
    ended.duration_us = Some(3_725_000_000);

    let mut reset = Event::new(Kind::Reset, Origin::Live, START + 8_000_000);
    (reset.proto, reset.family) = (Some(Proto::Tcp), Some(Family::Ipv4));
    (reset.laddr, reset.lport) = (addr("127.0.0.1"), Some(9));
    (reset.raddr, reset.rport) = (addr("127.0.0.1"), Some(40002));
    (reset.cause, reset.reason) = (Some(Cause::Sent), Some("NO_SOCKET"));

    let mut lost = Event::new(Kind::Lost, Origin::Live, START + 9_000_000);
    lost.count = Some(1234);
    vec![
        listen, taken, connect, refused, accept, close, ended, reset, lost,
    ]
}
