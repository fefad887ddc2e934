//! Events as documents of the Elastic Common Schema, one a line. Names are those of
//! `data/ecs-fields`; what has none is under `portwatch`, with the names of our schema.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::document::{Document, address, holders, long, processes};
use super::flow::Direction;
use crate::event::{Cause, Comm, Context, Event, Family, Kind, Proto};
use crate::session::Run;
use crate::view::time::Utc;

const VERSION: &str = "8.11.0";

/// The document of an event; `direction`: which end began its connection.
pub fn document(run: &Run, event: &Event, direction: Option<Direction>) -> Value {
    let mut document = Document::default();
    document.put("@timestamp", Some(Utc::text(event.ts)));
    document.put("ecs.version", Some(VERSION));
    document.put("agent.type", Some("portwatch"));
    document.put("agent.version", Some(run.version.as_str()));
    put_host(&mut document, run);
    put_event(&mut document, event);
    put_network(&mut document, event, direction);
    put_owner(&mut document, event);
    put_rest(&mut document, event);
    document.into_value()
}

fn put_host(document: &mut Document, run: &Run) {
    document.put("host.hostname", run.host.as_deref());
    document.put("host.name", run.host.as_deref());
    document.put("host.architecture", run.arch.as_deref());
    document.put("host.boot.id", run.boot.as_deref());
    document.put("host.os.kernel", run.kernel.as_deref());
    document.put("host.os.type", Some("linux"));
}

fn put_event(document: &mut Document, event: &Event) {
    let is_open = event.has_error(libc::EINPROGRESS);
    let (kind, category, types): (_, &[&str], &[&str]) = match event.kind {
        Kind::Bind => ("event", &["network"], &["info"]),
        Kind::Listen => ("event", &["network"], &["start"]),
        Kind::Connect if is_open => ("event", &["network"], &["connection", "info"]),
        Kind::Connect | Kind::Accept => ("event", &["network"], &["connection", "start"]),
        Kind::Close if event.raddr.is_some() => ("event", &["network"], &["connection", "end"]),
        Kind::Close => ("event", &["network"], &["end"]),
        Kind::Reset => ("event", &["network"], &["connection", "info"]),
        // "data may be missing", as that kind is explained
        Kind::Lost => ("pipeline_error", &[], &[]),
    };
    let outcome = match event.error {
        _ if is_open || event.kind == Kind::Lost => "unknown",
        Some(_) => "failure",
        None => "success",
    };
    document.put("event.kind", Some(kind));
    document.put("event.category", (!category.is_empty()).then_some(category));
    document.put("event.type", (!types.is_empty()).then_some(types));
    document.put("event.action", Some(event.kind.as_str()));
    document.put("event.outcome", Some(outcome));
    document.put("event.module", Some("portwatch"));
    document.put("event.dataset", Some("portwatch.events"));
    document.put("event.sequence", Some(long(event.seq)));
    document.put("event.reason", event.reason);
    if let Some(duration) = event.duration_us {
        let ns = duration.saturating_mul(1000);
        document.put("event.duration", Some(long(ns)));
        document.put("event.start", event.ts.checked_sub(ns).map(Utc::text));
        document.put("event.end", Some(Utc::text(event.ts)));
    }
    document.put("error.code", event.error.map(crate::errno::name));
    let lost = event.count.filter(|_| event.kind == Kind::Lost);
    document.put("message", lost.map(|count| format!("{count} events lost")));
}

