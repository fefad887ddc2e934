//! The table after a while of following events, with what only they tell: since when, whose it was
//! first, how many were accepted, how long a handshake took.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::clock::{Clock, boot};
use crate::command::compare::{Compare, Step};
use crate::command::say;
use crate::command::signals::Signals;
use crate::command::trace::{Particular, greet, not_observed, summary};
use crate::event::{Event, Kind};
use crate::snapshot::{self, Rows};
use crate::source::{self, Source};
use crate::table::{Difference, Limits, Table};
use crate::view::human;

/// Follows events for this long, or until a signal (the second one does not wait for the last
/// snapshot), and gives the open sockets. Says on stderr whether anything was missed, and what events
/// and the kernel's sockets did not agree on.
/// `particular`: see [`greet`].
///
/// # Errors
/// When nothing can be followed, or open sockets cannot be read.
pub async fn rows(
    options: &source::Options,
    duration: Duration,
    particular: &Particular,
) -> Result<snapshot::Snapshot> {
    let mut signals = Signals::new().context("waiting for signals")?;
    let mut source = Source::start(options)?;
    greet(&mut source, particular);
    let mut following = Following {
        table: Table::new(Limits::default()),
        compare: Compare::new(options.snapshot()),
        clock: Clock::new(),
        seeded: false,
        last: Last::No,
        limits: Vec::new(),
        differences: Vec::new(),
    };
    following
        .follow(&mut source, &mut signals, duration)
        .await?;
    let missing = not_observed(&source);
    if let Source::Poll(..) = source {
        // It has said so.
        following.limits.clear();
    }
    let accounts = source.finish(&mut Vec::new())?;
    say(&summary::verdict(&accounts, missing.as_deref()));
    for Difference { what, row } in &following.differences {
        let mut socket = row.event.proto.map(|x| format!("{x} ")).unwrap_or_default();
        human::push_endpoint(&mut socket, row.event.laddr, row.event.lport);
        if let Some(pid) = row.event.pid {
            socket.push_str(&format!(" of pid {pid}"));
        }
        say(&format!(
            "a socket {what}, repaired: {socket}, {}",
            row.state
        ));
    }
    let open = following.table.iter().filter(|sight| sight.end.is_none());
    Ok(snapshot::Snapshot {
        rows: open.map(|sight| sight.row()).collect(),
        limits: following.limits,
    })
}

/// Whether the comparison that ends it all is under way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    No,
    /// The time is up: the next snapshot is the last one.
    Asked,
    Begun,
}

struct Following {
    table: Table,
    compare: Compare,
    clock: Clock,
    seeded: bool,
    last: Last,
    limits: Vec<String>,
    differences: Vec<Difference>,
}

impl Following {
    async fn follow(
        &mut self,
        source: &mut Source,
        signals: &mut Signals,
        duration: Duration,
    ) -> Result<()> {
        let time_is_up = tokio::time::sleep(duration);
        tokio::pin!(time_is_up);
        let mut events: Vec<Event> = Vec::new();
        let mut asked = self.now();
        loop {
            tokio::select! {
                biased;
                _ = signals.next() => match self.last {
                    Last::No => self.end(),
                    // Asked twice, it does not wait.
                    _ if self.seeded => return Ok(()),
                    _ => bail!("ended before the open sockets were read"),
                },
                () = &mut time_is_up, if self.last == Last::No => self.end(),
                step = self.compare.next() => match step {
                    Step::Ask => {
                        source.hurry();
                        asked = self.now();
                    }
                    Step::Begin => self.begin(),
                    Step::Compare(Ok(rows)) => if self.compare(rows) {
                        return Ok(());
                    },
                    // The next one may do, and without the last one there is less to tell.
                    Step::Compare(Err(error)) if self.seeded => if self.last == Last::Begun {
                        say(&format!("not compared with open sockets at the end: {error:#}"));
                        return Ok(());
                    },
                    Step::Compare(Err(error)) => {
                        return Err(error.context("open sockets cannot be read"));
                    }
                },
                more = source.next(&mut events) => {
                    more?;
                    self.compare.told(events.last().map_or(asked, |event| event.ts));
                    asked = self.now();
                    for event in events.drain(..) {
                        self.table.apply(&event);
                        if event.kind == Kind::Lost {
                            self.compare.hurry(false);
                        }
                    }
                }
            }
        }
    }

    /// The next comparison is the last one.
    fn end(&mut self) {
        self.last = Last::Asked;
        self.compare.hurry(true);
    }

    /// A snapshot begins.
    fn begin(&mut self) {
        self.clock.tick();
        self.table.watch();
        if self.last == Last::Asked && self.seeded {
            self.last = Last::Begun;
        }
    }

    /// Compares with a snapshot; whether it was the last one.
    fn compare(&mut self, rows: Box<Rows>) -> bool {
        self.limits.clone_from(&rows.limits);
        if !self.seeded {
            self.seeded = true;
            self.table.seed(rows);
            if self.last == Last::Asked {
                self.compare.hurry(true);
            }
            return false;
        }
        let now = self.now();
        let scope = rows.scope.clone();
        let differences = self.table.reconcile(rows, &scope, now);
        self.differences.extend(differences);
        // What differs is decided by one more.
        if self.table.in_doubt() {
            self.compare.hurry(self.last == Last::Begun);
            return false;
        }
        self.last == Last::Begun
    }

    /// Nanoseconds since the Unix epoch, on the clock of the events.
    fn now(&self) -> u64 {
        self.clock.wall(boot())
    }
}
