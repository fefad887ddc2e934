//! The free column of the text view: what is worth knowing of an event beyond who and where.

use std::fmt::Write as _;

use crate::errno;
use crate::event::{Context, Event, Kind, Peer};
use crate::sanitize;
use crate::view::columns::{PLAIN, RED};
use crate::view::human;

use super::text::Style;

/// Words as on a command line.
pub fn put_words(out: &mut String, words: &[String]) {
    for (i, word) in words.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        put_word(out, word);
    }
}

/// A word that could be taken for several, or for another, is quoted.
fn put_word(out: &mut String, word: &str) {
    if !word.is_empty() && !word.contains([' ', '"', '\'']) {
        return sanitize::push_str(out, word);
    }
    out.push('"');
    out.push_str(&sanitize::string(word).replace('"', "\\\""));
    out.push('"');
}

pub fn put_peers<'a>(out: &mut String, peers: impl IntoIterator<Item = &'a Peer>) {
    for (i, peer) in peers.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        put_peer(out, peer);
    }
}

fn put_peer(out: &mut String, peer: &Peer) {
    sanitize::push_str(out, &peer.comm);
    // Writing to a String cannot fail.
    let _ = write!(out, "({})", peer.pid);
}

/// What is worth knowing of this kind of event, the most important first.
pub fn put_details(out: &mut String, event: &Event, style: &Style) {
    put_outcome(out, event, style);
    // Of an accept or a close the owner is known already.
    if matches!(event.kind, Kind::Bind | Kind::Listen | Kind::Connect) {
        put_owner(out, event, style);
    }
    put_netns(out, event, style);
}

/// How it went, without who did it.
pub fn put_outcome(out: &mut String, event: &Event, style: &Style) {
    if let Some(error) = event.error {
        let (start, end) = if style.colour { (RED, PLAIN) } else { ("", "") };
        out.push_str(start);
        out.push_str(&errno::name(error));
        out.push_str(end);
    }
    if let Some(holders) = event.holders.as_deref().filter(|x| !x.is_empty()) {
        gap(out, "held_by=");
        put_peers(out, holders);
    }
    if let Some(cause) = event.cause {
        gap(out, cause.as_str());
    }
    if let Some(reason) = event.reason {
        gap(out, "reason=");
        sanitize::push_str(out, reason);
    }
    let latency = if event.kind == Kind::Accept {
        "waited="
    } else {
        "latency="
    };
    for (key, us) in [
        (latency, event.latency_us),
        ("duration=", event.duration_us),
        ("rtt=", event.rtt_us.map(u64::from)),
    ] {
        if let Some(us) = us {
            gap(out, key);
            human::push_us(out, us);
        }
    }
    for (key, bytes) in [("rx=", event.rx_bytes), ("tx=", event.tx_bytes)] {
        if let Some(bytes) = bytes {
            gap(out, key);
            human::push_bytes(out, bytes);
        }
    }
    for (key, number) in [
        ("retrans=", event.retrans.filter(|&x| x > 0)),
        ("accepted=", event.accepted),
        ("backlog=", event.backlog),
    ] {
        if let Some(number) = number {
            gap(out, key);
            // Writing to a String cannot fail.
            let _ = write!(out, "{number}");
        }
    }
    if let Some(service) = event.service.filter(|_| !style.numeric) {
        gap(out, "service=");
        sanitize::push_str(out, service);
    }
}

fn put_owner(out: &mut String, event: &Event, style: &Style) {
    let nobody = Context::default();
    let context = event.context.as_deref().unwrap_or(&nobody);
    match (&context.user, event.uid) {
        (Some(user), _) if !style.numeric => {
            gap(out, "user=");
            put_word(out, user);
        }
        (_, Some(uid)) => {
            gap(out, "uid=");
            // Writing to a String cannot fail.
            let _ = write!(out, "{uid}");
        }
        _ => {}
    }
    // The container says more than the unit that the engine made for it.
    let place = match (&context.container, &context.unit) {
        (Some(container), _) => Some(("container=", container)),
        (None, Some(unit)) => Some(("unit=", unit)),
        (None, None) => None,
    };
    for (key, value) in context.exe.iter().map(|exe| ("exe=", exe)).chain(place) {
        gap(out, key);
        put_word(out, value);
    }
    if let Some(parent) = context.parents.as_deref().and_then(<[Peer]>::first) {
        gap(out, "parent=");
        put_peer(out, parent);
    }
}

/// The network namespace when it is another one. A container says as much.
fn put_netns(out: &mut String, event: &Event, style: &Style) {
    let in_container = (event.context.as_ref()).is_some_and(|context| context.container.is_some());
    if let (Some(netns), Some(home)) = (event.netns, style.netns)
        && netns != home
        && !in_container
    {
        gap(out, "netns=");
        human::push_number(out, netns);
    }
}

fn gap(out: &mut String, key: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    out.push_str(key);
}
