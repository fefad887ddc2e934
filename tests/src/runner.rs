//! Runs scenarios one after the other and says of each whether its promise held.

use std::cell::RefCell;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use crate::harness::process::{Cannot, Incomplete};
use crate::harness::shared::Shared;
use crate::harness::stage::{Options, Scale, Stage};

/// A promise and the function that tests it.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub play: fn(&mut Stage) -> Result<()>,
}

/// Lists functions as scenarios of the same names.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        pub const ALL: &[$crate::runner::Scenario] = &[
            $($crate::runner::Scenario { name: stringify!($name), play: $name },)*
        ];
    };
}

/// Runs all, and counts.
#[derive(Debug, Default)]
pub struct Runner {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Runner {
    /// Scenarios that share one trace, if starting one is what takes most of the time.
    ///
    /// # Errors
    /// When stdout is gone.
    pub fn together(&mut self, scenarios: &[Scenario], options: &Options) -> io::Result<()> {
        if options.scale == Scale::Full || scenarios.is_empty() {
            return self.alone(scenarios, options);
        }
        let shared = match options.share() {
            Ok(shared) => Rc::new(RefCell::new(shared)),
            Err(error) => return self.told("a_trace_of_everything_starts", 0.0, Err(error)),
        };
        for scenario in scenarios {
            self.run(scenario, options, Some(&shared))?;
        }
        let shared = Rc::into_inner(shared).map(RefCell::into_inner);
        let ended = shared
            .context("nobody has it now")
            .and_then(|shared| shared.stop()?.expect_complete());
        self.told("a_trace_of_all_of_them_is_complete", 0.0, ended)
    }

    /// Scenarios that start what they need.
    ///
    /// # Errors
    /// When stdout is gone.
    pub fn alone(&mut self, scenarios: &[Scenario], options: &Options) -> io::Result<()> {
        (scenarios.iter()).try_for_each(|scenario| self.run(scenario, options, None))
    }

    /// What fails is tried once more, with a trace of its own: these promises are about races, on
    /// machines that stand still for seconds at times.
    fn run(
        &mut self,
        Scenario { name, play }: &Scenario,
        options: &Options,
        shared: Option<&Rc<RefCell<Shared>>>,
    ) -> io::Result<()> {
        let start = Instant::now();
        let mut outcome = attempt(*play, options, shared);
        if let Err(error) = &outcome
            && !error.is::<Cannot>()
        {
            // Told, so that a promise that holds only mostly does not go unnoticed.
            let reason = one_line(&format!("{error:#}"));
            writeln!(io::stdout(), "again {name}: {reason}")?;
            outcome = attempt(*play, options, None);
        }
        self.told(name, start.elapsed().as_secs_f64(), outcome)
    }

    fn told(&mut self, name: &str, seconds: f64, outcome: Result<()>) -> io::Result<()> {
        let line = match outcome {
            Ok(()) => {
                self.passed += 1;
                format!("ok {name} {seconds:.2}")
            }
            Err(error) => match could_not(&error) {
                Some(reason) => {
                    self.skipped += 1;
                    format!("cannot {name}: {}", one_line(&reason))
                }
                None => {
                    self.failed += 1;
                    let reason = one_line(&format!("{error:#}"));
                    format!("FAIL {name} {seconds:.2}: {reason}")
                }
            },
        };
        writeln!(io::stdout(), "{line}")
    }

    /// Whether all passed or said that they cannot run here.
    ///
    /// # Errors
    /// When stdout is gone.
    pub fn totals(&self) -> io::Result<bool> {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        writeln!(
            io::stdout(),
            "{passed} passed, {failed} failed, {skipped} skipped"
        )?;
        Ok(*failed == 0)
    }
}

/// Why a promise could not be tested, if that is what the error says.
fn could_not(error: &anyhow::Error) -> Option<String> {
    let cannot = error
        .downcast_ref::<Cannot>()
        .map(|reason| reason.0.clone());
    cannot.or_else(|| {
        error
            .downcast_ref::<Incomplete>()
            .map(Incomplete::to_string)
    })
}

fn attempt(
    play: fn(&mut Stage) -> Result<()>,
    options: &Options,
    shared: Option<&Rc<RefCell<Shared>>>,
) -> Result<()> {
    catch_unwind(AssertUnwindSafe(|| play(&mut Stage::new(options, shared)?)))
        .unwrap_or_else(|_| Err(anyhow!("panicked")))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
