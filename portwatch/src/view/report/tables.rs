//! The tables of the page: listeners, rankings, what went wrong.

use maud::{Markup, html};

use crate::event::Proto;
use crate::service;
use crate::session::survey::{Bytes, Failures, Listener, Port, Resets, Survey, Top};

use super::chart::{lives, lives_axis, share};
use super::words::{bytes, duration, endpoint, kind, number, plural, short, some, text, time};

/// Name of a program, and its executable where that says more.
fn program(comm: Option<&Bytes>, exe: Option<&Bytes>) -> Markup {
    html! {
        span.name { (text(comm)) }
        @if let Some(exe) = exe { " " span.note { (text(Some(exe))) } }
    }
}

/// How much of a list is shown, when that is not all of it.
fn shown<T>(top: &Top<T>, what: &str, which: &str) -> Markup {
    html! {
        @if (top.rows.len() as u64) < top.of {
            p.note { "Showing " (number(top.rows.len() as u64)) " of " (plural(top.of, what)) ": " (which) "." }
        }
    }
}

/// A table that scrolls by itself when it is too wide, also by keyboard.
fn wide(label: &str, table: Markup) -> Markup {
    html! { div.wide role="region" aria-label=(label) tabindex="0" { (table) } }
}

/// The same, for one that may be too long as well.
fn tall(label: &str, table: Markup) -> Markup {
    html! { div.wide.tall role="region" aria-label=(label) tabindex="0" { (table) } }
}

pub fn listeners(survey: &Survey) -> Markup {
    let listeners = &survey.listeners;
    let top = &listeners.shown;
    if top.rows.is_empty() {
        return html! { p { "Nothing listened." } };
    }
    html! {
        p {
            (plural(top.of, "listener")) ", " (lifetimes(listeners.lives)) ", "
            (number(listeners.short.of)) " of less than a second. "
            span.key { svg aria-hidden="true" width="12" height="12" { rect.short x="4" y="0" width="4" height="12" {} } " less than a second" }
            span.key { svg aria-hidden="true" width="24" height="12" { rect.life x="0" y="2" width="24" height="8" {} } " longer" }
            @if !survey.gaps.is_empty() {
                span.key { svg aria-hidden="true" width="24" height="12" { rect.gap x="0" y="0" width="24" height="12" {} } " not recorded" }
            }
        }
        (shown(top, "listener", "those that lived longest"))
        div.tools data-filters="listeners" hidden {
            label { "Search " input type="search" data-search; }
            label { input type="checkbox" data-short; " only with lives of less than a second" }
            span role="status" data-status {}
        }
        (wide("Listeners", html! {
            table #listeners {
                thead { tr {
                    th scope="col" { "Listener" } th scope="col" { "Program" } th scope="col" { "User" }
                    th.line scope="col" { "Lives" (lives_axis(survey)) }
                    th.n scope="col" { "Times" } th.n scope="col" { "Lived" } th.n scope="col" { "Accepted" }
                } }
                tbody { @for listener in &top.rows { (row(survey, listener)) } }
            }
        }))
    }
}

fn lifetimes(count: u64) -> String {
    plural(count, "lifetime")
}

fn row(survey: &Survey, listener: &Listener) -> Markup {
    let lived = duration(listener.lived);
    let from = if listener.seeded {
        "before the recording"
    } else {
        &time(listener.first)
    };
    let until = if listener.open {
        ", not seen to end"
    } else {
        ""
    };
    let told = format!(
        "{}, from {from} on, lived {lived}{until}",
        lifetimes(listener.lives)
    );
    html! {
        tr data-short[listener.short_lives > 0] {
            th scope="row" {
                (endpoint(listener.address.as_ref(), listener.port)) " " span.note { (text(listener.proto.as_ref())) }
                @if listener.short_lives > 0 { " " span.badge { "< 1 s" @if listener.short_lives > 1 { " × " (number(listener.short_lives)) } } }
                @if let Some(container) = &listener.container { " " span.note { "in " (text(Some(container))) } }
            }
            td.program { (program(listener.comm.as_ref(), listener.exe.as_ref())) @if let Some(pid) = listener.pid { " " span.note { "(" (pid) ")" } } }
            td { (text(listener.user.as_ref())) }
            td.line { (lives(survey, &listener.bars, &told)) }
            td.n { (number(listener.lives)) }
            td.n { @if listener.seeded { abbr title="was there before the recording" { "‹" } } (lived) @if listener.open { abbr title="not seen to end" { "›" } } }
            td.n { (some(listener.accepted)) }
        }
    }
}

