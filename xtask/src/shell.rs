//! Running other programs, with errors that name the command.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Tells on stderr what is being done.
pub fn say(message: impl AsRef<str>) {
    eprintln!("xtask: {}", message.as_ref());
}

/// Runs to the end. Its stdout goes to our stderr, so that ours holds results only.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("running {}", line(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// Runs to the end and gives its stdout.
///
/// # Errors
/// When it cannot be started or does not succeed; the error holds its stderr.
pub fn read(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", line(command)))?;
    if !status.success() {
        bail!(
            "{} failed: {status}\n{}",
            line(command),
            String::from_utf8_lossy(&stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// The command as one would type it, shortened.
fn line(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    let text = words.join(" ");
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}
