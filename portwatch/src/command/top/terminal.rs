//! The terminal, taken over and given back as it was.

use std::io::IsTerminal as _;
use std::ops::{Deref, DerefMut};

use anyhow::{Context as _, Result, bail};
use ratatui::DefaultTerminal;

/// A terminal that shows our screen. Dropped, it is as it was before; after a panic, too.
pub struct Terminal(DefaultTerminal);

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
        Ok(())
    }

    pub fn enter() -> Result<Self> {
        ratatui::try_init().map(Self).context("taking the terminal")
    }

    /// Gives the terminal back to the shell, as Ctrl-Z does, and takes it again when it wakes us.
    pub fn suspend(&mut self) -> Result<()> {
        ratatui::restore();
        // SAFETY: no memory is involved; nothing handles the signal, so it stops this process.
        unsafe { libc::raise(libc::SIGTSTP) };
        // Only what is inside: dropping ourselves would give it back once more.
        self.0 = ratatui::try_init().context("taking the terminal")?;
        self.0.clear().context("clearing the terminal")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A panic has done so already, and the cursor must not go back over what it said.
        if !std::thread::panicking() {
            ratatui::restore();
        }
    }
}

impl Deref for Terminal {
    type Target = DefaultTerminal;

    fn deref(&self) -> &DefaultTerminal {
        &self.0
    }
}

impl DerefMut for Terminal {
    fn deref_mut(&mut self) -> &mut DefaultTerminal {
        &mut self.0
    }
}
