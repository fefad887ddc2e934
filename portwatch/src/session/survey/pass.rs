//! One pass over all events, for what has few different values: kinds, moments, ports.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context as _, Result};

use super::super::Session;
use super::{RANKED, Top};
use crate::event::Kind;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;
/// Most slots of time.
const SLOTS: u64 = 240;
/// How long a slot may be, beyond that doubled.
const STEPS: [u64; 19] = {
    const MINUTE: u64 = 60 * SECOND;
    const HOUR: u64 = 60 * MINUTE;
    [
        10 * MILLISECOND,
        20 * MILLISECOND,
        50 * MILLISECOND,
        100 * MILLISECOND,
        200 * MILLISECOND,
        500 * MILLISECOND,
        SECOND,
        2 * SECOND,
        5 * SECOND,
        10 * SECOND,
        30 * SECOND,
        MINUTE,
        2 * MINUTE,
        5 * MINUTE,
        10 * MINUTE,
        30 * MINUTE,
        HOUR,
        6 * HOUR,
        24 * HOUR,
    ]
};

/// Counts of the whole session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub events: u64,
    pub kinds: [u64; Kind::ALL.len()],
    /// What ended in an error.
    pub failed: u64,
    /// Events that `lost` events tell of.
    pub lost: u64,
}

/// What happened in a slot of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Connects that succeeded.
    pub out: u64,
    /// Accepts.
    pub into: u64,
    pub failed: u64,
    pub resets: u64,
}

/// Activity over time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Length of a slot in nanoseconds.
    pub step: u64,
    /// From the beginning of the span on.
    pub slots: Vec<Slot>,
}

/// How a port was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    pub proto: String,
    pub port: u16,
    /// Connections taken at this local port.
    pub accepted: u64,
    /// Connections made to this remote port.
    pub out: u64,
    /// Binds and listens on it, and connects to it, that failed.
    pub failed: u64,
    /// Listens and udp binds.
    pub opened: u64,
}

pub struct Pass {
    pub totals: Totals,
    pub rate: Rate,
    pub ports: Top<Port>,
}

/// What matters here of a row of `raw_what`.
struct What {
    proto: Option<String>,
    failed: bool,
    pending: bool,
}

pub fn go(session: &Session, span: Range<u64>) -> Result<Pass> {
    let db = session.connection();
    let whats = whats(session)?;
    let step = step(span.end.saturating_sub(span.start));
    let slots = usize::try_from((span.end.saturating_sub(span.start)) / step + 1)?;
    let mut slots = vec![Slot::default(); slots];
    let mut totals = Totals::default();
    let mut ports: HashMap<(Option<&str>, u16), Port> = HashMap::new();
    let sql = "SELECT ts, kind, what, lport, rport, count FROM raw_event";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let ts = row.get::<_, i64>(0)?.cast_unsigned();
        let kind: u8 = row.get(1)?;
        let found = Kind::ALL.get(usize::from(kind));
        let kind = *found.with_context(|| format!("no kind {kind} of event"))?;
        let what = whats.get(&row.get(2)?);
        let what = what.context("an event refers to nothing")?;
        totals.events += 1;
        totals.kinds[kind as usize] += 1;
        totals.failed += u64::from(what.failed);
        if kind == Kind::Lost {
            let count: Option<i64> = row.get(5)?;
            totals.lost = totals
                .lost
                .saturating_add(count.unwrap_or(0).cast_unsigned());
        }
        let place = usize::try_from(ts.saturating_sub(span.start) / step)?;
        let last = slots.len() - 1;
        let slot = &mut slots[place.min(last)];
        let port_at = match kind {
            Kind::Connect => row.get::<_, Option<u16>>(4)?,
            _ => row.get(3)?,
        };
        let mut unused = Port::default();
        let port = match port_at.filter(|&port| port > 0 && kind < Kind::Close) {
            Some(port) => ports.entry((what.proto.as_deref(), port)).or_default(),
            None => &mut unused,
        };
        match kind {
            _ if what.failed => {
                slot.failed += 1;
                port.failed += 1;
            }
            _ if what.pending => {}
            Kind::Connect => {
                slot.out += 1;
                port.out += 1;
            }
            Kind::Accept => {
                slot.into += 1;
                port.accepted += 1;
            }
            Kind::Bind => port.opened += u64::from(what.proto.as_deref() == Some("udp")),
            Kind::Listen => port.opened += 1,
            Kind::Reset => slot.resets += 1,
            Kind::Close | Kind::Lost => {}
        }
    }
    Ok(Pass {
        totals,
        rate: Rate { step, slots },
        ports: ranked(ports),
    })
}

fn whats(session: &Session) -> Result<HashMap<i64, What>> {
    let sql = "SELECT id, proto, error IS NOT NULL AND error <> 'EINPROGRESS',
                      error IS 'EINPROGRESS' FROM raw_what";
    let mut statement = session.connection().prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let what = What {
            proto: row.get(1)?,
            failed: row.get(2)?,
            pending: row.get(3)?,
        };
        Ok((row.get(0)?, what))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Those that were used, the busiest first.
fn ranked(ports: HashMap<(Option<&str>, u16), Port>) -> Top<Port> {
    let named = ports.into_iter().map(|((proto, port), used)| Port {
        proto: proto.unwrap_or_default().to_owned(),
        port,
        ..used
    });
    let use_of = |x: &Port| x.accepted + x.out + x.failed + x.opened;
    let mut rows: Vec<Port> = named.filter(|x| use_of(x) > 0).collect();
    let of = rows.len() as u64;
    rows.sort_by(|a, b| (use_of(b), a.port, &a.proto).cmp(&(use_of(a), b.port, &b.proto)));
    rows.truncate(usize::try_from(RANKED).unwrap_or_default());
    Top { rows, of }
}

/// Length of a slot, so that there are not more than [`SLOTS`] in `length` nanoseconds.
fn step(length: u64) -> u64 {
    let fits = |step: &u64| length / step < SLOTS;
    if let Some(step) = STEPS.into_iter().find(fits) {
        return step;
    }
    let mut step = STEPS[STEPS.len() - 1];
    while !fits(&step) {
        step *= 2;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_any_length_has_few_slots() {
        for (length, expected) in [
            (0, 10 * MILLISECOND),
            (SECOND, 10 * MILLISECOND),
            (60 * SECOND, 500 * MILLISECOND),
            (3600 * SECOND, 30 * SECOND),
            (86_400 * SECOND, 600 * SECOND),
        ] {
            assert_eq!(step(length), expected);
        }
        assert!(u64::MAX / step(u64::MAX) < SLOTS);
    }
}
