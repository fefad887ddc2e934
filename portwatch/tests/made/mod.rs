//! Sessions made without a kernel: as large as asked for, or as hostile as can be.

use std::path::Path;
use std::sync::Arc;

use portwatch::event::{Cause, Comm, Context, Event, Kind, Origin, Peer, Proto};
use portwatch::session::{self, About, Finish, Run, Writer};

/// When they begin: 2026-11-23 08:50:00 UTC, in nanoseconds since the Unix epoch.
pub const BEGAN: u64 = 1_795_423_800 * SECOND;
pub const SECOND: u64 = 1_000_000_000;
const BATCH: usize = 10_000;

/// What a made session holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Truth {
    pub events: u64,
    pub by_kind: [u64; Kind::ALL.len()],
    pub failed: u64,
    /// Connects that succeeded.
    pub connected: u64,
    pub short_lived: u64,
}

/// Adds events and counts them.
struct Maker<'db> {
    writer: Writer<'db>,
    truth: Truth,
}

impl Maker<'_> {
    fn put(&mut self, event: &Event) {
        self.truth.events += 1;
        self.truth.by_kind[event.kind as usize] += 1;
        self.truth.connected += u64::from(event.kind == Kind::Connect && event.error.is_none());
        self.truth.failed += u64::from(event.error.is_some());
        self.writer.event(event).unwrap();
        if self.truth.events.is_multiple_of(BATCH as u64) {
            self.writer.commit(None).unwrap();
        }
    }
}

/// Who acts in a made session.
struct Actor {
    pid: u32,
    comm: Comm,
    context: Arc<Context>,
}

impl Actor {
    fn new(pid: u32, comm: &str, exe: &str, args: &[&str], user: &str) -> Self {
        let shell = Peer {
            pid: 7256,
            comm: "bash".into(),
            sock: None,
        };
        Self {
            pid,
            comm: comm.into(),
            context: Arc::new(Context {
                exe: Some(exe.into()),
                args: Some(args.iter().map(ToString::to_string).collect()),
                user: Some(user.into()),
                parents: Some(vec![shell]),
                ..Context::default()
            }),
        }
    }

    fn event(&self, kind: Kind, ts: u64, sock: u64) -> Event {
        let mut event = Event::new(kind, Origin::Live, ts);
        event.proto = Some(Proto::Tcp);
        event.family = Some(portwatch::event::Family::Ipv4);
        event.sock = Some(sock);
        event.netns = Some(4_026_531_840);
        (event.pid, event.tid) = (Some(self.pid), Some(self.pid));
        event.uid = Some(u32::from(self.context.user.as_deref() != Some("root")) * 1000);
        event.comm = Some(self.comm);
        event.context = Some(self.context.clone());
        event
    }
}

fn at(event: &mut Event, laddr: &str, lport: u16) {
    (event.laddr, event.lport) = (Some(laddr.parse().unwrap()), Some(lport));
}

fn to(event: &mut Event, raddr: std::net::IpAddr, rport: u16) {
    (event.raddr, event.rport) = (Some(raddr), Some(rport));
}

fn run(began: u64) -> Run {
    Run {
        began,
        host: Some("lathe".into()),
        kernel: Some("6.18.5".into()),
        arch: Some("x86_64".into()),
        version: "0.1.0".into(),
        source: "tracepoint probes".into(),
        ..Run::default()
    }
}

