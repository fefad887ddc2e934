//! `portwatch who PORT`: everything about one port, and with `--wait` what becomes of it.

mod past;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::thread::CapabilitySet;

use crate::cli::{ReportFormat, Target, WhoArgs};
use crate::command::holders::Holders;
use crate::command::list::{hint, style};
use crate::command::output::{Output, but_for_a_closed_pipe, is_closed_pipe};
use crate::command::recorded::home;
use crate::command::signals::Signals;
use crate::command::trace::{Particular, greet, not_observed, summary};
use crate::command::{READER_CHECK, netns, say, screen, wrong_usage};
use crate::event::{Event, Kind, Proto};
use crate::exit::Exit;
use crate::filter::{Filter, Span, Spans};
use crate::machine;
use crate::port::{self, Question, Report, Rules};
use crate::row::{Row, State};
use crate::service;
use crate::snapshot::{self, Snapshot};
use crate::source::{self, Source};
use crate::view::lines::{Json, Lines, Text};
use crate::view::rows::Style;
use crate::view::who::Answer;

/// What tells who takes and frees a port.
const KINDS: &[Kind] = &[Kind::Bind, Kind::Listen, Kind::Connect, Kind::Close];
/// Size of the kernel's event buffer, unless told otherwise: one port has not much to tell.
const RING_BYTES: u32 = 1 << 20;

/// What a bind is up to on another machine nobody tells.
fn elsewhere_told(question: &Question) -> String {
    let addr = question.addr.filter(|addr| !addr.is_unspecified());
    let has = match (addr, question.device) {
        (None, None) => "",
        (Some(_), None) => ", if the machine has that address",
        (None, Some(_)) => ", if the machine has that interface",
        (Some(_), Some(_)) => ", if the machine has that address on that interface",
    };
    format!(
        "what becomes of a bind is told for a process with privileges and the kernel's default settings{has}"
    )
}

/// Answers, and with `--wait` stays until a signal or until nobody reads any more.
///
/// # Errors
/// When there is no snapshot, or the answer cannot be written.
pub async fn run(args: WhoArgs) -> Result<Exit> {
    let here = [("--wait", args.wait)];
    let session = args.source.session(&here, &args.moment.given());
    let session = session.map_err(wrong_usage)?;
    let source = source(&args);
    // Before the answer, so that nothing happens unseen between the two.
    let mut watch = match args.wait {
        true => Some(Watch::start(&args, &source)?),
        false => None,
    };
    let mut output = Output::open(None)?;
    let mut limits = match session {
        Some(path) => past::answer(&args, path, &mut output.buffer)?,
        None => answer(
            &args,
            source.snapshot(),
            watch.as_mut().map(|(watch, _)| watch),
            &mut output.buffer,
        )?,
    };
    match output.flush() {
        Err(error) if is_closed_pipe(&error) => return Ok(Exit::Fine),
        result => result?,
    }
    // Those of polling have been told at its start.
    if let Some((_, Source::Poll(poll, _))) = &watch {
        limits.retain(|limit| !poll.limits().contains(limit));
    }
    hint(&limits);
    if let Some((mut watch, mut events)) = watch {
        watch.follow(&mut events, &mut output).await?;
        watch.end(events, &mut output)?;
    }
    Ok(Exit::Fine)
}

fn protos(args: &WhoArgs) -> Vec<Proto> {
    match (args.tcp, args.udp) {
        (true, false) => vec![Proto::Tcp],
        (false, true) => vec![Proto::Udp],
        _ => vec![Proto::Tcp, Proto::Udp],
    }
}

/// Those of events: tcp includes mptcp.
fn with_mptcp(args: &WhoArgs) -> Vec<Proto> {
    (protos(args).into_iter())
        .flat_map(|proto| match proto {
            Proto::Tcp => vec![Proto::Tcp, Proto::Mptcp],
            other => vec![other],
        })
        .collect()
}

/// Where to look, now and with `--wait`.
fn source(args: &WhoArgs) -> source::Options {
    let mut options = args.source.options(&args.probes, RING_BYTES);
    options.live.kinds = KINDS.to_vec();
    options
}

