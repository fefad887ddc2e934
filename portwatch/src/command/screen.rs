//! What our output is shown on, if it is a screen.

use std::io::IsTerminal as _;

use crate::view::lines::Style;
use crate::view::time;

/// Whether what is written goes to a terminal.
pub fn is_shown(to_stdout: bool) -> bool {
    to_stdout && std::io::stdout().is_terminal()
}

/// Whether what is written may be coloured.
pub fn is_coloured(to_stdout: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|x| !x.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|x| x == "dumb");
    is_shown(to_stdout) && !dumb && !set("NO_COLOR")
}

/// How text looks depends on whether someone looks at it. `home`: the
/// network namespace that goes without saying.
pub fn style(numeric: bool, to_stdout: bool, home: Option<u32>) -> Style {
    Style {
        colour: is_coloured(to_stdout),
        numeric,
        wide: is_shown(to_stdout) && width(libc::STDOUT_FILENO).is_some_and(|width| width >= 140),
        zone: time::local(),
        netns: home,
    }
}

/// Columns of the terminal that this descriptor is; `None` when it is none, or does not know.
pub fn width(descriptor: i32) -> Option<u16> {
    size(descriptor)
        .map(|size| size.ws_col)
        .filter(|&columns| columns != 0)
}

/// Whether this descriptor is a terminal that knows its size.
pub fn has_size(descriptor: i32) -> bool {
    size(descriptor).is_some_and(|size| size.ws_col != 0 && size.ws_row != 0)
}

fn size(descriptor: i32) -> Option<libc::winsize> {
    // SAFETY: all zeros is a valid winsize.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes a winsize, which lives until after the call.
    let result = unsafe { libc::ioctl(descriptor, libc::TIOCGWINSZ, &mut size) };
    (result == 0).then_some(size)
}
