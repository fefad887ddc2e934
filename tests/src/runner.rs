//! Runs scenarios one after the other and says of each whether its promise held.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::harness::process::{Cannot, Incomplete};
use crate::harness::stage::{Options, Stage};

/// A promise and the function that tests it.
#[derive(Clone, Copy)]
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

/// Whether all passed or said that they cannot run here. What fails is tried once more: these
/// promises are about races, on machines that stand still for seconds at times.
pub fn run(scenarios: &[Scenario], options: &Options) -> Result<bool> {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for Scenario { name, play } in scenarios {
        let start = Instant::now();
        let mut outcome = attempt(*play, options);
        if let Err(error) = &outcome
            && !error.is::<Cannot>()
        {
            // Told, so that a promise that holds only mostly does not go unnoticed.
            let reason = one_line(&format!("{error:#}"));
            writeln!(io::stdout(), "again {name}: {reason}")?;
            outcome = attempt(*play, options);
        }
        let seconds = start.elapsed().as_secs_f64();
        let line = match outcome {
            Ok(()) => {
                passed += 1;
                format!("ok {name} {seconds:.2}")
            }
            Err(error) => match could_not(&error) {
                Some(reason) => {
                    skipped += 1;
                    format!("cannot {name}: {}", one_line(&reason))
                }
                None => {
                    failed += 1;
                    format!(
                        "FAIL {name} {seconds:.2}: {}",
                        one_line(&format!("{error:#}"))
                    )
                }
            },
        };
        writeln!(io::stdout(), "{line}")?;
    }
    writeln!(
        io::stdout(),
        "{passed} passed, {failed} failed, {skipped} skipped"
    )?;
    Ok(failed == 0)
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

fn attempt(play: fn(&mut Stage) -> Result<()>, options: &Options) -> Result<()> {
    catch_unwind(AssertUnwindSafe(|| play(&mut Stage::new(options)?)))
        .unwrap_or_else(|_| Err(anyhow!("panicked")))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