/// A day of about `events` events: servers and their clients, one process for each client, listeners
/// of a few milliseconds, and what fails. The first of its two runs was cut off.
pub fn day(path: &Path, events: u64) -> Truth {
    const DAY: u64 = 24 * 3600 * SECOND;
    let db = session::create(path).unwrap();
    let mut maker = Maker {
        writer: Writer::new(&db, Box::new(|_, _| About::default())).unwrap(),
        truth: Truth::default(),
    };
    maker.writer.begin(&run(BEGAN)).unwrap();
    let servers = [
        (
            80,
            Actor::new(812, "nginx", "/usr/sbin/nginx", &["nginx"], "root"),
        ),
        (
            443,
            Actor::new(812, "nginx", "/usr/sbin/nginx", &["nginx"], "root"),
        ),
        (
            5432,
            Actor::new(
                901,
                "postgres",
                "/usr/lib/postgresql/18/bin/postgres",
                &["postgres", "-D", "/srv/pg"],
                "postgres",
            ),
        ),
        (
            8080,
            Actor::new(
                7262,
                "python3",
                "/usr/bin/python3.11",
                &["python3", "-m", "http.server", "8080"],
                "alice",
            ),
        ),
    ];
    for (at_, (port, server)) in servers.iter().enumerate() {
        for (step, kind) in [Kind::Bind, Kind::Listen].into_iter().enumerate() {
            let mut event =
                server.event(kind, BEGAN + SECOND + step as u64 * 9_000, 1 + at_ as u64);
            at(&mut event, "0.0.0.0", *port);
            event.backlog = (kind == Kind::Listen).then_some(511);
            maker.put(&event);
        }
    }
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let rounds = (events.saturating_sub(maker.truth.events)) / 4;
    let second_run = rounds / 3;
    for round in 0..rounds {
        // Busier in the middle of the day, and nothing between the runs.
        let part = round as f64 / rounds.max(1) as f64;
        let place = part + 0.12 * (part * std::f64::consts::TAU).sin() / std::f64::consts::TAU;
        let gap = if round < second_run { 0 } else { DAY / 24 };
        let ts = BEGAN + 2 * SECOND + gap + (place * DAY as f64) as u64;
        if round == second_run && round > 0 {
            maker.writer.commit(None).unwrap();
            maker.writer.begin(&run(ts)).unwrap();
        }
        let sock = 1000 + round * 4;
        let (port, server) = &servers[next(4) as usize];
        let client_port = 32_768 + next(28_000) as u16;
        let peer: std::net::IpAddr = [10, 0, next(4) as u8, next(250) as u8].into();
        let pid = 10_000 + (round % 4_000_000) as u32;
        let url = format!("http://10.0.0.{}/", next(9));
        let client = Actor::new(pid, "curl", "/usr/bin/curl", &["curl", "-s", &url], "alice");
        match next(100) {
            0 => {
                let tool = Actor::new(
                    pid,
                    "nc",
                    "/usr/bin/nc.openbsd",
                    &["nc", "-l", "4444"],
                    "alice",
                );
                let port = 4440 + next(9) as u16;
                for (step, kind) in [Kind::Bind, Kind::Listen, Kind::Close]
                    .into_iter()
                    .enumerate()
                {
                    let mut event = tool.event(kind, ts + step as u64 * 3_000_000, sock);
                    at(&mut event, "127.0.0.1", port);
                    if kind == Kind::Close {
                        event.cause = Some(Cause::Local);
                        (event.duration_us, event.accepted) = (Some(3_000), Some(0));
                    }
                    maker.put(&event);
                }
                maker.truth.short_lived += 1;
                let mut taken = tool.event(Kind::Bind, ts + 9_000_000, sock + 1);
                at(&mut taken, "0.0.0.0", 80);
                taken.error = Some(libc::EADDRINUSE as u16);
                maker.put(&taken);
            }
            1..=3 => {
                for step in 0..3 {
                    let mut event = client.event(Kind::Connect, ts + step * 5_000_000, sock + step);
                    at(&mut event, "10.0.0.1", client_port);
                    to(&mut event, peer, 8081);
                    event.error =
                        Some([libc::ECONNREFUSED, libc::ETIMEDOUT][next(2) as usize] as u16);
                    event.latency_us = Some(40 + next(900));
                    maker.put(&event);
                }
                let mut reset = client.event(Kind::Reset, ts + 16_000_000, sock + 3);
                at(&mut reset, "10.0.0.1", client_port);
                to(&mut reset, peer, 443);
                reset.cause = Some(Cause::Received);
                maker.put(&reset);
            }
            _ => {
                let local: std::net::IpAddr = [10, 0, 0, 1].into();
                let ends = [
                    (&client, Kind::Connect),
                    (server, Kind::Accept),
                    (server, Kind::Close),
                    (&client, Kind::Close),
                ];
                for (step, (actor, kind)) in ends.into_iter().enumerate() {
                    let served = std::ptr::eq(actor, server);
                    let mut event =
                        actor.event(kind, ts + step as u64 * 400_000, sock + u64::from(served));
                    let (from, towards) = if served {
                        (*port, client_port)
                    } else {
                        (client_port, *port)
                    };
                    at(&mut event, "10.0.0.1", from);
                    to(&mut event, if served { peer } else { local }, towards);
                    match kind {
                        Kind::Close => {
                            event.cause = Some(if served { Cause::Local } else { Cause::Remote });
                            event.duration_us = Some(400 + next(9_000));
                            (event.rx_bytes, event.tx_bytes) =
                                (Some(78 + next(4_000)), Some(400 + next(90_000)));
                        }
                        _ => event.latency_us = Some(30 + next(90)),
                    }
                    maker.put(&event);
                }
            }
        }
    }
    let finish = Finish {
        ended: BEGAN + DAY + DAY / 24 + 9 * SECOND,
        reason: "interrupted".into(),
        complete: true,
        accounts: "{}".into(),
    };
    maker.writer.finish(&finish).unwrap();
    maker.writer.commit(None).unwrap();
    maker.truth
}

