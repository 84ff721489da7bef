//! Arguments in, exit code out. What happens in between is `cli`'s and `app`'s.

use std::process::ExitCode;

use remediator::cli;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(cli::typed()).await
}
