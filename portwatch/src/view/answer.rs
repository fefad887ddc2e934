//! Rows that SQL gave, one by one: as an aligned table, as JSON, as CSV.

use std::borrow::Cow;

use rusqlite::types::ValueRef;
use serde::de::IgnoredAny;
use serde_json::Value as Json;

use crate::cli::Output;
use crate::sanitize;
use crate::view::columns::{DIM, Line, width_of};
use crate::view::json::{put_json, put_text};
use crate::view::lines::csv;

/// Rows that tell how wide the columns of a table are.
const SAMPLE: usize = 1000;
/// A wider value borrows from the columns behind it.
const WIDEST: usize = 48;
/// Columns that hold JSON as text.
const NESTED: [&str; 8] = [
    "args", "parents", "holders", "accounts", "plan", "clock", "command", "columns",
];

/// Turns rows into lines.
pub struct Answer {
    columns: Vec<String>,
    output: Output,
    colour: bool,
    table: Table,
    /// On a terminal.
    shown: bool,
}

/// An aligned table whose first rows are held back until it is known how wide they are.
#[derive(Default)]
struct Table {
    sample: Vec<Vec<(String, Side)>>,
    /// Width of each column, and whether numbers stand there; empty until they are known.
    shape: Vec<(usize, bool)>,
}

/// Where a value asks to stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
    Any,
}

impl Answer {
    /// `shown`: on a terminal, maybe in colour.
    pub fn new(columns: Vec<String>, output: Output, shown: bool, colour: bool) -> Self {
        Self {
            columns: match output {
                Output::Json => distinct(columns),
                _ => columns,
            },
            output,
            colour,
            table: Table::default(),
            shown,
        }
    }

    /// Appends what comes before the first row.
    pub fn header(&self, out: &mut Vec<u8>) {
        if self.output == Output::Csv {
            for (at, name) in self.columns.iter().enumerate() {
                self.put_cell(out, at, "", name.as_bytes());
            }
            out.push(b'\n');
        }
    }

    /// Appends a row, or keeps it for a while; a value for each column.
    pub fn row(&mut self, out: &mut Vec<u8>, row: &[ValueRef<'_>]) {
        match self.output {
            Output::Json => self.put_object(out, row),
            Output::Csv => {
                for (at, (name, value)) in self.columns.iter().zip(row).enumerate() {
                    self.put_cell(out, at, name, &text(name, *value).unwrap_or_default());
                }
                out.push(b'\n');
            }
            Output::Text => {
                let cells = self.columns.iter().zip(row).map(|(name, &value)| {
                    let side = match value {
                        ValueRef::Null => Side::Any,
                        ValueRef::Integer(_) | ValueRef::Real(_) => Side::Right,
                        _ => Side::Left,
                    };
                    let text = text(name, value).map(|bytes| harmless(name, &bytes));
                    (text.unwrap_or_else(|| "-".into()), side)
                });
                let cells = cells.collect();
                if self.table.shape.is_empty() {
                    self.table.sample.push(cells);
                    if self.table.sample.len() >= SAMPLE {
                        self.put_sample(out);
                    }
                } else {
                    self.table.put(out, &cells);
                }
            }
        }
    }

    /// Appends what was kept.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if self.output == Output::Text && self.table.shape.is_empty() {
            self.put_sample(out);
        }
    }

    fn put_sample(&mut self, out: &mut Vec<u8>) {
        let titles: Vec<String> = (self.columns.iter())
            .map(|name| sanitize::text(name.to_uppercase().as_bytes()))
            .collect();
        let sample = std::mem::take(&mut self.table.sample);
        self.table.shape = (titles.iter().enumerate())
            .map(|(at, title)| {
                let widest = sample.iter().map(|row| width_of(&row[at].0)).max();
                let width = widest.unwrap_or(0).min(WIDEST).max(width_of(title));
                let sides = || sample.iter().map(|row| row[at].1);
                let right = sides().any(|x| x == Side::Right) && sides().all(|x| x != Side::Left);
                (width, right)
            })
            .collect();
        let mut line = Line::default();
        for (title, &(width, right)) in titles.iter().zip(&self.table.shape) {
            line.put_coloured(title, width, right, if self.colour { DIM } else { "" });
        }
        put_line(out, &line);
        for row in &sample {
            self.table.put(out, row);
        }
    }

    fn put_cell(&self, out: &mut Vec<u8>, at: usize, name: &str, text: &[u8]) {
        if at > 0 {
            out.push(b',');
        }
        let text = match self.shown {
            true => harmless(name, text).into(),
            false => sanitize::utf8(text),
        };
        csv::put_quoted(out, text.as_bytes());
    }

    fn put_object(&self, out: &mut Vec<u8>, row: &[ValueRef<'_>]) {
        out.push(b'{');
        for (at, (name, &value)) in self.columns.iter().zip(row).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            put_text(out, name);
            out.push(b':');
            put_json(out, &json_of(name, value));
        }
        out.extend_from_slice(b"}\n");
    }
}

