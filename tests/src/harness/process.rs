//! Child processes that make traffic: forked, so that a scenario reads as one piece of code; each
//! dies with its parent and after a while in any case.

use std::ffi::CString;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm, fork};

use super::truth::{self, Record};

/// No traffic maker may live longer.
const LIFETIME_SECONDS: u32 = 280;

/// An error that says the kernel lacks what a scenario needs.
#[derive(Debug)]
pub struct Cannot(pub String);

impl fmt::Display for Cannot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cannot {}

/// portwatch said itself that a run is incomplete for a reason outside its power.
#[derive(Debug)]
pub struct Incomplete(pub String);

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the kernel skipped runs of a probe, as portwatch says: {}",
            self.0
        )
    }
}

impl std::error::Error for Incomplete {}

/// An error that makes the scenario "cannot", not "FAIL".
pub fn cannot(reason: impl Into<String>) -> anyhow::Error {
    Cannot(reason.into()).into()
}

/// A forked child; to be joined.
#[derive(Debug)]
#[must_use]
pub struct Child {
    pub pid: u32,
    name: String,
}

/// Runs `body` in a child process named `comm`, which then ends without running anybody's destructors.
///
/// # Errors
/// When fork fails. What goes wrong in the child is told by [`Child::join`] and the truth.
pub fn spawn(comm: &str, body: impl FnOnce() -> Result<()>) -> Result<Child> {
    // SAFETY: the runner and traffic makers fork only while they have one thread.
    match unsafe { fork() }.context("fork")? {
        ForkResult::Parent { child } => Ok(Child {
            pid: child.as_raw().unsigned_abs(),
            name: comm.to_owned(),
        }),
        ForkResult::Child => {
            let status = in_child(comm, body);
            // SAFETY: ends the process at once, by design.
            unsafe { libc::_exit(status) }
        }
    }
}

fn in_child(comm: &str, body: impl FnOnce() -> Result<()>) -> i32 {
    truth::begin();
    truth::forget_netns();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        alarm::set(LIFETIME_SECONDS);
        prctl::set_name(&CString::new(comm)?)?;
        truth::declare()?;
        body()
    }));
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => match error.downcast_ref::<Cannot>() {
            Some(Cannot(reason)) => truth::tell(Record::Cannot(reason.clone())),
            None => truth::tell(Record::Failed(format!("{comm}: {error:#}"))),
        },
        Err(_) => truth::tell(Record::Failed(format!("{comm} panicked"))),
    }
    match truth::save() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{comm}: {error:#}");
            1
        }
    }
}

impl Child {
    /// Waits for its end.
    ///
    /// # Errors
    /// When it did not end by itself with status 0.
    pub fn join(self) -> Result<()> {
        match waitpid(Pid::from_raw(self.pid.cast_signed()), None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            status => bail!("{} ended with {status:?}", self.name),
        }
    }

    /// Ends it.
    pub fn kill(self) {
        let pid = Pid::from_raw(self.pid.cast_signed());
        // Both fail when it is gone, and then there is nothing to do.
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
    }

    /// A process whose parent ended, and which came to this process.
    pub fn adopted(pid: u32) -> Self {
        let name = "adopted".to_owned();
        Self { pid, name }
    }
}

/// Waits for all of them, and reports the first that went wrong.
pub fn join_all(children: impl IntoIterator<Item = Child>) -> Result<()> {
    let mut result = Ok(());
    for child in children {
        // the others have to be waited for even when one went wrong
        let joined = child.join();
        result = result.and(joined);
    }
    result
}
