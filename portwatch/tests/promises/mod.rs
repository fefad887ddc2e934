//! Runs what a test program promises. What cannot be tried here is named with its reason, and left out.

use libtest_mimic::{Arguments, Trial};

/// Name, what it needs that is not here, and the test.
pub type Promise = (&'static str, Option<&'static str>, fn());

/// Runs them, several at once, or each with nothing beside it when that would disturb it.
pub fn run(promises: &[Promise], alone: bool) -> ! {
    let trials = promises.iter().map(|&(name, missing, test)| {
        if let Some(missing) = missing {
            eprintln!("NOT RUN: {name} needs {missing}");
        }
        Trial::test(name, move || {
            test();
            Ok(())
        })
        .with_ignored_flag(missing.is_some())
    });
    let mut arguments = Arguments::from_args();
    if alone {
        arguments.test_threads = Some(1);
    }
    libtest_mimic::run(&arguments, trials.collect()).exit()
}

/// What is missing to those who are not root.
pub fn root() -> Option<&'static str> {
    // SAFETY: takes nothing and touches no memory.
    let root = unsafe { libc::geteuid() } == 0;
    (!root).then_some("root")
}
