//! What a person types. Every command answers with an exit code of three: 0 fine, 1 the answer is "no", 2 it could not
//! be asked (usage, files, network).
//!
//! To add a command: a module below, its `Args`, a variant of [`Command`] and its line in [`run`].

pub mod audit;
pub mod breaker;
pub mod check;
pub mod explain;
mod lines;
mod log;
pub mod orders;
mod out;
pub mod papers;
pub mod probe;
pub mod remote;
pub mod schema;
pub mod serve;
pub mod sim;
pub mod status;
mod terminal;
pub mod toil;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Repairs a recurring page without ever becoming the outage.
///
/// Receives alerts from Prometheus Alertmanager, asks Prometheus whether each is true, passes its guardrails, drains the
/// one sick replica from HAProxy, restarts its container, puts it back and checks by a query of its own that it helped.
/// In doubt it does nothing, and pages a human. Everything is in an audit log before it is done.
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
    /// Ask a running remediator whether it is alive, or ready (for a container's health check)
    Probe(probe::ProbeArgs),
    /// What a running remediator is doing, what it would do, what keeps it from it, and when it looks again
    Status(status::StatusArgs),
    /// Keep remediator from acting: on everything, for one playbook or on one target
    Pause(orders::PauseArgs),
    /// End a pause: that of everything, of one playbook or of one target
    Resume(orders::ResumeArgs),
    /// Break off one run that has not restarted anything yet, and put its server back
    Abort(orders::AbortArgs),
    /// List and close the breakers, which open when a remedy does not help
    Breaker(breaker::BreakerArgs),
    /// Read, search, follow and check the audit
    Audit(audit::AuditArgs),
    /// Print completions for a shell
    Completions(papers::CompletionsArgs),
    /// Write the man pages (for packages)
    #[command(hide = true)]
    Man(papers::ManArgs),
    /// Print the JSON Schema of a kind of file, for editors
    Schema(schema::SchemaArgs),
    /// What a page costs by hand, what the audit log says about the rest, and when it pays
    Toil(toil::ToilArgs),
    /// Run the program on a simulated world in which everything goes wrong, by seeds
    Sim(sim::SimArgs),
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

/// What was typed; a usage error, `--help` and `--version` end the program here, as [`Cli::parse`] would.
pub fn typed() -> Cli {
    let matches = papers::with_notes(Cli::command()).get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Runs the command; an error is one line on stderr, with its causes.
pub async fn run(cli: Cli) -> ExitCode {
    let ended = match cli.command {
        Command::Serve(args) => serve::serve(args).await,
        Command::Check(args) => check::check(args).await,
        Command::Explain(args) => explain::explain(args).await,
        Command::Probe(args) => probe::probe(args).await,
        Command::Status(args) => status::status(args).await,
        Command::Pause(args) => orders::pause(args).await,
        Command::Resume(args) => orders::resume(args).await,
        Command::Abort(args) => orders::abort(args).await,
        Command::Breaker(args) => breaker::breaker(args).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Completions(args) => papers::completions(Cli::command(), &args),
        Command::Man(args) => papers::man(Cli::command(), &args),
        Command::Schema(args) => schema::schema(&args),
        Command::Toil(args) => toil::toil(&args),
        Command::Sim(args) => tokio::task::block_in_place(|| sim::sim(&args)),
    };
    ended
        .unwrap_or_else(|error| {
            eprintln!("remediator: {error:#}");
            Exit::Failed
        })
        .into()
}
