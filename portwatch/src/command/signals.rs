//! Signals that end a trace, or are passed on to the command that is traced; and those that stop a program
//! which has taken the terminal.

use std::io::Result;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock::boot;

pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None`: ignored from the start, as nohup(1) does.
    hangup: Option<Signal>,
}

impl Signals {
    /// From here on signals are waited for. Without a command a second one ends the program at
    /// once, whatever it does at that moment: a slow reader of our output must not be in its way.
    pub fn new(command: bool) -> Result<Self> {
        if !command {
            for number in [libc::SIGINT, libc::SIGTERM] {
                // SAFETY: reads a clock and an atomic number, and ends the program; all of it may be done in a handler.
                unsafe { signal_hook::low_level::register(number, move || end_if_second(number)) }?;
            }
        }
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: unless_ignored(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal and returns its number. Cancel-safe.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
            () = received(&mut self.hangup) => libc::SIGHUP,
        }
    }
}

/// Of a program that has taken the terminal, and gives it back before a signal has effect.
pub struct ScreenSignals {
    ending: Signals,
    quit: Option<Signal>,
    stop: Option<Signal>,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    End,
    /// To call [`stop`] once the terminal is given back.
    Stop,
}

impl ScreenSignals {
    /// From here on they are waited for.
    pub fn new() -> Result<Self> {
        Ok(Self {
            ending: Signals::new(false)?,
            quit: unless_ignored(SignalKind::quit())?,
            stop: unless_ignored(SignalKind::from_raw(libc::SIGTSTP))?,
        })
    }

    /// Waits for a signal. Cancel-safe.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.ending.next() => Asked::End,
            () = received(&mut self.quit) => Asked::End,
            () = received(&mut self.stop) => Asked::Stop,
        }
    }
}

/// Stops this process until it is continued, as SIGTSTP does where nothing handles it: that is up to the kernel,
/// which stops nobody whom no shell could continue.
pub fn stop() {
    if is_ignored(libc::SIGTSTP) {
        return;
    }
    // SAFETY: all zeros is a valid sigaction, the default one; both live longer than the calls.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let mut handled: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGTSTP, &default, &mut handled);
        libc::raise(libc::SIGTSTP);
        libc::sigaction(libc::SIGTSTP, &handled, std::ptr::null_mut());
    }
}

fn unless_ignored(kind: SignalKind) -> Result<Option<Signal>> {
    let waited = (!is_ignored(kind.as_raw_value())).then(|| signal(kind));
    waited.transpose()
}

/// Waits for ever for one that is ignored.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    };
}

/// Ends the program by this signal if there was one before. timeout(1) sends it twice, to its command and then to
/// the group, which is one to its user.
fn end_if_second(number: i32) {
    /// Milliseconds since the machine started; 0: there was none yet.
    static FIRST: AtomicU64 = AtomicU64::new(0);
    const ONE: u64 = 500;
    let now = boot() / 1_000_000;
    let first = FIRST.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    if first.is_err_and(|first| now.saturating_sub(first) > ONE) {
        // It does not fail for these two.
        let _ = signal_hook::low_level::emulate_default_handler(number);
    }
}

/// Has the end of a child told to us: where SIGCHLD is ignored from the start, nothing is left to wait for.
pub fn notice_children() {
    // SAFETY: no handler of ours is involved.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Makes a limit of the size of files an error of the write, as a full disk is, instead of the end of the
/// program.
pub fn survive_file_limit() {
    // SAFETY: no handler of ours is involved.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Undoes that for a command, between fork and exec.
pub fn obey_file_limit() {
    // SAFETY: as above; safe between fork and exec.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
}

fn is_ignored(number: i32) -> bool {
    // SAFETY: all zeros is a valid sigaction.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action sigaction only writes the old one, which outlives the call.
    unsafe { libc::sigaction(number, std::ptr::null(), &mut old) };
    old.sa_sigaction == libc::SIG_IGN
}
