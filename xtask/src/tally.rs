//! What ran, where, and how it went: collected by every part of `cargo xtask test`, shown as one table.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

/// One row: a part of the tests in one place.
pub struct Row {
    /// E.g. `scenarios`.
    pub what: &'static str,
    /// E.g. `6.1.0-50`, `here`.
    pub place: String,
    /// E.g. `kprobe`; empty where that means nothing.
    pub tier: String,
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
    pub took: Duration,
    /// Why something failed or could not run, each in one line.
    pub notes: Vec<String>,
}

impl Row {
    pub fn new(what: &'static str, place: impl Into<String>, tier: impl Into<String>) -> Self {
        Self {
            what,
            place: place.into(),
            tier: tier.into(),
            passed: 0,
            failed: 0,
            skipped: 0,
            took: Duration::ZERO,
            notes: Vec::new(),
        }
    }

    pub fn pass(&mut self) {
        self.passed += 1;
    }

    pub fn fail(&mut self, reason: impl fmt::Display) {
        self.failed += 1;
        self.notes.push(format!("FAILED {reason}"));
    }

    pub fn skip(&mut self, reason: impl fmt::Display) {
        self.skipped += 1;
        self.notes.push(format!("could not {reason}"));
    }

    /// Something failed and was tried again; how that went is counted besides.
    pub fn again(&mut self, reason: impl fmt::Display) {
        self.notes.push(format!("tried twice: {reason}"));
    }

    fn result(&self) -> &'static str {
        match (self.passed, self.failed) {
            (_, 1..) => "FAILED",
            (0, 0) => "could not",
            _ => "ok",
        }
    }
}

/// All rows, in the order in which they are shown.
#[derive(Default)]
pub struct Tally {
    pub rows: Vec<Row>,
}

impl Tally {
    fn sum(&self, of: impl Fn(&Row) -> u32) -> u32 {
        self.rows.iter().map(of).sum()
    }

    pub fn failed(&self) -> u32 {
        self.sum(|row| row.failed)
    }
}

impl fmt::Display for Tally {
    /// The table, then every reason, then the line of totals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header([
            "WHAT", "WHERE", "TIER", "RESULT", "PASSED", "FAILED", "SKIPPED", "SECONDS",
        ]);
        for row in &self.rows {
            table.add_row([
                row.what.to_string(),
                row.place.clone(),
                row.tier.clone(),
                row.result().to_string(),
                row.passed.to_string(),
                row.failed.to_string(),
                row.skipped.to_string(),
                format!("{:.1}", row.took.as_secs_f64()),
            ]);
        }
        for column in table.column_iter_mut().skip(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        writeln!(f, "{}", table.trim_fmt())?;
        writeln!(f)?;
        for row in &self.rows {
            for note in &row.notes {
                let tier = if row.tier.is_empty() {
                    String::new()
                } else {
                    format!(" {}", row.tier)
                };
                writeln!(f, "{} {}{tier}: {note}", row.what, row.place)?;
            }
        }
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.sum(|row| row.passed),
            self.failed(),
            self.sum(|row| row.skipped)
        )
    }
}
