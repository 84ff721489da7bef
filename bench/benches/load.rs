//! The load program. `load plain ADDR FILE` is reference (b), which it starts itself.

#![allow(clippy::disallowed_methods, reason = "what is measured is real time, and the environment says what to measure")]

use std::path::Path;

use anyhow::{Result, bail};
use remediator_bench::rows::{Effort, acceptance, size, storm, walk};
use remediator_bench::table::Table;

const ROWS: [&str; 10] =
    ["single", "offered", "sustained", "hundreds", "folds", "storms", "decisions", "restarts", "killed", "store"];

/// Fewer rounds than this are not written down.
const PAPER_ROUNDS: usize = 5;

/// `STORES=1000000`: sizes of the journals that are searched, in records.
async fn store(table: &mut Table, effort: Effort) -> Result<()> {
    let sizes = std::env::var("STORES").unwrap_or_else(|_| "1000000,10000000".to_owned());
    for records in sizes.split(',').filter(|size| !size.is_empty()) {
        size::store(table, effort, records.parse()?).await?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [plain, addr, file] = arguments.as_slice()
        && plain == "plain"
    {
        return remediator_bench::plain::serve(addr.parse()?, Path::new(file));
    }
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    let effort = Effort { rounds, episodes: 4_000 };
    let wanted = |row: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == row);
    if let Some(unknown) = arguments.iter().find(|argument| !ROWS.contains(&argument.as_str()) && *argument != "idle") {
        bail!("{unknown}: there are {ROWS:?} and idle");
    }
    let mut table = Table::default();
    // Two workers, as the machine has processors: the callers and the fakes are not to crowd out what they call.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for row in ROWS.into_iter().chain(["idle"]).filter(|row| wanted(row)) {
        runtime.block_on(async {
            match row {
                "single" => acceptance::single(&mut table, effort).await,
                "offered" => acceptance::offered(&mut table, effort).await,
                "sustained" => acceptance::sustained(&mut table, effort).await,
                "hundreds" => acceptance::hundreds(&mut table, effort).await,
                "folds" => acceptance::folds(&mut table, effort).await,
                "killed" => acceptance::killed(&mut table, effort).await,
                "storms" => storm::storms(&mut table, effort).await,
                "decisions" => Ok(()),
                "restarts" => walk::restarts(&mut table, effort).await,
                "store" => store(&mut table, effort).await,
                _ => size::idle(&mut table).await,
            }
        })?;
        if row == "decisions" {
            walk::decisions(&mut table, effort)?;
        }
    }
    println!("\n{}", table.markdown());
    // Parts of a table, and quick ones, are for whoever tries something out.
    if let Some(paper) = std::env::var_os("PAPER").filter(|_| arguments.is_empty() && rounds >= PAPER_ROUNDS) {
        table.write(Path::new(&paper), rounds)?;
    }
    Ok(())
}
