//! Signals that end a trace, or are passed on to the command that is traced; and those that stop a program
//! which has taken the terminal.

use std::io::Result;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use signal_hook::low_level::register;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock::boot;

pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None`: ignored from the start, as nohup(1) does.
    hangup: Option<Signal>,
}

impl Signals {
    /// From here on signals are waited for, and passed on to a command. A second one ends the program at
    /// once, whatever it does at that moment: a slow reader of our output must not be in its way.
    pub fn new() -> Result<Self> {
        let hangup = unless_ignored(SignalKind::hangup())?;
        for number in [libc::SIGINT, libc::SIGTERM] {
            let handle = move || {
                pass_on(number);
                end_if_second(number);
            };
            // SAFETY: atomic numbers, system calls, and the end of the program: all of it may be done in a handler.
            unsafe { register(number, handle) }?;
        }
        if hangup.is_some() {
            // SAFETY: as above.
            unsafe { register(libc::SIGHUP, || pass_on(libc::SIGHUP)) }?;
        }
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
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
            ending: Signals::new()?,
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

/// When a signal came that nobody has dealt with: milliseconds since the machine started; 0: there is none.
static FIRST: AtomicU64 = AtomicU64::new(0);

/// A signal was the command's, and the next one is no second one.
pub fn dealt_with() {
    FIRST.store(0, Ordering::Relaxed);
}

/// Ends the program by this signal if there was one before. timeout(1) sends it twice, to its command and then to
/// the group, which is one to its user.
fn end_if_second(number: i32) {
    const ONE: u64 = 500;
    let now = boot() / 1_000_000;
    let first = FIRST.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    if first.is_err_and(|first| now.saturating_sub(first) > ONE) {
        // It does not fail for these two.
        let _ = signal_hook::low_level::emulate_default_handler(number);
    }
}

/// The command that gets what we get; 0: none runs.
static COMMAND: AtomicI32 = AtomicI32::new(0);
/// What came while none ran; 0: nothing.
static EARLY: AtomicI32 = AtomicI32::new(0);

/// From here on this process gets our signals, and what came before.
pub fn pass_to(pid: u32) {
    COMMAND.store(pid.cast_signed(), Ordering::SeqCst);
    pass_early_on();
}

/// Nobody gets them any more.
pub fn pass_to_nobody() {
    COMMAND.store(0, Ordering::SeqCst);
}

/// Done in the handler: nothing that we wait for must be in the way of a signal to the command.
fn pass_on(number: i32) {
    match COMMAND.load(Ordering::SeqCst) {
        0 => {
            EARLY.store(number, Ordering::SeqCst);
            // It may run by now.
            pass_early_on();
        }
        // The terminal has sent it to the command as well.
        pid if number == libc::SIGINT && in_foreground(pid) => {}
        pid => send(pid, number),
    }
}

fn pass_early_on() {
    let pid = COMMAND.load(Ordering::SeqCst);
    if pid != 0 {
        match EARLY.swap(0, Ordering::SeqCst) {
            0 => {}
            early => send(pid, early),
        }
    }
}

fn send(pid: i32, number: i32) {
    // SAFETY: no memory involved; the process is our child and not waited for yet.
    unsafe { libc::kill(pid, number) };
}

/// Whether Ctrl-C in the terminal reaches this command, which may have a process group of its own.
fn in_foreground(command: i32) -> bool {
    // SAFETY: system calls on a path that ends with NUL and on our own descriptor.
    unsafe {
        let terminal = libc::open(c"/dev/tty".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let reached = terminal >= 0 && libc::tcgetpgrp(terminal) == libc::getpgid(command);
        libc::close(terminal);
        reached
    }
}

/// What we handle otherwise than a command is to.
const OURS: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD, libc::SIGXFSZ];
/// Which of these were ignored at the start, a bit each.
static IGNORED: AtomicU64 = AtomicU64::new(0);

/// To be called before anything else is done with signals. From here on a limit of the size of files is an error of
/// the write, as a full disk is, instead of the end of the program.
pub fn begin() {
    let ignored = OURS.into_iter().filter(|&number| is_ignored(number));
    IGNORED.store(ignored.map(|number| 1 << number).sum(), Ordering::Relaxed);
    // SAFETY: no handler of ours is involved.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Has the end of a child told to us: where SIGCHLD is ignored from the start, nothing is left to wait for.
pub fn notice_children() {
    // SAFETY: no handler of ours is involved.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Gives a command what was there at the start, between fork and exec.
pub fn give_back() {
    let ignored = IGNORED.load(Ordering::Relaxed);
    for number in OURS {
        let action = match ignored >> number & 1 {
            0 => libc::SIG_DFL,
            _ => libc::SIG_IGN,
        };
        // SAFETY: a system call that is safe between fork and exec.
        unsafe { libc::signal(number, action) };
    }
}

fn is_ignored(number: i32) -> bool {
    // SAFETY: all zeros is a valid sigaction.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action sigaction only writes the old one, which outlives the call.
    unsafe { libc::sigaction(number, std::ptr::null(), &mut old) };
    old.sa_sigaction == libc::SIG_IGN
}
