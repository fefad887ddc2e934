//! Signals that end a trace, or are passed on to the command that is traced.

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
        let hangup = (!is_ignored(libc::SIGHUP)).then(|| signal(SignalKind::hangup()));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: hangup.transpose()?,
        })
    }

    /// Waits for a signal and returns its number. Cancel-safe.
    pub async fn next(&mut self) -> i32 {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = hangup => libc::SIGHUP,
        }
    }
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
