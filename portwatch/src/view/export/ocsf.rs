//! Events of the Open Cybersecurity Schema Framework, one a line: Network Activity, and for losses the
//! Base Event. Names are those of `data/ocsf-attributes`; what has none is under `unmapped`, with the
//! names of our schema.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::document::{Document, address, holders, long, processes};
use super::flow::Direction;
use crate::event::{Cause, Comm, Context, Event, Family, Kind, Proto};
use crate::session::Run;
use crate::view::time::Utc;

const VERSION: &str = "1.5.0";
const NS_PER_MS: u64 = 1_000_000;

/// The document of an event; `direction`: which end began its connection.
pub fn document(run: &Run, event: &Event, direction: Option<Direction>) -> Value {
    let mut document = Document::default();
    put_class(&mut document, event);
    put_times(&mut document, event);
    put_metadata(&mut document, run, event);
    put_network(&mut document, event, direction);
    put_actor(&mut document, event);
    put_rest(&mut document, event);
    document.into_value()
}

/// What happened, in numbers and in words.
fn put_class(document: &mut Document, event: &Event) {
    let is_open = event.has_error(libc::EINPROGRESS);
    let is_refused = event.has_error(libc::ECONNREFUSED);
    let (activity, name) = match event.kind {
        Kind::Bind => (99, "Bind"),
        Kind::Listen if event.error.is_some() => (99, "Listen"),
        Kind::Listen => (7, "Listen"),
        Kind::Connect if is_open => (99, "Connect"),
        Kind::Connect if is_refused => (5, "Refuse"),
        Kind::Connect if event.error.is_some() => (4, "Fail"),
        Kind::Connect | Kind::Accept => (1, "Open"),
        Kind::Close => (2, "Close"),
        Kind::Reset => (3, "Reset"),
        Kind::Lost => (99, "Lost"),
    };
    // Network Activity needs an end of the connection.
    let is_network = event.laddr.or(event.raddr).is_some();
    let (category, class, category_name, class_name) = match is_network {
        true => (4, 4001, "Network Activity", "Network Activity"),
        false => (0, 0, "Uncategorized", "Base Event"),
    };
    // That one knows no activity but "other".
    let activity = if is_network { activity } else { 99 };
    let (status, status_name) = match event.error {
        _ if is_open || event.kind == Kind::Lost => (0, "Unknown"),
        Some(_) => (2, "Failure"),
        None => (1, "Success"),
    };
    let (severity, severity_name) = match event.kind {
        Kind::Lost => (3, "Medium"),
        _ => (1, "Informational"),
    };
    document.put("category_uid", Some(category));
    document.put("category_name", Some(category_name));
    document.put("class_uid", Some(class));
    document.put("class_name", Some(class_name));
    document.put("activity_id", Some(activity));
    document.put("activity_name", Some(name));
    document.put("type_uid", Some(class * 100 + activity));
    let type_name = if activity == 99 { "Other" } else { name };
    document.put("type_name", Some(format!("{class_name}: {type_name}")));
    document.put("severity_id", Some(severity));
    document.put("severity", Some(severity_name));
    document.put("status_id", Some(status));
    document.put("status", Some(status_name));
    document.put("status_code", event.error.map(crate::errno::name));
    document.put("status_detail", event.reason);
    let lost = event.count.filter(|_| event.kind == Kind::Lost);
    document.put("message", lost.map(|count| format!("{count} events lost")));
}

fn put_times(document: &mut Document, event: &Event) {
    let ms = event.ts / NS_PER_MS;
    document.put("time", Some(long(ms)));
    if let Some(duration) = event.duration_us {
        document.put("duration", Some(long(duration / 1000)));
        let ns = duration.saturating_mul(1000);
        let start = event.ts.checked_sub(ns).map(|ns| long(ns / NS_PER_MS));
        document.put("start_time", start);
        document.put("end_time", Some(long(ms)));
    }
}

fn put_metadata(document: &mut Document, run: &Run, event: &Event) {
    document.put("metadata.version", Some(VERSION));
    document.put("metadata.product.name", Some("portwatch"));
    document.put("metadata.product.vendor_name", Some("portwatch"));
    document.put("metadata.product.version", Some(run.version.as_str()));
    document.put("metadata.profiles", Some(json!(["container", "host"])));
    document.put("metadata.sequence", Some(long(event.seq)));
    // It keeps the nanoseconds.
    document.put("metadata.original_time", Some(Utc::text(event.ts)));
    document.put("device.type_id", Some(0));
    document.put("device.type", Some("Unknown"));
    document.put("device.hostname", run.host.as_deref());
    document.put("device.boot_uid", run.boot.as_deref());
    document.put("device.os.name", Some("Linux"));
    document.put("device.os.type", Some("Linux"));
    document.put("device.os.type_id", Some(200));
    document.put("device.os.kernel_release", run.kernel.as_deref());
}