pub fn short_lived(survey: &Survey) -> Markup {
    let short = &survey.listeners.short;
    if short.rows.is_empty() {
        return html! { p { "None." } };
    }
    html! {
        p.note { "They lived less than a second, and are marked in the list of listeners too." }
        (shown(short, "lifetime", "the latest"))
        (tall("Short-lived listeners", html! {
            table {
                thead { tr {
                    th scope="col" { "Listened (UTC)" } th.n scope="col" { "Lived" } th scope="col" { "Listener" }
                    th.n scope="col" { "PID" } th scope="col" { "Program" } th scope="col" { "Command" } th scope="col" { "User" } th.n scope="col" { "Accepted" }
                } }
                tbody {
                    @for life in short.rows.iter().rev() {
                        tr {
                            td { (time(life.listener.first)) }
                            td.n { (duration(life.lifetime_us.saturating_mul(1000))) }
                            th scope="row" { (endpoint(life.listener.address.as_ref(), life.listener.port)) }
                            td.n { @if let Some(pid) = life.listener.pid { (pid) } @else { "-" } }
                            td.program { (program(life.listener.comm.as_ref(), life.listener.exe.as_ref())) }
                            td.words { (command(life.args.as_ref())) }
                            td { (text(life.listener.user.as_ref())) }
                            td.n { (some(life.listener.accepted)) }
                        }
                    }
                }
            }
        }))
    }
}

/// Arguments, from JSON, as on a command line.
pub fn command(args: Option<&Bytes>) -> String {
    let words: Option<Vec<String>> = args.and_then(|args| serde_json::from_slice(args).ok());
    words.map_or_else(
        || text(args),
        |words| {
            let mut out = String::new();
            crate::view::lines::details::put_words(&mut out, &words);
            short(out)
        },
    )
}

pub fn ports(survey: &Survey) -> Markup {
    let use_of = |x: &Port| x.accepted + x.out + x.failed + x.opened;
    let largest = survey.ports.rows.iter().map(use_of).max().unwrap_or(0);
    ranking(
        "Ports",
        &survey.ports,
        "port",
        &["Port", "Service"],
        &["Incoming", "Outgoing", "Failed", "Opened"],
        |port| {
            let service =
                Proto::parse(&port.proto).and_then(|proto| service::name(proto, port.port));
            html! {
                th scope="row" { (port.port) span.note { "/" (crate::sanitize::text(port.proto.as_bytes())) } }
                td { (service.map_or_else(|| "-".to_owned(), |x| crate::sanitize::text(x.as_bytes()))) }
                td.bar { (share(use_of(port), largest)) }
                @for count in [port.accepted, port.out, port.failed, port.opened] { td.n { (some(count)) } }
            }
        },
    )
}

pub fn programs(survey: &Survey) -> Markup {
    let largest = survey
        .programs
        .rows
        .iter()
        .map(|x| x.events)
        .max()
        .unwrap_or(0);
    let numbers = [
        "Events",
        "Processes",
        "Listens",
        "Outgoing",
        "Incoming",
        "Failed",
        "Received",
        "Sent",
    ];
    ranking(
        "Programs",
        &survey.programs,
        "program",
        &["Program"],
        &numbers,
        |x| {
            html! {
                th.program scope="row" { (program(x.comm.as_ref(), x.exe.as_ref())) }
                td.bar { (share(x.events, largest)) }
                @for count in [x.events, x.processes, x.listens, x.out, x.accepted, x.failed] { td.n { (some(count)) } }
                td.n { (bytes(x.rx_bytes)) } td.n { (bytes(x.tx_bytes)) }
            }
        },
    )
}

