//! The `headgate` program: logging, then the command; the command's configuration, building, running and draining are
//! read from top to bottom in `cli` and `gateway`.

use clap::Parser as _;
use headgate::{
    cli::{Cli, Exit, Failure},
    telemetry,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

/// For webhooks and the admin listener; each source that reads a log has a thread of its own.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version are answers too. Where there is nobody to print to, the code has to do.
            let _ = answer.print();
            return if answer.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    if let Err(error) = telemetry::start_logging(&|name| std::env::var(name).ok(), cli.is_run()) {
        return Failure::usage(error).report();
    }
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Failure::internal(format!("cannot start: {error}")).report(),
        };
    // What panicked has said so on standard error; the exit code is that of every other defect.
    let done = catch_unwind(AssertUnwindSafe(|| runtime.block_on(cli.execute()))).unwrap_or_else(|_| {
        Err(Failure::internal("this is a defect of Headgate: please report the lines above"))
    });
    // A task that hangs (a blocked reader of standard input) must not hold the process up.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
