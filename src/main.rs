//! Arguments in, exit code out. What happens in between is `cli`'s and `app`'s.

use std::process::ExitCode;

use clap::Parser as _;
use remediator::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Cli::parse()).await
}
