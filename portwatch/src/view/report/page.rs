//! The page: its sections in their order.

use base64ct::{Base64, Encoding as _};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use crate::event::Kind;
use crate::sanitize;
use crate::session::survey::Survey;

use super::words::{self, duration, number, plural, second, short, time};
use super::{Report, chart, data, tables};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// Rows of the table for those who run no script.
const STATIC_ROWS: usize = 100;

pub fn page(report: &Report) -> Markup {
    let survey = &report.survey;
    let name = sanitize::text(report.name.as_bytes());
    let sections: [(&str, &str, Markup); 10] = [
        ("activity", "Activity", chart::activity(survey)),
        ("listening", "Listeners", tables::listeners(survey)),
        (
            "short",
            "Short-lived listeners",
            tables::short_lived(survey),
        ),
        ("failures", "Failures", tables::failures(&survey.failures)),
        ("resets", "Resets", tables::resets(&survey.resets)),
        ("ports", "Ports", tables::ports(survey)),
        ("programs", "Programs", tables::programs(survey)),
        ("peers", "Peers", tables::peers(survey)),
        ("runs", "Recordings", runs(survey)),
        ("events", "Events", events(report)),
    ];
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { "portwatch: " (name) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (name) }
                    nav aria-label="Sections" {
                        @for (id, title, _) in &sections { a href=(format!("#{id}")) { (title) } }
                    }
                }
                main {
                    (summary(report))
                    @for (id, title, content) in &sections {
                        section id=(id) aria-labelledby=(format!("{id}-title")) {
                            h2 id=(format!("{id}-title")) { (title) }
                            (content)
                        }
                    }
                }
                footer {
                    p {
                        "Made by portwatch " (env!("CARGO_PKG_VERSION")) " at " (second(report.now)) " UTC. All times are UTC. "
                        "Characters that cannot be seen, or would mislead, are shown as escapes such as \\x1b and \\u{202e}."
                    }
                }
                script #data type="application/json" { (PreEscaped(data::json(&report.events))) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// Nothing may be loaded, and only the style and the script that are part of the page may run.
