//! Aligned columns of text, and the colours in them.

use unicode_width::UnicodeWidthStr as _;

pub const RED: &str = "\x1b[31m";
pub const BOLD_RED: &str = "\x1b[1;31m";
pub const YELLOW: &str = "\x1b[33m";
pub const DIM: &str = "\x1b[2m";
pub const PLAIN: &str = "\x1b[0m";

/// Columns on the screen that a text takes.
pub fn width_of(text: &str) -> usize {
    match text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        true => text.len(),
        false => text.width(),
    }
}

/// A line under construction. A value wider than its column borrows from the next ones, so that
/// the columns after them stay aligned.
#[derive(Default)]
pub struct Line {
    pub text: String,
    /// Columns on the screen that `text` takes.
    width: usize,
    /// Where the next column starts when nothing was too wide.
    next: usize,
}

impl Line {
    /// An empty line that uses the memory of another.
    pub fn within(mut text: String) -> Self {
        text.clear();
        Self {
            text,
            ..Self::default()
        }
    }

    pub fn put(&mut self, value: &str, width: usize, right: bool) {
        self.put_coloured(value, width, right, "");
    }

    /// `colour` is the escape sequence that begins it, empty for none.
    pub fn put_coloured(&mut self, value: &str, width: usize, right: bool, colour: &str) {
        let value_width = width_of(value);
        let end = self.next + width;
        let start = if right {
            end.saturating_sub(value_width)
        } else {
            self.next
        };
        if self.width < start {
            push_spaces(&mut self.text, start - self.width);
            self.width = start;
        } else if self.width > 0 && !self.text.ends_with(' ') {
            self.text.push(' ');
            self.width += 1;
        }
        let after = if colour.is_empty() { "" } else { PLAIN };
        for part in [colour, value, after] {
            self.text.push_str(part);
        }
        self.width += value_width;
        self.next = end + 1;
    }
}

/// Many at once, since they are a good part of a table.
fn push_spaces(text: &mut String, mut count: usize) {
    const SPACES: &str = "                                ";
    while count > 0 {
        let some = count.min(SPACES.len());
        text.push_str(&SPACES[..some]);
        count -= some;
    }
}
