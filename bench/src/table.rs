//! What was measured, as a table for people.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// What stands before and after the table in the paper.
const BEGIN: &str = "<!-- make bench -->\n";
const END: &str = "<!-- end -->\n";

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    pub what: String,
    pub measured: String,
    pub beside: String,
    pub ratio: String,
    pub goal: String,
    /// None: there is no goal, or it was not measured.
    pub met: Option<bool>,
}

#[derive(Debug, Default)]
pub struct Table(pub Vec<Row>);

impl Table {
    pub fn add(&mut self, row: Row) {
        let met = match row.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        println!("{} | {} | {} | {} | goal {} | {met}", row.what, row.measured, row.beside, row.ratio, row.goal);
        self.0.push(row);
    }

    /// Puts the table into the paper, with when and on what it was measured.
    ///
    /// # Errors
    /// The paper cannot be read or written, or has no place for it.
    pub fn write(&self, paper: &Path, rounds: usize) -> Result<()> {
        let text = std::fs::read_to_string(paper)?;
        let (before, rest) = text.split_once(BEGIN).context("the paper has no place for the table")?;
        let (_, after) = rest.split_once(END).context("the place for the table has no end")?;
        let commit = std::env::var("REMEDIATOR_COMMIT").unwrap_or_default();
        let measured = format!("{} rounds on {}; commit {commit}.\n\n", rounds, machine());
        std::fs::write(paper, format!("{before}{BEGIN}{measured}{}{END}{after}", self.markdown()))?;
        Ok(())
    }

    pub fn markdown(&self) -> String {
        let mut text = String::from("| measured | remediator | beside it | ratio | goal | |\n|---|---|---|---|---|---|\n");
        for Row { what, measured, beside, ratio, goal, met } in &self.0 {
            let met = match met {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "",
            };
            let _ = writeln!(text, "| {what} | {measured} | {beside} | {ratio} | {goal} | {met} |");
        }
        text
    }
}

/// Processors and memory, and how busy they were when the measurement ended: more than 1 beside it means that others were at
/// work.
fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let model = read("/proc/cpuinfo").lines().find_map(|line| Some(line.split_once("model name\t: ")?.1.to_owned()));
    let memory = read("/proc/meminfo").lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let load = read("/proc/loadavg").split(' ').nth(2).unwrap_or_default().to_owned();
    format!(
        "{cpus} × {}, {} GiB; load average of the last 15 minutes {load}",
        model.unwrap_or_else(|| "a processor".to_owned()),
        memory.unwrap_or(0) / 1024 / 1024
    )
}
