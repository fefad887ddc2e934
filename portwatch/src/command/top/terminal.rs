//! The terminal, taken over and given back as it was.

use std::io::IsTerminal as _;
use std::ops::{Deref, DerefMut};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ratatui::DefaultTerminal;

use crate::command::{screen, signals};

/// A terminal that shows our screen. Dropped, it is as it was before; after a panic, too. `None` only then.
pub struct Terminal(Option<DefaultTerminal>);

impl Terminal {
    /// Whether there is a terminal that can be taken.
    ///
    /// # Errors
    /// Says what to do instead.
    pub fn check() -> Result<()> {
        let instead = "`portwatch trace` writes events as lines, `portwatch list` what is open now";
        if !std::io::stdout().is_terminal() {
            bail!("top needs a terminal, and stdout is none; {instead}");
        }
        if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
            bail!(
                "top needs a terminal that can move its cursor (TERM is dumb or empty); {instead}"
            );
        }
        // Whoever made it may be about to tell it.
        for _ in 0..10 {
            if screen::has_size(libc::STDOUT_FILENO) {
                return Ok(());
            }
            sleep(Duration::from_millis(50));
        }
        bail!("this terminal does not know its size; tell it: stty rows 24 cols 80")
    }

    pub fn enter() -> Result<Self> {
        let taken = Self(Some(ratatui::try_init().context("taking the terminal")?));
        let watch = std::thread::Builder::new().spawn(end_with_terminal);
        watch.context("starting a thread")?;
        Ok(taken)
    }

    /// Gives the terminal back to the shell, as Ctrl-Z does, and takes it again when it wakes us.
    pub fn suspend(&mut self) -> Result<()> {
        self.show_cursor().context("showing the cursor")?;
        ratatui::restore();
        signals::stop();
        // Only what is inside: dropping ourselves would give it back once more.
        self.0 = Some(ratatui::try_init().context("taking the terminal")?);
        Ok(())
    }
}

/// Ends the program when the terminal goes away. Mostly it has ended by then, since that comes with SIGHUP; but
/// what reads the keys may see it first, and tries to read for ever.
fn end_with_terminal() {
    let mut terminal = libc::pollfd {
        fd: libc::STDOUT_FILENO,
        // That it is gone is told without being asked.
        events: 0,
        revents: 0,
    };
    // SAFETY: one structure, which lives longer than the call.
    while unsafe { libc::poll(&raw mut terminal, 1, -1) } != 1 {}
    sleep(Duration::from_secs(1));
    std::process::exit(0);
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A panic has done so already, and the cursor must not go back over what it said.
        if !std::thread::panicking() && ratatui::try_restore().is_err() {
            // It is gone, and dropping what is inside would complain on stderr, which may be gone with it.
            std::mem::forget(self.0.take());
        }
    }
}

impl Deref for Terminal {
    type Target = DefaultTerminal;

    fn deref(&self) -> &DefaultTerminal {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl DerefMut for Terminal {
    fn deref_mut(&mut self) -> &mut DefaultTerminal {
        self.0.as_mut().expect("there until it is dropped")
    }
}
