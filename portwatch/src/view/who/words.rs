//! What `who` says of a port, in words; the same in text and JSON.

use std::net::{IpAddr, Ipv6Addr};

use crate::bind::{Obstacle, Overlap};
use crate::device::Device;
use crate::filter::Span;
use crate::port::{Bind, Question, Report, Rules, unique};
use crate::row::{Row, State};
use crate::sanitize;

/// What happens to a bind now, in one sentence without its end; `place` is what it calls the port.
pub fn verdict(report: &Report<'_>, place: &str, question: &Question, rules: &Rules) -> String {
    let refused = |x: &Bind<'_>| Some((x.error()?, x.refused()?));
    if let Some((error, why)) = report.binds.iter().find_map(refused) {
        return format!("a bind to {place} fails with {error}: {why}");
    }
    if report.binds.iter().any(|x| x.error() == Some("EACCES")) {
        return format!(
            "a bind to {place} fails with EACCES: ports below {} need root or \
             CAP_NET_BIND_SERVICE",
            rules.unprivileged_start
        );
    }
    let obstacles = || report.binds.iter().flat_map(|x| &x.obstacles);
    let hard = || obstacles().filter(|x| x.hard);
    if let Some(why) = rules.unseen
        && (hard().next().is_none() || !report.taken().is_empty())
    {
        return unseen(report, place, why);
    }
    if hard().next().is_none() {
        return match obstacles().next() {
            None if lately(report) => format!(
                "a bind to {place} may fail with EADDRINUSE unless it and the sockets there set \
                 SO_REUSEADDR: nobody has it, but {LEFT}"
            ),
            None => free(report, question, place),
            Some(_) => left(report, place, rules),
        };
    }
    let holders = unique(hard().map(|x| holder(x.row)));
    let taken = report.taken();
    if taken.is_empty() {
        let (fails, perhaps) = certainty(report);
        let have_it = have_it(&holders);
        let unless = unless_elsewhere(report, question);
        return format!("a bind to {place} {fails} with EADDRINUSE{unless}: {have_it}{perhaps}");
    }
    let holders = some(&holders);
    // Most addresses are free, but for some something is left that servers get around.
    let soft = obstacles().filter(|x| !x.hard);
    let soft = soft.filter_map(|x| Some((x.row.event.laddr?, x.row.device)));
    let soft = unique(soft).into_iter();
    let soft = soft.filter(|x| !taken.contains(x));
    let soft = soft.map(|(addr, device)| format!("on {}", bound(addr, device)));
    let perhaps = (report.binds.iter())
        .filter(|x| !x.only_if(false).is_empty())
        .map(|x| format!("perhaps on {}", text(x.attempt.addr)));
    let left = unique(report.binds.iter().flat_map(|x| x.left.iter().copied()));
    let left = left
        .into_iter()
        .filter(|&addr| !taken.iter().any(|x| x.0 == addr));
    let perhaps = perhaps.chain(left.map(|addr| format!("perhaps on {}", text(addr))));
    let soft: Vec<String> = soft.chain(perhaps).collect();
    let reuse = match soft.is_empty() {
        true => String::new(),
        false => format!(
            " ({} only if it and the sockets there set SO_REUSEADDR)",
            some(&soft)
        ),
    };
    let is_taken = |addr| taken.iter().any(|x| x.0 == addr);
    let rest = match is_taken(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) {
        true => "one to an IPv4 address",
        false => "one to another address",
    };
    let wildcards: String = (report.binds.iter())
        .filter(|x| x.is_taken() && !is_taken(x.attempt.addr))
        .map(|x| format!(" or to {}", text(x.attempt.addr)))
        .collect();
    let taken: Vec<String> = taken
        .into_iter()
        .map(|(addr, device)| bound(addr, device))
        .collect();
    format!(
        "{place} is taken on {} by {holders}: a bind there{wildcards} fails with EADDRINUSE, \
         {rest} succeeds{reuse}",
        taken.join(", "),
    )
}

/// What a session does not tell.
pub const LEFT: &str = "connections closed shortly before may be in TIME-WAIT";

/// Whether that is in the way of a bind.
pub fn lately(report: &Report<'_>) -> bool {
    report.binds.iter().any(|x| !x.left.is_empty())
}

/// The same where nobody serves, but sockets are in the way.
fn left(report: &Report<'_>, place: &str, rules: &Rules) -> String {
    let rows = || {
        report
            .binds
            .iter()
            .flat_map(|x| &x.obstacles)
            .map(|x| x.row)
    };
    let (fails, perhaps) = certainty(report);
    let clients = match rows().all(|row| rules.picked(row)) {
        true => ", which clients whose port the kernel picked hardly do",
        false => "",
    };
    let open = rows().filter(|row| row.state != State::TimeWait);
    let holders = unique(open.map(holder));
    let left = match holders.is_empty() {
        true => "only connections in TIME-WAIT are left".to_owned(),
        false => format!("but {}", have_it(&holders)),
    };
    format!(
        "a bind to {place} {fails} with EADDRINUSE unless it and the sockets there set \
         SO_REUSEADDR{clients}: nobody listens, {left}{perhaps}"
    )
}

/// Whether a bind fails, and what there is to say when that is not certain.
fn certainty(report: &Report<'_>) -> (&'static str, &'static str) {
    let obstacles = report.binds.iter().flat_map(|x| &x.obstacles);
    match obstacles.into_iter().any(|x| x.overlap.is_certain()) {
        true => ("fails", ""),
        false => ("may fail", ", perhaps only for IPv6"),
    }
}

/// Where a bind meets none of the sockets, when each of them is bound to a device.
fn unless_elsewhere(report: &Report<'_>, question: &Question) -> String {
    let obstacles = report.binds.iter().flat_map(|x| &x.obstacles);
    let devices: Option<Vec<Device>> = obstacles.map(|x| x.row.device).collect();
    match devices {
        Some(devices) if question.device.is_none() => {
            let devices = unique(devices.iter().map(|x| sanitize::text(x.bytes())));
            let devices = some(&devices);
            format!(" unless it is for another interface than {devices}")
        }
        _ => String::new(),
    }
}

/// The same where others may have the port unseen, for `why`, and not all binds are known to fail.
fn unseen(report: &Report<'_>, place: &str, why: &str) -> String {
    let hard = report
        .binds
        .iter()
        .flat_map(|x| &x.obstacles)
        .filter(|x| x.hard);
    let holders = unique(hard.map(|x| holder(x.row)));
    if holders.is_empty() {
        return format!("what becomes of a bind to {place} is not known: {why}");
    }
    let taken = report.taken().into_iter();
    let taken: Vec<String> = taken.map(|(addr, device)| bound(addr, device)).collect();
    format!(
        "{place} is taken on {} by {}, what becomes of binds to other addresses is not known: {why}",
        taken.join(", "),
        some(&holders)
    )
}

fn free(report: &Report<'_>, question: &Question, place: &str) -> String {
    match report
        .servers
        .iter()
        .any(|x| x.event.netns != question.netns)
    {
        true => format!(
            "{place} is free here, a bind succeeds: each network namespace has ports of its own"
        ),
        false => format!("{place} is free: a bind succeeds"),
    }
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

/// `nginx (pid 812) has it`, or several.
fn have_it(holders: &[String]) -> String {
    let have = if holders.len() == 1 { "has" } else { "have" };
    format!("{} {have} it", some(holders))
}

/// The first of several, and how many more there are.
fn some(names: &[String]) -> String {
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
