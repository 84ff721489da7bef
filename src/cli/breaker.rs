//! `remediator breaker`: which remedies are not tried for now because they did not help, and closing one by hand.

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::api::board::Board;
use crate::cli::Exit;
use crate::cli::orders::actor;
use crate::cli::remote::{Asker, Need, Remote};
use crate::cli::terminal::{Screen, Style, clock, relative};
use crate::edge::redact::plain_line;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  remediator breaker list\n  remediator breaker reset inventory-fd-leak/inventory --reason 'rolled back'"
)]
pub struct BreakerArgs {
    #[command(subcommand)]
    command: BreakerCommand,
    #[command(flatten)]
    remote: Remote,
    /// Answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(clap::Subcommand, Debug)]
enum BreakerCommand {
    /// Every breaker, its state, and when it lets a probe through
    List,
    /// Close a breaker: the cause is repaired
    Reset {
        /// playbook/service
        name: String,
        /// Why; it goes into the journal
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Who orders it [default: you, at this host]
        #[arg(long, value_name = "NAME")]
        actor: Option<String>,
    },
}

/// `remediator breaker`
///
/// # Errors
/// It could not be asked.
pub async fn breaker(args: BreakerArgs) -> anyhow::Result<Exit> {
    let BreakerArgs { command, remote, json } = args;
    let answer = match command {
        BreakerCommand::List => return breakers(&remote.asker(Need::Read)?, json).await,
        BreakerCommand::Reset { name, reason, actor: who } => {
            let order = json!({ "breaker": name, "reason": reason, "actor": actor(who) });
            remote.asker(Need::Order)?.post("breaker/reset", &order).await
        }
    };
    match answer {
        Ok(answer) if json => println!("{answer}"),
        Ok(answer) => {
            let name = answer["reset"]["breaker"].as_str().unwrap_or_default();
            println!("reset: {} is closed and counts from nothing", plain_line(name, 300));
        }
        Err(failure) => return Ok(failure.tell(json)),
    }
    Ok(Exit::Fine)
}

async fn breakers(asker: &Asker, json: bool) -> anyhow::Result<Exit> {
    let answer = match asker.get("guards", &[]).await {
        Ok(answer) => answer,
        Err(failure) => return Ok(failure.tell(json)),
    };
    let board: Board = serde_json::from_value(answer).context("the answer cannot be read")?;
    let all: Vec<_> = board.playbooks.iter().map(|playbook| &playbook.breaker).collect();
    if json {
        println!("{}", json!({ "breakers": all }));
        return Ok(Exit::Fine);
    }
    let row = |breaker: &&crate::guard::view::BreakerNow| {
        let style = if breaker.state == "closed" { Style::Good } else { Style::Bad };
        let probe = match (breaker.probe, breaker.probe_at) {
            (Some(record), _) => format!("under way, record {record}"),
            (None, Some(at)) => format!("{} ({})", relative(at, board.at), clock(at)),
            (None, None) => String::new(),
        };
        let count = format!("{} of {}", breaker.failures, breaker.opens_at);
        vec![(Style::Plain, breaker.name.clone()), (style, breaker.state.clone()), (Style::Plain, count), (Style::Plain, probe)]
    };
    let mut screen = Screen::new();
    screen.table(&["BREAKER", "STATE", "NO HELP", "PROBE"], all.iter().map(row).collect());
    print!("{}", screen.text());
    Ok(Exit::Fine)
}
