//! A tracer running in the background, and the load that it sees.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::image::Programs;
use crate::setup::find_program;
use crate::shell::{read, run};

/// On stderr once portwatch's probes are attached.
const PORTWATCH_READY: &str = "portwatch: tracing";
/// Nothing tells when the others are attached.
const OTHERS_READY_AFTER: Duration = Duration::from_secs(4);

/// One that is running; killed when it is dropped.
pub struct Tracer {
    child: Child,
    stderr: Arc<Mutex<Vec<u8>>>,
    /// Ends when the tracer closes its stderr.
    collector: Option<JoinHandle<()>>,
    ready: Option<&'static str>,
}

impl Tracer {
    /// Starts `portwatch trace` without waiting for anything.
    pub fn portwatch(programs: &Programs, arguments: &[&str], stdout: Stdio) -> Result<Self> {
        Self::ours(programs, &[&["trace"], arguments].concat(), stdout)
    }

    /// Starts `portwatch record` into this file.
    pub fn record(programs: &Programs, file: &str, arguments: &[&str]) -> Result<Self> {
        let arguments = [&["record", file], arguments].concat();
        Self::ours(programs, &arguments, Stdio::null())
    }

    fn ours(programs: &Programs, arguments: &[&str], stdout: Stdio) -> Result<Self> {
        let mut tracer = Self::spawn(&programs.portwatch, arguments, stdout)?;
        tracer.ready = Some(PORTWATCH_READY);
        Ok(tracer)
    }

    /// Starts another tracer, its output thrown away.
    pub fn other(program: &str, arguments: &[&str]) -> Result<Self> {
        let path = find_program(program).with_context(|| format!("{program} is not installed"))?;
        Self::spawn(&path, arguments, Stdio::null())
    }

    fn spawn(program: &Path, arguments: &[impl AsRef<OsStr>], stdout: Stdio) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut pipe = child.stderr.take().context("its stderr is not piped")?;
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&stderr);
        let collector = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                said.extend_from_slice(&chunk[..length]);
            }
        });
        Ok(Self {
            child,
            stderr,
            collector: Some(collector),
            ready: None,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&mut self) -> Result<ChildStdout> {
        self.child
            .stdout
            .take()
            .context("its output is not read from here")
    }

    /// Waits until it sees everything.
    pub fn wait_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            self.check_alive()?;
            let waited = start.elapsed();
            match self.ready {
                Some(line) if self.said().contains(line) => return Ok(()),
                Some(_) if waited > Duration::from_secs(30) => bail!("it did not become ready"),
                None if waited > OTHERS_READY_AFTER => return Ok(()),
                _ => sleep(Duration::from_millis(5)),
            }
        }
    }

    /// # Errors
    /// When it has ended; with what it said.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("it ended with {status}: {}", self.said().trim()),
            None => Ok(()),
        }
    }

    /// Ends it as Ctrl-C does; its exit code and what it said on stderr.
    pub fn stop(mut self) -> Result<(Option<i32>, String)> {
        run(Command::new("kill").args(["-INT", &self.pid().to_string()]))?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if let Some(status) = self.child.try_wait()? {
                if let Some(collector) = self.collector.take() {
                    // it does not panic, and what it has read so far is there in any case
                    let _ = collector.join();
                }
                return Ok((status.code(), self.said()));
            }
            sleep(Duration::from_millis(5));
        }
        bail!("it did not end within 20 s of SIGINT")
    }

    fn said(&self) -> String {
        let said = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // an error only says that it has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects, accepts and closes at full speed over loopback; gives connections a second.
pub fn churn(programs: &Programs, connections: u64) -> Result<f64> {
    let text = read(Command::new(&programs.scenarios).args([
        "--churn",
        &connections.to_string(),
        "--json",
    ]))?;
    let result: Value = serde_json::from_str(&text).context("the result of the churn")?;
    let seconds = result["seconds"]
        .as_f64()
        .context("the churn tells no seconds")?;
    Ok(connections as f64 / seconds)
}
