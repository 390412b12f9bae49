//! The table: printed for people, written for programs.

use std::fs;
use std::io::Write as _;

use serde::Serialize;

use crate::harness::Must as _;
use crate::harness::folder::kept_logs_folder;

/// Decimals that are kept of a value.
const PRECISION: f64 = 1000.0;

/// One line of the table.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    /// None: the value is reported only.
    goal: Option<String>,
    met: Option<bool>,
}

/// What a value should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Goal {
    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {limit}"),
            Self::AtLeast(limit) => format!(">= {limit}"),
        }
    }

    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a value that should reach a goal.
    pub(crate) fn goal(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.add(name.into(), value, unit, Some(goal));
    }

    /// Adds a value for information.
    pub(crate) fn value(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.add(name.into(), value, unit, None);
    }

    fn add(&mut self, name: String, value: f64, unit: &'static str, goal: Option<Goal>) {
        let value = (value * PRECISION).round() / PRECISION;
        self.rows.push(Row { name, value, unit, goal: goal.map(Goal::text), met: goal.map(|goal| goal.is_met(value)) });
    }

    /// Prints the table and writes `bench.json` into cargo's target folder.
    pub(crate) fn publish(&self) {
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
        let mut table = format!("{:width$}  {:>12}  {:<9}  {:<8}  met\n", "", "value", "unit", "goal");
        for Row { name, value, unit, goal, met } in &self.rows {
            let goal = goal.as_deref().unwrap_or("");
            let met = met.map_or("", |met| if met { "yes" } else { "NO" });
            table.push_str(&format!("{name:width$}  {value:>12.3}  {unit:<9}  {goal:<8}  {met}\n"));
        }
        std::io::stdout().write_all(table.as_bytes()).must("printing the table");
        let file = kept_logs_folder().with_file_name("bench.json");
        let json = serde_json::to_vec_pretty(&self.rows).must("encoding the table");
        fs::write(&file, json).must(format_args!("writing {}", file.display()));
        crate::say(&format!("written to {}", file.display()));
    }
}
