//! Rows for people: a table as wide as its values need, and no wider than the screen.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use jiff::tz::TimeZone;

use super::cell::Cell;
use crate::event::Field;
use crate::row::{Column, Row};
use crate::usual;
use crate::view::columns::{DIM, Line, YELLOW, width_of};

/// How the table looks, and what it need not say.
#[derive(Clone, Debug)]
pub struct Style {
    pub colour: bool,
    /// Numbers instead of names of users and services.
    pub numeric: bool,
    /// Columns of the screen.
    pub width: usize,
    /// Of the times.
    pub zone: TimeZone,
    /// Nanoseconds since the Unix epoch.
    pub now: u64,
    /// The network namespace that goes without saying.
    pub netns: Option<u32>,
    /// Names of other network namespaces.
    pub netns_names: HashMap<u32, String>,
}

/// Room for the name of a service.
const SERVICE: usize = 8;

/// Which columns there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Only servers: nothing about state and peers.
    Servers,
    All,
    Chosen(Vec<Column>),
}

#[derive(Debug)]
struct Head {
    title: String,
    cell: Cell,
    /// Most it takes when the screen is too narrow.
    narrow: usize,
}

#[derive(Debug)]
pub struct Text {
    layout: Layout,
    style: Style,
}

impl Text {
    pub fn new(layout: Layout, style: Style) -> Self {
        Self { layout, style }
    }

    /// Appends header and rows.
    pub fn put(&self, out: &mut Vec<u8>, rows: impl IntoIterator<Item = Row>) {
        let heads = self.heads();
        let mut cells = Cells::new(heads.len());
        for row in rows {
            for head in &heads {
                head.cell.put(&mut cells.text, &row, &self.style);
                cells.end();
            }
            cells.notes.push(usual::note(&row));
        }
        let shown: Vec<usize> = (0..heads.len())
            .filter(|&at| match heads[at].cell {
                Cell::Place | Cell::Since => cells.filled[at],
                _ => true,
            })
            .collect();
        let widths = self.widths(&heads, &cells, &shown);
        let line: usize = shown.iter().map(|&at| widths[at] + 1).sum();
        out.reserve((cells.notes.len() + 1) * (line + SERVICE));
        let mut line = Line::default();
        for &at in &shown {
            let colour = if self.style.colour { DIM } else { "" };
            line.put_coloured(&heads[at].title, widths[at], heads[at].cell.right(), colour);
        }
        line = put_line(out, line);
        for (number, note) in cells.notes.iter().enumerate() {
            for &at in &shown {
                line.put(cells.get(number, at), widths[at], heads[at].cell.right());
                if heads[at].cell == Cell::Service
                    && let Some(note) = note
                {
                    let colour = if self.style.colour { YELLOW } else { "" };
                    line.put_coloured(&format!("!{note}"), 0, false, colour);
                }
            }
            line = put_line(out, line);
        }
    }

    fn heads(&self) -> Vec<Head> {
        let head = |title: &str, cell, narrow| Head {
            title: title.to_owned(),
            cell,
            narrow,
        };
        let field = |field| Cell::Column(Column::Event(field));
        let proto = head("PROTO", field(Field::Proto), 5);
        let pid = head("PID", field(Field::Pid), 7);
        let queue = head("QUEUE", Cell::Queue, 6);
        let place = head("WHERE", Cell::Place, 12);
        let service = head("SERVICE", Cell::Service, 0);
        match &self.layout {
            Layout::Servers => vec![
                proto,
                head("LOCAL", Cell::Local, 18),
                pid,
                head("COMM", field(Field::Comm), 12),
                head("USER", Cell::User, 8),
                head("SINCE", Cell::Since, 5),
                queue,
                place,
                service,
            ],
            Layout::All => vec![
                proto,
                head("STATE", Cell::Column(Column::State), 10),
                head("LOCAL", Cell::Local, 15),
                head("REMOTE", Cell::Remote, 15),
                pid,
                head("COMM", field(Field::Comm), 12),
                queue,
                place,
                service,
            ],
            Layout::Chosen(columns) => (columns.iter())
                .map(|&column| {
                    let title = column.as_str().to_uppercase();
                    head(&title, Cell::Column(column), 30)
                })
                .collect(),
        }
    }

    /// What each column takes: what its widest value needs, or less when they do not all fit. A
    /// wider value then borrows from the columns behind.
    fn widths(&self, heads: &[Head], cells: &Cells, shown: &[usize]) -> Vec<usize> {
        let mut widths: Vec<usize> = (heads.iter().enumerate())
            .map(|(at, head)| match head.cell {
                // the last one, which ends where it ends
                Cell::Service => 0,
                _ => cells.widest[at].max(head.title.len()),
            })
            .collect();
        let total: usize = shown.iter().map(|&at| widths[at] + 1).sum();
        let mut excess = (total + SERVICE).saturating_sub(self.style.width);
        for &at in shown {
            let least = heads[at].narrow.max(heads[at].title.len());
            let less = widths[at].saturating_sub(least).min(excess);
            widths[at] -= less;
            excess -= less;
        }
        widths
    }
}

/// All values of the table in one piece of memory, row by row.
struct Cells {
    text: String,
    /// Where each value ends.
    ends: Vec<usize>,
    /// Of each column: columns of the screen that its widest value takes, and whether any row has
    /// something there.
    widest: Vec<usize>,
    filled: Vec<bool>,
    /// What is unusual about each row.
    notes: Vec<Option<String>>,
}

impl Cells {
    fn new(columns: usize) -> Self {
        Self {
            text: String::new(),
            ends: Vec::new(),
            widest: vec![0; columns],
            filled: vec![false; columns],
            notes: Vec::new(),
        }
    }

    /// What was put into `text` since the last one is the next value.
    fn end(&mut self) {
        let at = self.ends.len();
        self.ends.push(self.text.len());
        let value = self.value(at);
        let (width, filled) = (width_of(value), value != "-");
        let column = at % self.widest.len();
        self.widest[column] = self.widest[column].max(width);
        self.filled[column] |= filled;
    }

    fn get(&self, row: usize, column: usize) -> &str {
        self.value(row * self.widest.len() + column)
    }

    fn value(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[at]]
    }
}

/// Appends the line, and gives back an empty one.
fn put_line(out: &mut Vec<u8>, line: Line) -> Line {
    out.extend_from_slice(line.text.trim_end().as_bytes());
    out.push(b'\n');
    Line::within(line.text)
}

#[cfg(test)]
impl Style {
    /// In November 2023.
    pub fn sample() -> Self {
        Self {
            colour: false,
            numeric: false,
            width: 80,
            zone: TimeZone::UTC,
            now: 1_700_000_000_000_000_000,
            netns: Some(1),
            netns_names: HashMap::from([(3, "blue".to_owned())]),
        }
    }
}
