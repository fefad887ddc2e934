//! What is said at the end of a trace: how much was shown, and whether anything is missing.

use std::time::Instant;

use super::{micros, say};
use crate::event::{Event, Kind};
use crate::source::accounts::Accounts;
use crate::view::human;

pub struct Summary {
    started: Instant,
    /// Events of the kinds asked for that came from the source, losses not among them.
    seen: u64,
    /// Events shown, by kind, losses among them.
    shown: [u64; Kind::ALL.len()],
    /// What this kernel does not show.
    not_observed: Option<String>,
    /// Of what was recorded: how long it took, in microseconds, and why its end is not known.
    recorded: Option<(u64, Option<String>)>,
    /// It ended before all of what was recorded was looked at.
    stopped: bool,
}

impl Summary {
    pub fn new(not_observed: Option<String>) -> Self {
        Self {
            started: Instant::now(),
            seen: 0,
            shown: [0; Kind::ALL.len()],
            not_observed,
            recorded: None,
            stopped: false,
        }
    }

    /// Of a recording that took `us` microseconds; `cut_off`: why its end is not known.
    pub fn recorded(not_observed: Option<String>, us: u64, cut_off: Option<String>) -> Self {
        Self {
            recorded: Some((us, cut_off)),
            ..Self::new(not_observed)
        }
    }

    /// Of what was recorded not all was looked at: how much there is, and how long it took, is not known of
    /// what was shown.
    pub fn stopped(&mut self) {
        self.stopped = true;
    }

    pub fn seen(&mut self, event: &Event) {
        self.seen += u64::from(event.kind != Kind::Lost);
    }

    /// Counts an event that is shown and returns its number, from 1.
    pub fn shown(&mut self, kind: Kind) -> u64 {
        self.shown[kind as usize] += 1;
        self.shown.iter().sum()
    }

    /// Says it on stderr.
    pub fn tell(&self, accounts: &Accounts, complaint: Option<&str>) {
        say(&self.text());
        if let Some(complaint) = complaint {
            say(complaint);
        }
        say(&self.verdict(accounts));
    }

    /// How much was shown so far, in one line.
    pub fn text(&self) -> String {
        let us = self.recorded.as_ref().map(|x| x.0);
        self.counts(us.unwrap_or_else(|| micros(self.started.elapsed())))
    }

    pub fn verdict(&self, accounts: &Accounts) -> String {
        let cut_off = self.recorded.as_ref().and_then(|x| x.1.as_deref());
        verdict_of_recorded(accounts, cut_off, self.not_observed.as_deref())
    }

    fn counts(&self, us: u64) -> String {
        let by_kind = |kind: Kind| self.shown[kind as usize];
        let kinds = Kind::ALL
            .iter()
            .filter(|&&kind| kind != Kind::Lost && by_kind(kind) > 0);
        let kinds: Vec<(Kind, u64)> = kinds.map(|&kind| (kind, by_kind(kind))).collect();
        let shown: u64 = kinds.iter().map(|(_, count)| count).sum();
        let mut text = match self.seen - shown {
            _ if self.stopped => format!("{} shown until it stopped", plural(shown, "event")),
            0 => plural(shown, "event"),
            _ => format!("{shown} of {} shown", plural(self.seen, "event")),
        };
        if !self.stopped {
            text.push_str(" in ");
            human::push_us(&mut text, us);
        }
        if !kinds.is_empty() {
            text.push_str(": ");
            text.push_str(&list(&kinds));
        }
        text
    }
}

/// Whether anything is missing, and what.
pub fn verdict(accounts: &Accounts, not_observed: Option<&str>) -> String {
    conclusion(reasons(accounts), not_observed)
}

/// The same of a recording; `cut_off`: why its end is not known.
pub fn verdict_of_recorded(
    accounts: &Accounts,
    cut_off: Option<&str>,
    not_observed: Option<&str>,
) -> String {
    let cut_off = cut_off.map(str::to_owned).into_iter();
    conclusion(cut_off.chain(reasons(accounts)).collect(), not_observed)
}