pub fn peers(survey: &Survey) -> Markup {
    let largest = survey
        .peers
        .rows
        .iter()
        .map(|x| x.out + x.accepted + x.failed)
        .max()
        .unwrap_or(0);
    let numbers = ["Outgoing", "Incoming", "Failed", "Received", "Sent"];
    ranking(
        "Peers",
        &survey.peers,
        "address",
        &["Address"],
        &numbers,
        |x| {
            html! {
                th scope="row" { (text(Some(&x.address))) }
                td.bar { (share(x.out + x.accepted + x.failed, largest)) }
                @for count in [x.out, x.accepted, x.failed] { td.n { (some(count)) } }
                td.n { (bytes(x.rx_bytes)) } td.n { (bytes(x.tx_bytes)) }
            }
        },
    )
}

/// A table of the first of many: what it is, a bar, numbers.
fn ranking<T>(
    label: &str,
    top: &Top<T>,
    what: &str,
    texts: &[&str],
    numbers: &[&str],
    row: impl Fn(&T) -> Markup,
) -> Markup {
    if top.rows.is_empty() {
        return html! { p { "None." } };
    }
    html! {
        @if (top.rows.len() as u64) < top.of {
            p.note { "The busiest " (number(top.rows.len() as u64)) " of " (number(top.of)) "." }
        }
        (wide(label, html! {
            table.ranking aria-label=(format!("Busiest {what}")) {
                thead { tr {
                    @for text in texts { th scope="col" { (text) } }
                    th.bar scope="col" { span.hidden { "Share" } }
                    @for number in numbers { th.n scope="col" { (number) } }
                } }
                tbody { @for x in &top.rows { tr { (row(x)) } } }
            }
        }))
    }
}

pub fn failures(top: &Top<Failures>) -> Markup {
    if top.rows.is_empty() {
        return html! { p { "Nothing failed." } };
    }
    html! {
        (shown(top, "group", "the most frequent"))
        (wide("Failures", html! {
            table {
                thead { tr {
                    th.n scope="col" { "Times" } th scope="col" { "Error" } th scope="col" { "Of" } th scope="col" { "Program" }
                    th scope="col" { "First (UTC)" } th scope="col" { "Last (UTC)" } th scope="col" { "Last at" }
                } }
                tbody {
                    @for x in &top.rows {
                        tr {
                            td.n { (number(x.count)) }
                            th.failed scope="row" { (text(Some(&x.error))) }
                            td { (kind(x.kind)) }
                            td.program { (program(x.comm.as_ref(), x.exe.as_ref())) }
                            td { (time(x.first)) } td { (time(x.last)) }
                            td { (endpoint(x.address.as_ref(), x.port)) }
                        }
                    }
                }
            }
        }))
    }
}

pub fn resets(top: &Top<Resets>) -> Markup {
    if top.rows.is_empty() {
        return html! { p { "None." } };
    }
    html! {
        (shown(top, "group", "the most frequent"))
        (wide("Resets", html! {
            table {
                thead { tr {
                    th.n scope="col" { "Times" } th scope="col" { "Which way" } th scope="col" { "Reason" } th scope="col" { "Program" }
                    th scope="col" { "Last (UTC)" } th scope="col" { "Last with" }
                } }
                tbody {
                    @for x in &top.rows {
                        tr {
                            td.n { (number(x.count)) }
                            th scope="row" { (text(x.cause.as_ref())) }
                            td { (text(x.reason.as_ref())) }
                            td.program { (program(x.comm.as_ref(), x.exe.as_ref())) }
                            td { (time(x.last)) }
                            td { (endpoint(x.address.as_ref(), x.port)) }
                        }
                    }
                }
            }
        }))
    }
}
