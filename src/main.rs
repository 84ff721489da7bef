//! Arguments in, exit code out. What happens in between is `cli`'s and `app`'s.

use std::process::ExitCode;
use std::time::Duration;

use remediator::cli;

/// For threads that a disk or a name server holds up: what could be finished has been waited for by then.
const LEAVE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = cli::typed();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("remediator: no threads to run on: {error}");
            return ExitCode::from(2);
        }
    };
    let code = runtime.block_on(cli::run(cli));
    runtime.shutdown_timeout(LEAVE);
    code
}