fn put_network(document: &mut Document, event: &Event, direction: Option<Direction>) {
    let local = (event.laddr, event.lport);
    let remote = (event.raddr, event.rport);
    // Servers are what others come to.
    let serves = event.kind == Kind::Listen || event.accepted.is_some();
    let inbound = direction == Some(Direction::Inbound) || (direction.is_none() && serves);
    let (source, destination) = if inbound {
        (remote, local)
    } else {
        (local, remote)
    };
    for (name, (ip, port)) in [("src_endpoint", source), ("dst_endpoint", destination)] {
        // A port alone is no endpoint.
        let port = port.filter(|_| ip.is_some());
        document.put(&format!("{name}.ip"), ip.map(address));
        document.put(&format!("{name}.port"), port);
    }
    if event.laddr.or(event.raddr).is_none() {
        document.put("unmapped.lport", event.lport);
        document.put("unmapped.rport", event.rport);
        document.put("unmapped.sock", event.sock.map(|sock| sock.to_string()));
        document.put("unmapped.rx_bytes", event.rx_bytes.map(long));
        document.put("unmapped.tx_bytes", event.tx_bytes.map(long));
        return;
    }
    let (id, name) = match direction {
        Some(Direction::Inbound) => (1, "Inbound"),
        Some(Direction::Outbound) => (2, "Outbound"),
        None => (0, "Unknown"),
    };
    document.put("connection_info.direction_id", Some(id));
    document.put("connection_info.direction", Some(name));
    let protocol = match event.proto {
        Some(Proto::Tcp | Proto::Mptcp) => Some(("tcp", 6)),
        Some(Proto::Udp) => Some(("udp", 17)),
        Some(Proto::Sctp) => Some(("sctp", 132)),
        Some(Proto::Raw) | None => None,
    };
    document.put("connection_info.protocol_name", protocol.map(|x| x.0));
    document.put("connection_info.protocol_num", protocol.map(|x| x.1));
    let version = event.raddr.or(event.laddr).map(|address| match address {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 6,
    });
    document.put("connection_info.protocol_ver_id", version);
    document.put(
        "connection_info.uid",
        event.sock.map(|sock| sock.to_string()),
    );
    // In: from the destination to the source.
    let (bytes_in, bytes_out) = match inbound {
        true => (event.tx_bytes, event.rx_bytes),
        false => (event.rx_bytes, event.tx_bytes),
    };
    document.put("traffic.bytes_in", bytes_in.map(long));
    document.put("traffic.bytes_out", bytes_out.map(long));
    let bytes = bytes_in.zip(bytes_out);
    document.put(
        "traffic.bytes",
        bytes.map(|(x, y)| long(x.saturating_add(y))),
    );
}

fn put_actor(document: &mut Document, event: &Event) {
    let none = Context::default();
    let context = event.context.as_deref().unwrap_or(&none);
    // A process is one by its number.
    let Some(pid) = event.pid else {
        document.put("unmapped.comm", event.comm.as_ref().map(Comm::text));
        document.put("unmapped.exe", context.exe.as_deref());
        document.put("unmapped.args", context.args.as_deref());
        document.put("unmapped.uid", event.uid);
        document.put("unmapped.gid", event.gid);
        document.put("unmapped.user", context.user.as_deref());
        document.put("unmapped.container", context.container.as_deref());
        document.put(
            "unmapped.parents",
            context.parents.as_deref().map(processes),
        );
        return;
    };
    document.put("actor.process.pid", Some(pid));
    document.put("actor.process.tid", event.tid);
    document.put("actor.process.name", event.comm.as_ref().map(Comm::text));
    if let Some(exe) = &context.exe {
        let name = exe.rsplit('/').next().unwrap_or(exe);
        document.put("actor.process.file.name", Some(name));
        document.put("actor.process.file.path", Some(exe.as_str()));
        document.put("actor.process.file.type_id", Some(1));
        document.put("actor.process.file.type", Some("Regular File"));
    }
    // There is no list of arguments: they are kept apart by quotes where needed.
    let words = context.args.as_deref().map(command_line);
    document.put("actor.process.cmd_line", words);
    document.put("unmapped.args", context.args.as_deref());
    document.put("actor.process.parent_process.pid", event.ppid);
    let parents = context.parents.as_deref();
    let parent = parents
        .and_then(<[_]>::first)
        .filter(|x| Some(x.pid) == event.ppid);
    let name = parent.map(|parent| parent.comm.as_str());
    document.put("actor.process.parent_process.name", name);
    document.put("actor.process.ancestry", parents.map(processes));
    document.put(
        "actor.process.user.uid",
        event.uid.map(|uid| uid.to_string()),
    );
    document.put("actor.process.user.name", context.user.as_deref());
    if event.uid.is_some() || context.user.is_some() {
        let group = |gid: u32| json!([{ "uid": gid.to_string() }]);
        document.put("actor.process.user.groups", event.gid.map(group));
    } else {
        document.put("unmapped.gid", event.gid);
    }
    document.put("actor.process.container.uid", context.container.as_deref());
}

/// Words as a shell would take them.
fn command_line(words: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
    let quoted = words
        .iter()
        .map(|word| match !word.is_empty() && word.chars().all(plain) {
            true => word.clone(),
            false => format!("'{}'", word.replace('\'', "'\\''")),
        });
    quoted.collect::<Vec<_>>().join(" ")
}

/// What the schema has no names for.
fn put_rest(document: &mut Document, event: &Event) {
    let none = Context::default();
    let context = event.context.as_deref().unwrap_or(&none);
    document.put("unmapped.event", Some(event.kind.as_str()));
    document.put("unmapped.origin", Some(event.origin.as_str()));
    document.put("unmapped.proto", event.proto.map(Proto::as_str));
    document.put("unmapped.family", event.family.map(Family::as_str));
    document.put("unmapped.netns", event.netns);
    document.put("unmapped.cgroup", context.cgroup.as_deref());
    document.put("unmapped.unit", context.unit.as_deref());
    document.put("unmapped.backlog", event.backlog);
    document.put("unmapped.latency_us", event.latency_us.map(long));
    document.put("unmapped.rtt_us", event.rtt_us);
    document.put("unmapped.retrans", event.retrans);
    document.put("unmapped.accepted", event.accepted);
    document.put("unmapped.cause", event.cause.map(Cause::as_str));
    document.put("unmapped.holders", event.holders.as_deref().map(holders));
    document.put("unmapped.count", event.count.map(long));
    document.put("unmapped.service", event.service);
}
