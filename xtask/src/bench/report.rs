//! What was measured: kept as JSON, shown as a table.

use std::fmt;
use std::process::Command;

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};

use super::Scale;
use crate::shell::read;

/// Measurements in the order in which they were made.
pub struct Report {
    setting: Value,
    lines: Vec<Line>,
}

struct Line {
    /// E.g. `churn`; the key in JSON.
    group: &'static str,
    name: String,
    shown: String,
    budget: &'static str,
    value: Value,
}

impl Report {
    pub fn new(probes: &str, scale: &Scale) -> Self {
        let uname = read(Command::new("uname").arg("-r")).unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        Self {
            setting: json!({
                "kernel": uname.trim(),
                "cpus": cpus,
                "probes": probes,
                "rounds": scale.rounds,
                "connections": scale.connections,
            }),
            lines: Vec::new(),
        }
    }

    /// Adds a measurement: how it is shown, the design's budget where there is one, and its JSON.
    pub fn add(
        &mut self,
        group: &'static str,
        name: &str,
        shown: String,
        budget: &'static str,
        value: Value,
    ) {
        self.lines.push(Line {
            group,
            name: name.into(),
            shown,
            budget,
            value,
        });
    }

    /// Adds what could not be measured.
    pub fn cannot(&mut self, group: &'static str, name: &str, error: &anyhow::Error) {
        let reason = format!("{error:#}")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let value = json!({ "cannot": reason });
        self.add(group, name, format!("could not: {reason}"), "", value);
    }

    /// # Errors
    /// Only when a value cannot be written as JSON.
    pub fn json(&self) -> Result<String> {
        let mut all = Map::new();
        all.insert("setting".into(), self.setting.clone());
        for line in &self.lines {
            all.entry(line.group)
                .or_insert_with(|| json!({}))
                .as_object_mut()
                .context("a group is an object")?
                .insert(line.name.clone(), line.value.clone());
        }
        Ok(serde_json::to_string_pretty(&all)? + "\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_header(["MEASURED", "OF", "RESULT", "BUDGET"]);
        for line in &self.lines {
            table.add_row([line.group, &line.name, &line.shown, line.budget]);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        write!(f, "{}", table.trim_fmt())
    }
}
