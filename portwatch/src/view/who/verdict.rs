//! What becomes of a bind, in one sentence.

use std::net::IpAddr;

use super::words::{LEFT, bound, holder, lately, some, text};
use crate::bind::Obstacle;
use crate::device::Device;
use crate::port::{Bind, Outcome, Question, Report, Rules, unique};
use crate::row::{Row, State};
use crate::sanitize;

/// The sentence without its end; `place` is what it calls the port.
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
    let is_served = obstacles(report).any(|x| x.hard);
    let taken = report.taken();
    match rules.unseen {
        Some(why) if !is_served => {
            format!("what becomes of a bind to {place} is not known: {why}")
        }
        Some(why) if !taken.is_empty() => format!(
            "{place} is taken on {} by {}, what becomes of binds to other addresses is not known: {why}",
            listed(&taken),
            some(&servers(report))
        ),
        _ if !taken.is_empty() => partly(report, place, &taken),
        _ if is_served => {
            let Fails {
                subject, perhaps, ..
            } = Fails::of(report, place);
            let unless = unless_elsewhere(report, question);
            let have_it = have_it(&servers(report));
            format!("{subject} with EADDRINUSE{unless}: {have_it}{perhaps}")
        }
        _ if obstacles(report).next().is_some() => left(report, place, rules),
        _ if lately(report) => format!(
            "a bind to {place} may fail with EADDRINUSE unless it and {REUSE}: nobody has it, but {LEFT}"
        ),
        _ => free(report, question, place),
    }
}

const REUSE: &str = "the sockets there set SO_REUSEADDR";

fn obstacles<'a>(report: &Report<'a>) -> impl Iterator<Item = Obstacle<'a>> {
    report
        .binds
        .iter()
        .flat_map(|x| x.obstacles.iter().copied())
}

/// Who serves there.
fn servers(report: &Report<'_>) -> Vec<String> {
    unique(obstacles(report).filter(|x| x.hard).map(|x| holder(x.row)))
}

/// As [`Report::taken`] has them.
fn listed(taken: &[(IpAddr, Option<Device>)]) -> String {
    let taken: Vec<String> = taken
        .iter()
        .map(|&(addr, device)| bound(addr, device))
        .collect();
    taken.join(", ")
}

/// Where some addresses are taken and others are not.
fn partly(report: &Report<'_>, place: &str, taken: &[(IpAddr, Option<Device>)]) -> String {
    let is_taken = |addr| taken.iter().any(|x| x.0 == addr);
    let wildcards = |outcome| {
        let binds = report.binds.iter().filter(move |x| x.outcome() == outcome);
        binds
            .map(|x| x.attempt.addr)
            .filter(|&addr| !is_taken(addr))
    };
    let fail: String = wildcards(Outcome::Fails)
        .map(|addr| format!(" or to {}", text(addr)))
        .collect();
    let may_fail: String = wildcards(Outcome::MayFail)
        .map(|addr| format!(", perhaps also to {},", text(addr)))
        .collect();
    let others = report
        .binds
        .iter()
        .filter(|x| x.others() < Outcome::MayFail);
    let others: Vec<&Bind<'_>> = others.collect();
    let rest = match others[..] {
        [one] => {
            let is_another = taken.iter().any(|x| is_of(one, x.0));
            let a = if is_another { "another" } else { "an" };
            format!("{a} {} address", family(one))
        }
        _ => "another address".to_owned(),
    };
    let everywhere = others.iter().flat_map(|x| everywhere(x));
    let exceptions = everywhere.chain(others.iter().flat_map(|x| somewhere(x, taken)));
    let exceptions: Vec<String> = exceptions.collect();
    let reuse = if others.iter().all(|x| x.others() == Outcome::FailsUnless) {
        format!(" only if it and {REUSE}")
    } else if exceptions.is_empty() {
        String::new()
    } else {
        format!(" ({} only if it and {REUSE})", some(&exceptions))
    };
    format!(
        "{place} is taken on {} by {}: a bind there{fail}{may_fail} fails with EADDRINUSE, one to {rest} \
         succeeds{reuse}",
        listed(taken),
        some(&servers(report)),
    )
}

/// Where something is left that servers get around: on all addresses of the family of a wildcard, or on the
/// wildcard because of some.
fn everywhere(bind: &Bind<'_>) -> Vec<String> {
    let others = bind.others();
    let all = exception(others, format!("those of {}", family(bind)));
    let outcome = bind.outcome();
    let wildcard = (outcome > others).then(|| exception(outcome, text(bind.attempt.addr)));
    all.into_iter().chain(wildcard.flatten()).collect()
}

