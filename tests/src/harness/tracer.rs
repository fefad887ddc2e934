//! A running `portwatch trace`: started, awaited, stopped, and what it said.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::event::{Event, parse};
use super::process::Incomplete;

/// An emulated machine needs many seconds to check and load the programs.
const READY_WITHIN: Duration = Duration::from_secs(120);
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// What portwatch says when the kernel did not run a program because it was interrupted in the
/// same one. No ring buffer can make up for that; it has to be told, and then is no lie.
const SKIPPED_RUNS: &str = "skipped by the kernel";
const READY: &str = "portwatch: tracing";

/// A child process whose output goes to files.
#[derive(Debug)]
pub struct Tracer {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// What a portwatch that has ended left behind.
#[derive(Debug)]
pub struct Run {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Tracer {
    /// Starts a command with its output in files of `directory` that begin with `name`.
    pub fn start(mut command: Command, directory: &Path, name: &str) -> Result<Self> {
        let stdout = directory.join(format!("{name}.stdout"));
        let file = File::create(&stdout)?;
        command.stdout(file);
        Self::start_to(command, stdout, directory, name)
    }

    /// The same with the command's own idea of where stdout goes.
    pub fn start_to(
        mut command: Command,
        stdout: PathBuf,
        directory: &Path,
        name: &str,
    ) -> Result<Self> {
        let stderr = directory.join(format!("{name}.stderr"));
        command.stdin(Stdio::null()).stderr(File::create(&stderr)?);
        let child = command
            .spawn()
            .with_context(|| format!("starting {:?}", command.get_program()))?;
        Ok(Self {
            child,
            stdout,
            stderr,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says that it is tracing.
    pub fn wait_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < READY_WITHIN {
            if self.said()?.lines().any(|line| line.starts_with(READY)) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "portwatch did not start ({status}): {}",
                    self.said()?.trim()
                );
            }
            sleep(Duration::from_millis(2));
        }
        bail!(
            "portwatch was not ready in {READY_WITHIN:?}: {}",
            self.said()?.trim()
        );
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// What it printed on stdout from this byte on, until now.
    pub fn printed(&self, from: u64) -> Result<Vec<u8>> {
        let mut file = File::open(&self.stdout)?;
        file.seek(SeekFrom::Start(from))?;
        let mut output = Vec::new();
        file.read_to_end(&mut output)?;
        Ok(output)
    }

    /// What it said on stderr until now.
    pub fn said(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.stderr)?).into_owned())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid().cast_signed()), signal)?)
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(self) -> Result<Run> {
        self.signal(Signal::SIGINT)?;
        self.wait()
    }

    /// Waits for it to end by itself.
    pub fn wait(mut self) -> Result<Run> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(
                start.elapsed() < STOP_WITHIN,
                "portwatch did not end in {STOP_WITHIN:?}: {}",
                self.said()?.trim()
            );
            sleep(Duration::from_millis(2));
        };
        let stdout = match fs::read(&self.stdout) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        Ok(Run {
            status,
            stdout,
            stderr: self.said()?,
        })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // both fail when it was waited for, and then there is nothing to do
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    /// Its events, after the checks that hold for every run.
    pub fn events(&self) -> Result<Vec<Event>> {
        parse(&self.stdout, 1)
    }

    /// # Errors
    /// When it ended with another status; says what it said.
    pub fn expect_status(&self, code: i32) -> Result<()> {
        ensure!(
            self.status.code() == Some(code),
            "portwatch ended with {}, not {code}: {}",
            self.status.signal().map_or_else(
                || self.status.to_string(),
                |signal| format!("signal {signal}")
            ),
            self.stderr.trim()
        );
        Ok(())
    }

    /// # Errors
    /// When the kernel skipped runs of its programs, as it says.
    pub fn expect_no_skipped_runs(&self) -> Result<()> {
        if self.stderr.contains(SKIPPED_RUNS) {
            return Err(Incomplete(self.stderr.trim().to_string()).into());
        }
        Ok(())
    }

    /// # Errors
    /// When it did not end well, with nothing missed.
    pub fn expect_complete(&self) -> Result<()> {
        self.expect_no_skipped_runs()?;
        self.expect_status(0)
    }

    /// # Errors
    /// When stderr lacks one of these words.
    pub fn expect_said(&self, words: &[&str]) -> Result<()> {
        let said = self.stderr.to_lowercase();
        for word in words {
            ensure!(
                said.contains(&word.to_lowercase()),
                "stderr does not say {word:?}: {}",
                self.stderr.trim()
            );
        }
        Ok(())
    }
}
