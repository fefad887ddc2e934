//! The stage a scenario plays on: a directory of its own, a portwatch to start with any flags,
//! traffic makers, and the judgement at the end.

use std::cell::{OnceCell, RefCell};
use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::event::Event;
use super::judge::{Truth, compare};
use super::netns::Netns;
use super::process::{Child, cannot, join_all, spawn};
use super::shared::Shared;
use super::tracer::{Run, Tracer};
use super::truth;

const EVERYTHING: &[&str] = &["--require-complete"];

/// How much traffic to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scale {
    /// A real machine.
    Full,
    /// An emulated machine.
    Vm,
}

/// The same for all scenarios of a run.
#[derive(Clone, Debug)]
pub struct Options {
    pub portwatch: PathBuf,
    pub probes: String,
    pub scale: Scale,
    pub doctor: Rc<OnceCell<serde_json::Value>>,
}

/// See the module. One for each scenario.
#[derive(Debug)]
pub struct Stage {
    options: Options,
    shared: Option<Rc<RefCell<Shared>>>,
    directory: tempfile::TempDir,
    children: Vec<Child>,
    namespaces: HashSet<u64>,
    runs: u32,
}

fn directory() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new()
        .prefix("portwatch-scenario-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir()?)
}

/// What a scenario that failed left running would take the time of those after it.
impl Drop for Stage {
    fn drop(&mut self) {
        self.children.drain(..).for_each(Child::kill);
    }
}

impl Options {
    /// What doctor tells, asked once.
    fn report(&self) -> Result<&serde_json::Value> {
        if self.doctor.get().is_none() {
            let output = Command::new(&self.portwatch)
                .args(["doctor", "-o", "json", "--probes", &self.probes])
                .output()?;
            let _ = self.doctor.set(serde_json::from_slice(&output.stdout)?);
        }
        self.doctor.get().context("it was just set")
    }

    /// Starts a trace of everything for several stages.
    pub fn share(&self) -> Result<Shared> {
        let directory = directory()?;
        let command = self.trace("json", EVERYTHING);
        let mut tracer = Tracer::start(command, directory.path(), "shared")?;
        tracer.wait_ready()?;
        Ok(Shared::new(tracer, directory))
    }

    fn trace(&self, output: &str, flags: &[&str]) -> Command {
        let mut command = Command::new(&self.portwatch);
        command
            .args(["trace", "-o", output, "--probes", &self.probes])
            .args(flags);
        command
    }
}

impl Stage {
    /// With a trace of everything that is there already, or none: then it starts its own.
    pub fn new(options: &Options, shared: Option<&Rc<RefCell<Shared>>>) -> Result<Self> {
        let directory = directory()?;
        let truth = directory.path().join("truth");
        fs::create_dir(&truth)?;
        // traffic makers of other users write there, too
        fs::set_permissions(&truth, Permissions::from_mode(0o1777))?;
        truth::set_directory(&truth);
        Ok(Self {
            options: options.clone(),
            shared: shared.cloned(),
            directory,
            children: Vec::new(),
            namespaces: HashSet::new(),
            runs: 0,
        })
    }

    /// A stage of the same kind with no truth yet.
    pub fn again(&self) -> Result<Self> {
        Self::new(&self.options, self.shared.as_ref())
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn portwatch(&self) -> &Path {
        &self.options.portwatch
    }

    /// Ends the scenario in the tiers that are not made for this.
    pub fn require_tier(&self, seen: impl Fn(&str) -> bool, what: &str) -> Result<()> {
        if seen(&self.options.probes) {
            return Ok(());
        }
        Err(cannot(format!("this tier sees no {what}")))
    }

    /// Ends the scenario where portwatch itself says that it cannot observe this in this tier.
    pub fn require_observed(&self, what: &str) -> Result<()> {
        let report = self.options.report()?;
        let rows = report["plan"].as_array().context("doctor shows no plan")?;
        let row = rows.iter().find(|row| row["observe"] == what);
        let row = row.with_context(|| format!("doctor knows no {what}"))?;
        if row["chosen"].is_null() {
            return Err(cannot(format!(
                "this tier sees no {what} here: {}",
                row["refused"]
            )));
        }
        Ok(())
    }

    /// `full` on a real machine, `vm` on an emulated one.
    pub fn scaled<T>(&self, full: T, vm: T) -> T {
        match self.options.scale {
            Scale::Full => full,
            Scale::Vm => vm,
        }
    }

    /// `portwatch trace` with this kind of output and these flags more, not started yet.
    pub fn command(&self, output: &str, flags: &[&str]) -> Command {
        self.options.trace(output, flags)
    }

    /// Any command of portwatch that takes probes, with the tier forced.
    pub fn view(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.options.portwatch);
        command.args(words).args(["--probes", &self.options.probes]);
        command
    }