/// Names that do something where they are taken for markup or for a script.
pub const HOSTILE: [&str; 9] = [
    "<script>document.documentElement.dataset.hit=1</script>",
    "</script><script>document.documentElement.dataset.hit=1</script>",
    "<!--<script ",
    "</script /",
    "<img src=x onerror=document.documentElement.dataset.hit=1>",
    "\"><b onmouseover=x>",
    "</td><iframe src=javascript:1>",
    "\u{202e}lmth.\u{2028}\u{200b}",
    "\x1b]0;x\x07\x1b[2J",
];

/// A session in which every name is hostile.
pub fn hostile(path: &Path) {
    let db = session::create(path).unwrap();
    let mut writer = Writer::new(&db, Box::new(|_, _| About::default())).unwrap();
    let all = HOSTILE.concat();
    let run = Run {
        host: Some(all.clone()),
        kernel: Some(all.clone()),
        not_observed: Some(all.clone()),
        source: all.clone(),
        version: all.clone(),
        command: Some(all.clone()),
        ..run(BEGAN)
    };
    writer.begin(&run).unwrap();
    for (at_, name) in HOSTILE.into_iter().enumerate() {
        let mut actor = Actor::new(7, name, name, &[name, &all], name);
        let context = Arc::get_mut(&mut actor.context).unwrap();
        context.cgroup = Some(name.into());
        context.container = Some(name.into());
        context.unit = Some(name.into());
        context.parents.as_mut().unwrap()[0].comm = name.into();
        for (step, kind) in [Kind::Bind, Kind::Listen, Kind::Close, Kind::Connect]
            .into_iter()
            .enumerate()
        {
            let ts = BEGAN + (at_ * 10 + step) as u64 * 1_000_000;
            let mut event = actor.event(kind, ts, at_ as u64);
            at(&mut event, "127.0.0.1", 80);
            if kind == Kind::Connect {
                to(&mut event, [127, 0, 0, 1].into(), 81);
                event.error = Some(libc::ECONNREFUSED as u16);
            }
            writer.event(&event).unwrap();
        }
        writer.exit(7, BEGAN, None).unwrap();
    }
    let finish = Finish {
        ended: BEGAN + SECOND,
        reason: all.clone(),
        complete: false,
        accounts: all,
    };
    writer.finish(&finish).unwrap();
    writer.commit(None).unwrap();
}