/// What is asked, of a bind in this namespace.
fn question(args: &WhoArgs, netns: Option<u32>) -> Question {
    Question {
        port: args.target.port,
        addr: args.target.addr,
        device: args.target.device,
        protos: protos(args),
        netns,
    }
}

/// Appends the answer, which `watch` goes on from; returns what could not be seen.
fn answer(
    args: &WhoArgs,
    options: snapshot::Options,
    watch: Option<&mut Watch>,
    out: &mut Vec<u8>,
) -> Result<Vec<String>> {
    let options = snapshot::Options {
        holders: true,
        ..options
    };
    let root = options.proc_root.as_deref();
    let Snapshot {
        mut rows,
        mut limits,
    } = snapshot::take(&options)?;
    let netns = match root {
        None => netns::home(None),
        Some(root) => home(snapshot::first_netns(root), &rows),
    };
    let question = question(args, netns);
    for row in &mut rows {
        row.event.service = service::of(&row.event);
    }
    let rules = match root {
        None => rules(&question),
        Some(_) => {
            limits.push(elsewhere_told(&question));
            Rules::elsewhere(&question)
        }
    };
    let reports = port::reports(&question, &rules, &rows);
    if let Some(watch) = watch {
        watch.begin(&reports);
    }
    let answer = Answer {
        started: started(root, reports.iter().flat_map(|x| &x.servers)),
        question,
        rules,
        reports,
        limits: &limits,
        past: None,
    };
    let style = Style {
        netns,
        ..style(args.numeric, root)
    };
    match args.output {
        ReportFormat::Text => out.extend_from_slice(answer.text(&style).as_bytes()),
        ReportFormat::Json => answer.put_json(out),
    }
    Ok(limits)
}

/// When the owners were started.
fn started<'a>(root: Option<&Path>, rows: impl Iterator<Item = &'a Row>) -> HashMap<u32, u64> {
    let pids: HashSet<u32> = rows.filter_map(|row| row.event.pid).collect();
    (pids.into_iter())
        .filter_map(|pid| Some((pid, machine::started(root, pid)?)))
        .collect()
}

/// The settings of this namespace; the kernel's defaults where they cannot be read.
fn rules(question: &Question) -> Rules {
    let setting = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/{name}"));
        text.unwrap_or_default().trim().to_owned()
    };
    let range = setting("ipv4/ip_local_port_range");
    let mut ends = range.split_whitespace().map(str::parse::<u16>);
    let (first, last) = match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => (first, last),
        _ => (32768, 60999),
    };
    let reserved = setting("ipv4/ip_local_reserved_ports");
    // Everyone has this one.
    let addr = question.addr.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    Rules {
        unprivileged_start: setting("ipv4/ip_unprivileged_port_start")
            .parse()
            .unwrap_or(1024),
        privileged: machine::has_network_capability(CapabilitySet::NET_BIND_SERVICE),
        ephemeral: Span { first, last },
        reserved: Spans(reserved.split(',').filter_map(|x| x.parse().ok()).collect()),
        v6only: setting("ipv6/bindv6only") == "1",
        closed: Vec::new(),
        unseen: None,
        refusals: (question.protos.iter())
            .filter_map(|&proto| Some((proto, machine::refusal(proto, addr, question.device)?)))
            .collect(),
    }
}

/// Whether what happens there concerns the address that was asked for.
fn in_the_way(addr: Option<IpAddr>, event: &Event) -> bool {
    match (addr, event.laddr) {
        (Some(addr), Some(other)) => {
            addr == other || addr.is_unspecified() || other.is_unspecified()
        }
        _ => true,
    }
}

/// The events of a port as they happen.
struct Watch {
    signals: Signals,
    target: Target,
    filter: Filter,
    lines: Lines,
    holders: Holders,
    /// Number of the last event shown.
    seq: u64,
    /// Sockets that have the port by a bind, and those that have it as long as they are connected or try to be.
    bound: HashSet<u64>,
    connected: HashSet<u64>,
}