fn put_network(document: &mut Document, event: &Event, direction: Option<Direction>) {
    let (transport, number) = match event.proto {
        Some(Proto::Tcp | Proto::Mptcp) => (Some("tcp"), Some("6")),
        Some(Proto::Udp) => (Some("udp"), Some("17")),
        Some(Proto::Sctp) => (Some("sctp"), Some("132")),
        Some(Proto::Raw) | None => (None, None),
    };
    document.put("network.transport", transport);
    document.put("network.iana_number", number);
    let family = match (event.raddr.or(event.laddr), event.family) {
        (Some(IpAddr::V4(_)), _) | (None, Some(Family::Ipv4)) => Some("ipv4"),
        (Some(IpAddr::V6(_)), _) | (None, Some(Family::Ipv6)) => Some("ipv6"),
        (None, None) => None,
    };
    document.put("network.type", family);
    document.put(
        "network.direction",
        direction.map(|direction| match direction {
            Direction::Inbound => "ingress",
            Direction::Outbound => "egress",
        }),
    );
    let bytes = event.rx_bytes.zip(event.tx_bytes);
    let bytes = bytes.map(|(rx, tx)| long(rx.saturating_add(tx)));
    document.put("network.bytes", bytes);

    let local = (event.laddr, event.lport, event.tx_bytes);
    let remote = (event.raddr, event.rport, event.rx_bytes);
    // Servers are what others come to.
    let serves = event.kind == Kind::Listen || event.accepted.is_some();
    let (source, destination) = match direction {
        Some(Direction::Inbound) => (remote, local),
        None if serves => (remote, local),
        Some(Direction::Outbound) | None => (local, remote),
    };
    let mut ends = vec![("source", source), ("destination", destination)];
    if direction.is_some() || serves {
        ends.extend([("client", source), ("server", destination)]);
    }
    for (name, (ip, port, bytes)) in ends {
        document.put(&format!("{name}.ip"), ip.map(address));
        document.put(&format!("{name}.port"), port);
        document.put(&format!("{name}.bytes"), bytes.map(long));
    }
    let mut addresses: Vec<IpAddr> = event.laddr.into_iter().chain(event.raddr).collect();
    addresses.dedup();
    let addresses: Vec<Value> = addresses.into_iter().map(address).collect();
    document.put("related.ip", (!addresses.is_empty()).then_some(addresses));
}

fn put_owner(document: &mut Document, event: &Event) {
    let none = Context::default();
    let context = event.context.as_deref().unwrap_or(&none);
    document.put("process.pid", event.pid);
    document.put("process.thread.id", event.tid);
    document.put("process.name", event.comm.as_ref().map(Comm::text));
    document.put("process.executable", context.exe.as_deref());
    document.put("process.args", context.args.as_deref());
    document.put("process.args_count", context.args.as_ref().map(|x| x.len()));
    document.put("process.parent.pid", event.ppid);
    let parent = context.parents.as_ref().and_then(|parents| parents.first());
    let parent = parent.filter(|parent| Some(parent.pid) == event.ppid);
    document.put(
        "process.parent.name",
        parent.map(|parent| parent.comm.as_str()),
    );
    document.put("user.id", event.uid.map(|uid| uid.to_string()));
    document.put("user.name", context.user.as_deref());
    document.put("user.group.id", event.gid.map(|gid| gid.to_string()));
    document.put(
        "related.user",
        context.user.as_ref().map(|user| json!([user])),
    );
    document.put("container.id", context.container.as_deref());
}

/// What the schema has no names for.
fn put_rest(document: &mut Document, event: &Event) {
    let none = Context::default();
    let context = event.context.as_deref().unwrap_or(&none);
    document.put("portwatch.origin", Some(event.origin.as_str()));
    document.put("portwatch.proto", event.proto.map(Proto::as_str));
    document.put("portwatch.family", event.family.map(Family::as_str));
    // As text: it may be more than a signed number holds.
    document.put("portwatch.sock", event.sock.map(|sock| sock.to_string()));
    document.put("portwatch.netns", event.netns);
    document.put(
        "portwatch.parents",
        context.parents.as_deref().map(processes),
    );
    document.put("portwatch.cgroup", context.cgroup.as_deref());
    document.put("portwatch.unit", context.unit.as_deref());
    document.put("portwatch.backlog", event.backlog);
    document.put("portwatch.latency_us", event.latency_us.map(long));
    document.put("portwatch.rtt_us", event.rtt_us);
    document.put("portwatch.retrans", event.retrans);
    document.put("portwatch.accepted", event.accepted);
    document.put("portwatch.cause", event.cause.map(Cause::as_str));
    document.put("portwatch.holders", event.holders.as_deref().map(holders));
    document.put("portwatch.count", event.count.map(long));
    document.put("portwatch.service", event.service);
}