impl Table {
    fn put(&self, out: &mut Vec<u8>, row: &[(String, Side)]) {
        let mut line = Line::default();
        for ((cell, _), &(width, right)) in row.iter().zip(&self.shape) {
            line.put(cell, width, right);
        }
        put_line(out, &line);
    }
}

fn put_line(out: &mut Vec<u8>, line: &Line) {
    out.extend_from_slice(line.text.trim_end().as_bytes());
    out.push(b'\n');
}

/// Text of this column as it may be shown. JSON has escapes of its own.
fn harmless(name: &str, bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if NESTED.contains(&name) && serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            sanitize::escaped(text)
        }
        // Stored as it came in; but for comms, which are stored as they are.
        Ok(text) if name != "comm" => sanitize::string(text),
        _ => sanitize::text(bytes),
    }
}

/// Names that differ, as keys of an object have to: the second `x` is `x:1`.
fn distinct(names: Vec<String>) -> Vec<String> {
    let mut known: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let numbered = (1..).map(|number| format!("{name}:{number}"));
        let mut free = std::iter::once(name.clone()).chain(numbered);
        // There is always a further number.
        known.extend(free.find(|x| !known.contains(x)));
    }
    known
}

/// A value as text, maybe hostile and no UTF-8; `None` for NULL.
fn text<'a>(name: &str, value: ValueRef<'a>) -> Option<Cow<'a, [u8]>> {
    Some(match value {
        ValueRef::Null => return None,
        ValueRef::Integer(number) => number.to_string().into_bytes().into(),
        ValueRef::Real(number) => real(number)
            .map_or_else(|| number.to_string(), |x| x.to_string())
            .into_bytes()
            .into(),
        ValueRef::Text(bytes) => bytes.into(),
        ValueRef::Blob(bytes) if name == "comm" => comm(bytes).into(),
        ValueRef::Blob(bytes) => hex(bytes).into_bytes().into(),
    })
}

fn json_of(name: &str, value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => real(number).map_or(Json::Null, Json::Number),
        ValueRef::Text(bytes) => {
            let nested = NESTED.contains(&name);
            let parsed = nested.then(|| serde_json::from_slice(bytes).ok()).flatten();
            parsed.unwrap_or_else(|| sanitize::utf8(bytes).into())
        }
        ValueRef::Blob(bytes) if name == "comm" => sanitize::utf8(comm(bytes)).into(),
        ValueRef::Blob(bytes) => hex(bytes).into(),
    }
}

/// `None`: not a number, or infinite, which JSON does not have.
fn real(number: f64) -> Option<serde_json::Number> {
    serde_json::Number::from_f64(number)
}

/// A comm that is not UTF-8 is stored as the kernel has it, with NUL behind it.
fn comm(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