/// What is missing, and why.
fn reasons(accounts: &Accounts) -> Vec<String> {
    let Accounts {
        lost,
        lost_by_kind,
        lost_process,
        untracked_sockets,
        missed_returns,
        skipped_events,
        undecodable,
        polled,
        denied_probes,
        damaged_snapshots,
    } = accounts;
    let mut reasons = Vec::new();
    if let Some(longest) = polled {
        let mut text = "polling misses what fails, resets, and what lives shorter than ".to_owned();
        human::push_us(&mut text, micros(*longest));
        reasons.push(text);
    }
    if *lost > 0 {
        reasons.push(format!(
            "{} lost{}, try a larger --ring-size",
            plural(*lost, "event"),
            match lost_by_kind.is_empty() {
                true => String::new(),
                false => format!(" ({})", list(lost_by_kind)),
            }
        ));
    }
    for (count, what, why) in [
        (
            lost_process,
            "record",
            "lost, by which others are told: owners and holders may be missing, exe and args those of a parent, and events of a command's descendants missing",
        ),
        (
            untracked_sockets,
            "socket",
            "without room in the kernel's map: owners may be missing",
        ),
        (
            missed_returns,
            "call",
            "whose return the kernel did not report",
        ),
        (
            skipped_events,
            "run",
            "of a probe skipped by the kernel, which was interrupted in it: events may be missing",
        ),
        (
            denied_probes,
            "probe",
            "denied to this process: events or parts of them are missing, see portwatch doctor",
        ),
        (undecodable, "record", "not understood: please report this"),
        (
            damaged_snapshots,
            "snapshot",
            "with tables missing or damaged: what began and ended in them may be missing",
        ),
    ] {
        if *count > 0 {
            reasons.push(format!("{} {why}", plural(*count, what)));
        }
    }
    reasons
}

fn conclusion(reasons: Vec<String>, not_observed: Option<&str>) -> String {
    let mut text = match reasons.is_empty() {
        true => "complete: nothing lost".to_owned(),
        false => format!("incomplete: {}", reasons.join("; ")),
    };
    if let Some(missing) = not_observed {
        text.push_str(&format!(" (not observed on this kernel: {missing})"));
    }
    text
}

fn list(kinds: &[(Kind, u64)]) -> String {
    let parts: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    parts.join(", ")
}

pub fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;

    use super::*;
    use crate::event::Origin;

    fn summary(shown: &[Kind], hidden: u64) -> Summary {
        let mut summary = Summary::new(None);
        for (i, &kind) in shown.iter().enumerate() {
            summary.seen(&Event::new(kind, Origin::Live, 0));
            assert_eq!(summary.shown(kind), i as u64 + 1);
        }
        summary.seen += hidden;
        summary
    }

    #[test]
    fn counts_are_by_kind_and_tell_what_the_filter_hid() {
        let some = [Kind::Bind, Kind::Lost, Kind::Close, Kind::Bind];
        expect!["3 events in 1.50s: 2 bind, 1 close"]
            .assert_eq(&summary(&some, 0).counts(1_500_000));
        expect!["3 of 10 events shown in 1.50s: 2 bind, 1 close"]
            .assert_eq(&summary(&some, 7).counts(1_500_000));
        expect!["0 events in 1.5ms"].assert_eq(&summary(&[], 0).counts(1_500));
        expect!["1 event in 1.5ms: 1 bind"].assert_eq(&summary(&[Kind::Bind], 0).counts(1_500));
        let mut stopped = summary(&some, 4093);
        stopped.stopped();
        expect!["3 events shown until it stopped: 2 bind, 1 close"]
            .assert_eq(&stopped.counts(1_500_000));
    }

    #[test]
    fn the_verdict_gives_every_reason() {
        expect!["complete: nothing lost"].assert_eq(&verdict(&Accounts::default(), None));
        let accounts = Accounts {
            lost: 12,
            lost_by_kind: vec![(Kind::Connect, 10), (Kind::Close, 2)],
            lost_process: 1,
            untracked_sockets: 2,
            missed_returns: 3,
            skipped_events: 5,
            undecodable: 4,
            polled: None,
            denied_probes: 6,
            damaged_snapshots: 0,
        };
        expect!["incomplete: 12 events lost (10 connect, 2 close), try a larger --ring-size; 1 record lost, by which others are told: owners and holders may be missing, exe and args those of a parent, and events of a command's descendants missing; 2 sockets without room in the kernel's map: owners may be missing; 3 calls whose return the kernel did not report; 5 runs of a probe skipped by the kernel, which was interrupted in it: events may be missing; 6 probes denied to this process: events or parts of them are missing, see portwatch doctor; 4 records not understood: please report this"].assert_eq(&verdict(&accounts, None));
        let accounts = Accounts {
            polled: Some(Duration::from_millis(200)),
            ..Accounts::default()
        };
        assert!(!accounts.complete());
        expect![
            "incomplete: polling misses what fails, resets, and what lives shorter than 200.0ms"
        ]
        .assert_eq(&verdict(&accounts, None));
        expect!["complete: nothing lost (not observed on this kernel: resets, releases)"]
            .assert_eq(&verdict(&Accounts::default(), Some("resets, releases")));
    }
}
