//! What a person types. Every command answers with an exit code of three: 0 fine, 1 the answer is "no", 2 it could not
//! be asked (usage, files, network).
//!
//! To add a command: a module below, its `Args`, a variant of [`Command`] and its line in [`run`].

pub mod audit;
pub mod check;
pub mod explain;
mod log;
pub mod probe;
pub mod serve;
pub mod sim;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Repairs a recurring page without ever becoming the outage.
#[derive(Debug, Parser)]
#[command(name = "remediator", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Receive alerts and remediate until told to stop
    Serve(serve::ServeArgs),
    /// Check configuration, playbooks and queries, on their own and against the world
    Check(check::CheckArgs),
    /// What would be decided about an alert, and what would have had to differ
    Explain(explain::ExplainArgs),
    /// Ask a running remediator whether it is ready (for a container's health check)
    Probe(probe::ProbeArgs),
    /// Run the program on a simulated world in which everything goes wrong, by seeds
    Sim(sim::SimArgs),
    /// Read and check the journal of a state directory
    Audit(audit::AuditArgs),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Fine,
    /// It was asked, and the answer is no.
    No,
    /// It could not be asked.
    Failed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Fine => 0,
            Exit::No => 1,
            Exit::Failed => 2,
        })
    }
}

/// Runs the command; an error is one line on stderr, with its causes.
pub async fn run(cli: Cli) -> ExitCode {
    let ended = match cli.command {
        Command::Serve(args) => serve::serve(args).await,
        Command::Check(args) => check::check(args).await,
        Command::Explain(args) => explain::explain(args).await,
        Command::Probe(args) => probe::probe(args).await,
        Command::Sim(args) => tokio::task::block_in_place(|| sim::sim(&args)),
        Command::Audit(args) => audit::run(args),
    };
    ended
        .unwrap_or_else(|error| {
            eprintln!("remediator: {error:#}");
            Exit::Failed
        })
        .into()
}