impl Watch {
    fn start(args: &WhoArgs, options: &source::Options) -> Result<(Self, Source)> {
        let signals = Signals::new().context("waiting for signals")?;
        let mut source = Source::start(options)?;
        greet(&mut source, &Particular::of(&args.source, &args.probes));
        if matches!(source, Source::Poll(..)) {
            say("polling does not see binds that fail");
        }
        let port = args.target.port;
        let watch = Self {
            signals,
            target: args.target,
            holders: Holders::new(true),
            seq: 0,
            bound: HashSet::new(),
            connected: HashSet::new(),
            filter: Filter {
                kinds: KINDS.to_vec(),
                ports: Spans(vec![Span {
                    first: port,
                    last: port,
                }]),
                protos: with_mptcp(args),
                ..Filter::default()
            },
            lines: match args.output {
                ReportFormat::Text => {
                    let home = netns::home(args.source.proc_root.as_deref());
                    Lines::Text(Text::new(None, screen::style(args.numeric, true, home)))
                }
                ReportFormat::Json => Lines::Json(Json::new(None)),
            },
        };
        Ok((watch, source))
    }

    /// What has the port now.
    fn begin(&mut self, reports: &[Report<'_>]) {
        let rows = (reports.iter()).flat_map(|x| x.servers.iter().chain(x.others.iter().copied()));
        for row in rows.filter(|row| row.event.kind != Kind::Accept) {
            let has_it = match row.state {
                State::SynSent => &mut self.connected,
                _ => &mut self.bound,
            };
            has_it.extend(row.event.sock);
        }
    }

    /// Whether the event takes or frees the port, or fails to. An accepted connection does
    /// neither; one that was made from there does both, whatever it was connected to. What is lost may have
    /// been any of that.
    fn concerns(&mut self, event: &Event) -> bool {
        if event.kind == Kind::Lost {
            return true;
        }
        if !self.filter.matches(event) || event.lport != Some(self.target.port) {
            return false;
        }
        if !in_the_way(self.target.addr, event) {
            return false;
        }
        match (event.kind, event.sock) {
            (Kind::Close, Some(sock)) => {
                let had_it = self.bound.remove(&sock) | self.connected.remove(&sock);
                had_it || event.rport.is_none()
            }
            (Kind::Close, None) => event.rport.is_none(),
            // Of one that was bound before it is no news.
            (Kind::Connect, Some(sock)) if self.bound.contains(&sock) => false,
            (Kind::Connect, Some(sock))
                if event.error.is_none() || event.has_error(libc::EINPROGRESS) =>
            {
                self.connected.insert(sock)
            }
            // An attempt that took longer has given the port back.
            (Kind::Connect, Some(sock)) => self.connected.remove(&sock),
            (Kind::Connect, None) => event.error.is_none(),
            (_, Some(sock)) if event.error.is_none() => {
                self.bound.insert(sock);
                true
            }
            _ => true,
        }
    }

    /// Shows events until a signal comes or nobody reads them any more.
    async fn follow(&mut self, source: &mut Source, output: &mut Output) -> Result<()> {
        let mut events = Vec::new();
        let mut reader_check = tokio::time::interval(READER_CHECK);
        self.lines.header(&mut output.buffer);
        loop {
            match output.flush() {
                Err(error) if is_closed_pipe(&error) => return Ok(()),
                result => result?,
            }
            tokio::select! {
                biased;
                _ = self.signals.next() => return Ok(()),
                _ = reader_check.tick() => if output.reader_left() {
                    return Ok(());
                },
                more = source.next(&mut events) => more?,
            }
            self.show(&mut events, output);
        }
    }

    fn show(&mut self, events: &mut Vec<Event>, output: &mut Output) {
        let mut later = events.drain(..);
        while let Some(mut event) = later.next() {
            self.holders.tell(&mut event, later.as_slice());
            if !self.concerns(&event) {
                continue;
            }
            self.seq += 1;
            event.seq = self.seq;
            event.service = service::of(&event);
            self.lines.event(&mut output.buffer, &event);
        }
    }

    /// Shows what was still on its way, and says whether anything was missed.
    fn end(mut self, source: Source, output: &mut Output) -> Result<()> {
        let missing = not_observed(&source);
        let mut events = Vec::new();
        let accounts = source.finish(&mut events)?;
        self.show(&mut events, output);
        but_for_a_closed_pipe(output.flush())?;
        say(&summary::verdict(&accounts, missing.as_deref()));
        Ok(())
    }
}