    /// Starts it and waits until it traces.
    pub fn trace(&mut self, flags: &[&str]) -> Result<Tracer> {
        let mut tracer = self.start(self.command("json", flags))?;
        tracer.wait_ready()?;
        Ok(tracer)
    }

    /// Starts any command with its output kept.
    pub fn start(&mut self, command: Command) -> Result<Tracer> {
        self.runs += 1;
        Tracer::start(command, self.directory.path(), &format!("run{}", self.runs))
    }

    /// A new network namespace with its loopback up; every event in it has to be expected.
    pub fn netns(&mut self) -> Result<Netns> {
        let netns = Netns::new()?;
        self.namespaces.insert(netns.inode());
        Ok(netns)
    }

    /// A traffic maker in the host's network namespace.
    pub fn spawn(&mut self, comm: &str, body: impl FnOnce() -> Result<()>) -> Result<u32> {
        let child = spawn(comm, body)?;
        let pid = child.pid;
        self.children.push(child);
        Ok(pid)
    }

    /// A traffic maker in a namespace.
    pub fn spawn_in(
        &mut self,
        netns: &Netns,
        comm: &str,
        body: impl FnOnce() -> Result<()>,
    ) -> Result<u32> {
        self.spawn(comm, || {
            netns.enter()?;
            body()
        })
    }

    /// Waits in [`Stage::join`] also for a process that a traffic maker left behind. The runner has
    /// to be its subreaper.
    pub fn adopt(&mut self, pid: u32) {
        self.children.push(Child::adopted(pid));
    }

    /// Waits until all traffic makers have ended and the kernel has dealt with what they left.
    pub fn join(&mut self) -> Result<()> {
        let result = join_all(self.children.drain(..));
        truth::save()?;
        // what a traffic maker said explains why it ended badly
        self.truth()?;
        result?;
        sleep(self.scaled(Duration::from_millis(50), Duration::from_millis(300)));
        Ok(())
    }

    pub fn truth(&self) -> Result<Truth> {
        let records = truth::load(&self.directory.path().join("truth"))?;
        let mut truth = Truth::from_records(records)?;
        truth.namespaces.clone_from(&self.namespaces);
        Ok(truth)
    }

    /// Traces what `traffic` makes, and compares all of it with the truth, which has to hold
    /// something: a traffic maker that does nothing proves nothing.
    pub fn exact(&mut self, traffic: impl FnOnce(&mut Self) -> Result<()>) -> Result<Vec<Event>> {
        if self.shared.is_some() {
            let events = self.seen(traffic)?;
            return self.compared(events, &self.truth()?);
        }
        let run = self.traced(traffic)?;
        self.judge(&run)
    }

    /// The same of one traffic maker in a namespace of its own.
    pub fn exact_of(
        &mut self,
        comm: &str,
        body: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<Event>> {
        let netns = self.netns()?;
        self.exact(|stage| stage.spawn_in(&netns, comm, body).map(drop))
    }

    /// Everything that is told while `traffic` makes it, for the caller to judge.
    pub fn seen(&mut self, traffic: impl FnOnce(&mut Self) -> Result<()>) -> Result<Vec<Event>> {
        if let Some(shared) = self.shared.clone() {
            shared.borrow_mut().take()?;
            self.made(traffic)?;
            return shared.borrow_mut().take();
        }
        let run = self.traced(traffic)?;
        run.expect_complete()?;
        run.events()
    }

    /// A trace of everything for this traffic alone.
    fn traced(&mut self, traffic: impl FnOnce(&mut Self) -> Result<()>) -> Result<Run> {
        let tracer = self.trace(EVERYTHING)?;
        self.made(traffic)?;
        tracer.stop()
    }

    fn made(&mut self, traffic: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let made = traffic(self);
        let joined = self.join();
        made.and(joined)
    }

    /// Compares a run that ended well with the truth.
    pub fn judge(&self, run: &Run) -> Result<Vec<Event>> {
        self.judge_by(run, &self.truth()?)
    }

    /// The same with another truth than all of it.
    pub fn judge_by(&self, run: &Run, truth: &Truth) -> Result<Vec<Event>> {
        run.expect_no_skipped_runs()?;
        let compared = self.compared(run.events()?, truth);
        if compared.is_err() {
            eprintln!("  stderr: {}", run.stderr.trim());
        }
        let events = compared?;
        run.expect_status(0)?;
        Ok(events)
    }

    /// The events that concern the truth, if they are what they have to be.
    fn compared(&self, events: Vec<Event>, truth: &Truth) -> Result<Vec<Event>> {
        ensure!(
            !truth.expected.is_empty(),
            "the traffic maker made no traffic"
        );
        compare(&events, truth)?;
        Ok(events.into_iter().filter(|x| truth.concerns(x)).collect())
    }
}
