//! What is drawn: activity over time and the lives of listeners. Places along the time are in percent, so
//! that a chart fits any width, and what is in it keeps its shape.

use maud::{Markup, html};

use crate::session::survey::{Bar, Rate, Slot, Survey, TICKS};

use super::words::{duration, number, second, time};

/// Height of a chart of activity, in pixels.
const HEIGHT: f64 = 56.0;

/// What is counted in a slot of time.
type Count = fn(&Slot) -> u64;

/// A chart for each kind of activity, below each other, with the time below all.
pub fn activity(survey: &Survey) -> Markup {
    let charts: [(&str, &str, Count); 4] = [
        ("Outgoing connections", "out", |slot| slot.out),
        ("Incoming connections", "in", |slot| slot.into),
        ("Failures", "failed", |slot| slot.failed),
        ("Resets", "reset", |slot| slot.resets),
    ];
    html! {
        @for (title, class, of) in charts {
            (chart(survey, title, class, of))
        }
        (axis(survey))
    }
}

fn chart(survey: &Survey, title: &str, class: &str, of: Count) -> Markup {
    let Rate { step, slots } = &survey.rate;
    let top = slots
        .iter()
        .enumerate()
        .max_by_key(|(at, slot)| (of(slot), usize::MAX - at));
    let Some((at, peak)) = top
        .map(|(at, slot)| (at, of(slot)))
        .filter(|(_, peak)| *peak > 0)
    else {
        return html! {
            div.chart.none { h3 { (title) } p { "none" } }
        };
    };
    let sum: u64 = slots.iter().map(of).sum();
    let moment = |at: usize| {
        let ts = survey
            .span
            .start
            .saturating_add(step.saturating_mul(at as u64));
        if *step < 1_000_000_000 {
            time(ts)
        } else {
            second(ts)
        }
    };
    let when = moment(at);
    // A round time, so without the smaller part of it.
    let every = duration(*step).replace("m00s", "m").replace("h00m", "h");
    let told = format!(
        "{} in all, at most {} in {every}{} from {when} UTC on",
        number(sum),
        number(peak),
        per_second(peak, *step)
    );
    let length = survey.span.end.saturating_sub(survey.span.start).max(1) as f64;
    let width = (100.0 * *step as f64 / length).min(100.0);
    html! {
        div.chart {
            h3 { (title) " " span.note { (told) } }
            svg role="img" aria-label=(format!("{title}: {told}")) width="100%" height=(HEIGHT) {
                (gaps(survey, HEIGHT))
                line.base x1="0" x2="100%" y1=(HEIGHT - 0.5) y2=(HEIGHT - 0.5) {}
                @for (at, slot) in slots.iter().enumerate().filter(|(_, slot)| of(slot) > 0) {
                    // Even one of many is seen.
                    @let height = (of(slot) as f64 / peak as f64 * (HEIGHT - 2.0)).max(1.5);
                    @let from = 100.0 * (at as f64) * *step as f64 / length;
                    rect class=(class) x=(percent(from)) width=(percent(width.min(100.0 - from).max(0.05)))
                        y=(format!("{:.1}", HEIGHT - height)) height=(format!("{height:.1}")) {
                        title { (moment(at)) ": " (number(of(slot))) }
                    }
                }
            }
        }
    }
}

/// The same count as a rate, where that says more.
fn per_second(count: u64, step: u64) -> String {
    let rate = count as f64 * 1e9 / step as f64;
    match step {
        1_000_000_000 => String::new(),
        _ if rate >= 10.0 => format!(" ({rate:.0}/s)"),
        _ if rate >= 0.1 => format!(" ({rate:.1}/s)"),
        _ => String::new(),
    }
}

/// Times that were not recorded.
fn gaps(survey: &Survey, height: f64) -> Markup {
    let length = survey.span.end.saturating_sub(survey.span.start).max(1) as f64;
    let place = |ts: u64| 100.0 * ts.saturating_sub(survey.span.start) as f64 / length;
    html! {
        @for gap in &survey.gaps {
            rect.gap x=(percent(place(gap.start))) width=(percent(place(gap.end) - place(gap.start)))
                y="0" height=(height) {
                title { "not recorded from " (second(gap.start)) " to " (second(gap.end)) }
            }
        }
    }
}

/// The time below charts.
fn axis(survey: &Survey) -> Markup {
    let length = survey.span.end.saturating_sub(survey.span.start);
    let at = |part: u64| survey.span.start.saturating_add(length / 4 * part);
    // Only what tells the moments apart.
    let label = |ts: u64| match length {
        0..60_000_000_000 => time(ts)[11..].to_owned(),
        60_000_000_000..86_400_000_000_000 => time(ts)[11..19].to_owned(),
        _ => time(ts)[5..16].to_owned(),
    };
    html! {
        svg.axis aria-hidden="true" width="100%" height="20" {
            @for (part, anchor) in [(0, "start"), (1, "middle"), (2, "middle"), (3, "middle"), (4, "end")] {
                line x1=(percent(part as f64 * 25.0)) x2=(percent(part as f64 * 25.0)) y1="0" y2="4" {}
                text.odd[part % 2 == 1] x=(percent(part as f64 * 25.0)) y="16" text-anchor=(anchor) { (label(at(part))) }
            }
        }
    }
}

/// The lives of a listener.
pub fn lives(survey: &Survey, bars: &[Bar], told: &str) -> Markup {
    html! {
        svg.lives role="img" aria-label=(told) width="100%" height="14" {
            (gaps(survey, 14.0))
            @for bar in bars {
                @let from = tick(bar.from);
                @if bar.short {
                    // As wide as can be seen, whatever the scale.
                    rect.short x=(percent(from.min(99.5))) width="4" y="1" height="12" {}
                } @else {
                    rect.life x=(percent(from)) width=(percent((tick(bar.to) - from).max(0.3))) y="3" height="8" {}
                }
            }
        }
    }
}

/// Part of the largest, beside a number.
pub fn share(count: u64, largest: u64) -> Markup {
    let part = 100.0 * count as f64 / largest.max(1) as f64;
    html! {
        svg.share aria-hidden="true" width="100%" height="8" {
            rect x="0" y="0" height="8" width=(percent(part)) {}
        }
    }
}

fn tick(tick: u16) -> f64 {
    100.0 * f64::from(tick) / f64::from(TICKS)
}

fn percent(part: f64) -> String {
    format!("{part:.2}%")
}

pub fn lives_axis(survey: &Survey) -> Markup {
    axis(survey)
}