/// The same on single addresses of the family, beside those that are taken.
fn somewhere(bind: &Bind<'_>, taken: &[(IpAddr, Option<Device>)]) -> Vec<String> {
    let sockets = bind.obstacles.iter().filter(|x| !x.hard);
    let sockets = sockets.filter_map(|x| Some((x.row.event.laddr?, x.row.device)));
    let sockets = sockets.map(|at| (at, Outcome::FailsUnless));
    let left = bind
        .left
        .iter()
        .map(|&addr| ((addr, None), Outcome::MayFailUnless));
    let places = unique(sockets.chain(left)).into_iter();
    places
        .filter(|(at, outcome)| {
            is_of(bind, at.0) && !taken.contains(at) && *outcome > bind.others()
        })
        .filter_map(|((addr, device), outcome)| exception(outcome, bound(addr, device)))
        .collect()
}

fn exception(outcome: Outcome, place: String) -> Option<String> {
    match outcome {
        Outcome::FailsUnless => Some(format!("on {place}")),
        Outcome::MayFailUnless => Some(format!("perhaps on {place}")),
        _ => None,
    }
}

/// Whether the address is of the same family.
fn is_of(bind: &Bind<'_>, addr: IpAddr) -> bool {
    bind.attempt.addr.is_ipv4() == addr.is_ipv4()
}

fn family(bind: &Bind<'_>) -> &'static str {
    match bind.attempt.addr {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// Where nobody serves, but sockets are in the way.
fn left(report: &Report<'_>, place: &str, rules: &Rules) -> String {
    let rows = || obstacles(report).map(|x| x.row);
    let Fails {
        subject,
        succeeds,
        perhaps,
    } = Fails::of(report, place);
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
        "{subject} with EADDRINUSE unless it and {REUSE}{clients}{succeeds}: nobody listens, {left}{perhaps}"
    )
}

/// The parts of a sentence on binds of which some fail.
struct Fails {
    /// `a bind to 8080/tcp fails`
    subject: String,
    /// Which ones do not.
    succeeds: String,
    /// What there is to say when it is not certain.
    perhaps: &'static str,
}

impl Fails {
    fn of(report: &Report<'_>, place: &str) -> Self {
        let on = |wanted: fn(Outcome) -> bool| {
            let binds = report.binds.iter().filter(|x| wanted(x.outcome()));
            binds
                .map(|x| text(x.attempt.addr))
                .collect::<Vec<_>>()
                .join(" and ")
        };
        let fail = on(|x| matches!(x, Outcome::Fails | Outcome::FailsUnless));
        let may = on(|x| matches!(x, Outcome::MayFail | Outcome::MayFailUnless));
        let free = on(|x| x == Outcome::Succeeds);
        let (subject, perhaps) = match (fail.is_empty(), may.is_empty(), free.is_empty()) {
            (true, ..) => (
                format!("a bind to {place} may fail"),
                ", perhaps only for IPv6",
            ),
            (_, true, true) => (format!("a bind to {place} fails"), ""),
            (_, true, false) => (format!("a bind to {place} on {fail} fails"), ""),
            (_, false, _) => (
                format!("a bind to {place} on {fail}, perhaps also on {may}, fails"),
                "",
            ),
        };
        let succeeds = match free.is_empty() {
            true => String::new(),
            false => format!(", one on {free} succeeds"),
        };
        Self {
            subject,
            succeeds,
            perhaps,
        }
    }
}

/// Where a bind meets none of the sockets, when each of them is bound to a device.
fn unless_elsewhere(report: &Report<'_>, question: &Question) -> String {
    let devices: Option<Vec<Device>> = obstacles(report).map(|x| x.row.device).collect();
    match devices {
        Some(devices) if question.device.is_none() => {
            let devices = unique(devices.iter().map(|x| sanitize::text(x.bytes())));
            let devices = some(&devices);
            format!(" unless it is for another interface than {devices}")
        }
        _ => String::new(),
    }
}

fn free(report: &Report<'_>, question: &Question, place: &str) -> String {
    let is_elsewhere = |row: &Row| row.event.netns != question.netns;
    match report.servers.iter().any(is_elsewhere) {
        true => format!(
            "{place} is free here, a bind succeeds: each network namespace has ports of its own"
        ),
        false => format!("{place} is free: a bind succeeds"),
    }
}

/// `nginx (pid 812) has it`, or several.
fn have_it(holders: &[String]) -> String {
    let have = if holders.len() == 1 { "has" } else { "have" };
    format!("{} {have} it", some(holders))
}
