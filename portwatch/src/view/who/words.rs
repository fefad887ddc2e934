//! What `who` says of a port, in words; the same in text and JSON.

use std::net::IpAddr;

use crate::bind::{Obstacle, Overlap};
use crate::device::Device;
use crate::filter::Span;
use crate::port::{Question, Report, Rules};
use crate::row::Row;
use crate::sanitize;

/// What a session does not tell.
pub const LEFT: &str = "connections closed shortly before may be in TIME-WAIT";

/// Whether that is in the way of a bind.
pub fn lately(report: &Report<'_>) -> bool {
    report.binds.iter().any(|x| !x.left.is_empty())
}

/// Notes on the port itself.
pub fn remarks(question: &Question, rules: &Rules) -> Vec<String> {
    let Question { port, .. } = question;
    let Span { first, last } = rules.ephemeral;
    let reserved = !rules.reserved.0.is_empty() && rules.reserved.allow([Some(*port)]);
    let mut remarks = Vec::new();
    if *port < rules.unprivileged_start {
        remarks.push(format!(
            "ports below {} need root or CAP_NET_BIND_SERVICE",
            rules.unprivileged_start
        ));
    }
    if (first..=last).contains(port) {
        remarks.push(match reserved {
            true => format!(
                "kept out of the kernel's own choice ({first}-{last}) by ip_local_reserved_ports"
            ),
            false => format!(
                "the kernel may give it to any outgoing connection ({first}-{last}); \
                 sysctl net.ipv4.ip_local_reserved_ports keeps it out"
            ),
        });
    }
    remarks
}

/// `8080/tcp`, `127.0.0.1:8080/tcp`.
pub fn place(question: &Question, protos: &str) -> String {
    let Question { port, device, .. } = question;
    match (question.addr, device) {
        (Some(addr), _) => format!("{}:{port}/{protos}", bound(addr, *device)),
        (None, Some(device)) => format!("*{}:{port}/{protos}", on(device)),
        (None, None) => format!("{port}/{protos}"),
    }
}

/// An address as it stands before a port.
pub fn text(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(addr) => addr.to_string(),
        IpAddr::V6(addr) => format!("[{addr}]"),
    }
}

/// The same with the device that the socket is bound to, as `ss` has it: `127.0.0.53%lo`.
pub fn bound(addr: IpAddr, device: Option<Device>) -> String {
    text(addr) + &device.as_ref().map(on).unwrap_or_default()
}

fn on(device: &Device) -> String {
    format!("%{}", sanitize::text(device.bytes()))
}

/// The local address of a socket.
pub fn local(row: &Row) -> String {
    let addr = row.event.laddr;
    addr.map_or("?".to_owned(), |addr| bound(addr, row.device))
}

/// `nginx (pid 812)`, or what is known.
pub fn holder(row: &Row) -> String {
    let event = &row.event;
    if let (Some(comm), Some(pid)) = (event.comm, event.pid) {
        return format!("{} (pid {pid})", sanitize::text(comm.bytes()));
    }
    let user = event.context.as_ref().and_then(|x| x.user.as_deref());
    somebody(user, event.uid)
}

/// Whoever has a socket whose process nobody tells.
pub fn somebody(user: Option<&str>, uid: Option<u32>) -> String {
    match (user, uid) {
        (Some(user), _) => format!("a process of user {}", sanitize::string(user)),
        (None, Some(uid)) => format!("a process of user {uid}"),
        (None, None) => "the kernel".to_owned(),
    }
}

/// Why a socket is in the way of a bind.
pub fn reason(obstacle: &Obstacle<'_>) -> &'static str {
    match obstacle.overlap {
        Overlap::Same => "the same address",
        Overlap::TheirWildcard => "which includes this one",
        Overlap::OurWildcard => "which this one includes",
        Overlap::PerhapsTheirWildcard => "which includes this one unless it is for IPv6 only",
        Overlap::PerhapsOurWildcard => "which counts for IPv4 too unless it is for IPv6 only",
    }
}

/// The first of several, and how many more there are.
pub fn some(names: &[String]) -> String {
    const MOST: usize = 3;
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] if names.len() <= MOST => format!("{} and {last}", first.join(", ")),
        _ => format!(
            "{} and {} more",
            names[..MOST].join(", "),
            names.len() - MOST
        ),
    }
}