fn policy() -> String {
    let hash = |text: &str| Base64::encode_string(&Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

fn summary(report: &Report) -> Markup {
    let survey = &report.survey;
    let totals = &survey.totals;
    let of = |kind: Kind| totals.kinds[kind as usize];
    let complete = words::completeness(report);
    let (class, integrity) = words::integrity(report.verdict.as_ref());
    let runs = survey.runs.iter();
    let each = |of: &dyn Fn(&crate::session::Run) -> Option<String>| {
        let mut all: Vec<String> = runs.clone().filter_map(|x| of(&x.run)).collect();
        all.dedup();
        short(sanitize::text(all.join(", ").as_bytes()))
    };
    let kernel = each(&|run| {
        let arch = run.arch.as_deref().unwrap_or_default();
        Some(
            format!("{} {arch}", run.kernel.as_deref()?)
                .trim_end()
                .to_owned(),
        )
    });
    let sum: u64 = survey.rate.slots.iter().map(|slot| slot.out).sum();
    let tiles = [
        ("events", "Events", totals.events, ""),
        ("listening", "Listens", of(Kind::Listen), ""),
        (
            "short",
            "of less than 1 s",
            survey.listeners.short.of,
            "short",
        ),
        ("activity", "Outgoing", sum, ""),
        ("activity", "Incoming", of(Kind::Accept), ""),
        ("failures", "Failed", totals.failed, "failed"),
        ("resets", "Resets", of(Kind::Reset), ""),
        ("events", "Lost", totals.lost, "failed"),
    ];
    html! {
        section #summary aria-label="Summary" {
            div class=(format!("verdict {}", complete.class)) {
                strong { (complete.headline) }
                @for reason in &complete.reasons { p { (reason) } }
            }
            ul.tiles {
                @for (id, title, count, class) in tiles {
                    li class=(if count > 0 { class } else { "" }) { a href=(format!("#{id}")) { strong { (number(count)) } " " (title) } }
                }
            }
            dl {
                div { dt { "Host" } dd { (or_dash(each(&|run| run.host.clone()))) } }
                div { dt { "Kernel" } dd { (or_dash(kernel)) } }
                div { dt { "From" } dd { (time(survey.span.start)) " UTC" } }
                div { dt { "To" } dd { (time(survey.span.end)) " UTC, " (duration(survey.span.end.saturating_sub(survey.span.start))) } }
                div { dt { "Source" } dd { (or_dash(each(&|run| Some(run.source.clone())))) } }
                div { dt { "Events" } dd {
                    @for (at, kind) in Kind::ALL.iter().filter(|kind| of(**kind) > 0).enumerate() {
                        @if at > 0 { ", " } (number(of(*kind))) " " (kind.as_str())
                    }
                    @if totals.events == 0 { "none" }
                } }
                div { dt { "Recorded by" } dd { "portwatch " (or_dash(each(&|run| Some(run.version.clone())))) } }
                div { dt { "Altered?" } dd class=(class) { (integrity) } }
            }
        }
    }
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

fn runs(survey: &Survey) -> Markup {
    html! {
        div.wide role="region" aria-label="Recordings" tabindex="0" {
            table {
                thead { tr {
                    th.n scope="col" { "Run" } th scope="col" { "Began (UTC)" } th scope="col" { "Ended (UTC)" } th.n scope="col" { "Events" }
                    th scope="col" { "How it ended" } th scope="col" { "Complete" } th scope="col" { "Source" } th scope="col" { "Only of" }
                } }
                tbody {
                    @for run in &survey.runs {
                        @let (class, end) = words::end(run);
                        tr {
                            th.n scope="row" { (run.id) }
                            td { (time(run.run.began)) }
                            td { @if let Some(finish) = &run.finish { (time(finish.ended)) } @else { "-" } }
                            td.n { (number(u64::try_from(run.events.end - run.events.start).unwrap_or(0))) }
                            td.words { (end) }
                            td class=(class) { @match run.finish.as_ref().map(|x| x.complete) { Some(true) => "yes", Some(false) => "no", None => "cut off" } }
                            td { (words::text(Some(&run.run.source.clone().into_bytes()))) }
                            td.words { (tables::command(run.run.command.clone().map(String::into_bytes).as_ref())) }
                        }
                    }
                }
            }
        }
    }
}

/// The table of events. The script takes it over.
fn events(report: &Report) -> Markup {
    let shown = report.events.len() as u64;
    let all = report.survey.totals.events;
    let titles = [
        "#",
        "Time (UTC)",
        "Event",
        "Proto",
        "PID",
        "Program",
        "Local",
        "Remote",
        "Details",
    ];
    html! {
        p {
            @if shown < all {
                "Showing " (number(shown)) " of " (plural(all, "event")) ", evenly spread over the whole session; all others count above. "
                "More with report --events, all with portwatch query."
            } @else {
                "Showing all " (number(all)) " of " (plural(all, "event")) "."
            }
        }
        @if shown > STATIC_ROWS as u64 {
            noscript { p.note { "Without JavaScript: the first " (STATIC_ROWS) " of these." } }
        }
        div.tools #event-tools hidden {
            label { "Search " input #query type="search" size="30" placeholder="words, all of which occur"; }
            label { "Event " select #kind { option value="" { "all" } @for kind in Kind::ALL { option { (kind.as_str()) } } } }
            label { input #failed type="checkbox"; " only failures" }
            span #status role="status" {}
            span.pages {
                button #first type="button" { "First" } button #previous type="button" { "Previous" }
                button #next type="button" { "Next" } button #last type="button" { "Last" }
            }
        }
        div.wide role="region" aria-label="Events" tabindex="0" {
            table #event-table {
                thead { tr { @for title in titles { th scope="col" class=[matches!(title, "#" | "PID").then_some("n")] { (title) } } } }
                tbody {
                    @for (id, event) in report.events.iter().take(STATIC_ROWS) {
                        @let cells = data::cells(*id, event);
                        tr.failed[cells.failed] {
                            td.n { (cells.id) }
                            td { (time(cells.ts)) }
                            td { (cells.kind.as_str()) }
                            td { (cells.proto) }
                            td.n { @if let Some(pid) = cells.pid { (pid) } @else { "-" } }
                            td { (cells.comm) }
                            td { (cells.local) }
                            td { (cells.remote) }
                            td.words { (cells.details) }
                        }
                    }
                }
            }
        }
    }
}
