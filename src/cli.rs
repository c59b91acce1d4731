//! The command line: what is asked for, and how the answer leaves the process.
//!
//! Answers go to standard output, everything else to standard error. Every command ends with an exit code of sysexits.

mod check;
mod connector;
mod failure;
mod init;
mod paint;
mod run;
mod schema;
mod snapshot;
mod source;
mod status;
mod tail;
mod webhook;

pub use failure::{Exit, Failure};

use crate::config::{self, Config, ConfigError};
use clap::{CommandFactory as _, Parser, Subcommand};
use std::path::{Path, PathBuf};

/// Every database change as an ordered CloudEvent on NATS JetStream, once.
#[derive(Debug, Parser)]
#[command(
    name = "headgate",
    version,
    max_term_width = 100,
    after_help = "\
A first config.toml:
  [nats]
  url = \"embedded\"                # or nats://127.0.0.1:4222

  [sources.shop]
  connector = \"postgres\"
  url = \"postgres://cdc:${SHOP_PASSWORD}@127.0.0.1:5432/shop\"

Then:
  headgate init postgres://…        Have it written, and see what to fix first
  headgate check                    Will it work? What has to be fixed first?
  headgate run                      Run until Ctrl-C
  headgate tail shop.orders         Watch the events of one table
  headgate status                   How is each source?

Logs go to standard error: HEADGATE_LOG=debug, HEADGATE_LOG_FORMAT=json.
Exit codes: 0 done, 64 usage or configuration, 69 unavailable, 70 internal, 78
refused for safety."
)]
pub struct Cli {
    /// The configuration file
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "HEADGATE_CONFIG",
        hide_env_values = true,
        default_value = "./config.toml"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at a database, say what has to be fixed first, and write a configuration for it
    Init(init::Init),
    /// Check the configuration, the broker and every source, and say what to fix
    Check(check::Check),
    /// Run the gateway until Ctrl-C or SIGTERM
    #[command(after_help = "\
A broker or a database that is away is waited for; `headgate status` shows it.
The first Ctrl-C or SIGTERM drains and ends with 0 within
gateway.shutdown_grace; the second ends at once. Neither that nor kill -9 loses
or doubles an event: the next run goes on where the stream ends.

Health and metrics are on admin.listen: /livez, /readyz, /metrics, /status.")]
    Run,
    /// Show how each source of the running gateway is: state, lag, events, errors
    Status(status::Status),
    /// Show events as they arrive
    Tail(tail::Tail),
    /// Show the schemas of events, compare versions, validate events
    #[command(subcommand)]
    Schema(schema::Schema),
    /// Read tables, or part of one, into the stream beside the changes
    Snapshot(snapshot::Snapshot),
    /// Take a source away, or go on although some of its history is gone
    #[command(subcommand)]
    Source(source::Source),
    /// Webhook providers, test deliveries, dead letters
    #[command(subcommand)]
    Webhook(webhook::Webhook),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  headgate completions bash > /etc/bash_completion.d/headgate")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Cli {
    /// Whether this is the long-running command, whose news are logged.
    #[must_use]
    pub fn is_run(&self) -> bool {
        matches!(self.command, Command::Run)
    }

    /// Does what was asked for.
    ///
    /// # Errors
    /// What went wrong, what to do next, and the exit code.
    pub async fn execute(self) -> Result<(), Failure> {
        match self.command {
            Command::Run => run::run(load(&self.config)?).await,
            Command::Init(command) => Box::pin(command.execute(&self.config)).await,
            Command::Check(command) => command.execute(&self.config).await,
            Command::Status(command) => command.execute(&load(&self.config)?).await,
            Command::Tail(command) => command.execute(load(&self.config)?).await,
            Command::Schema(command) => command.execute(load(&self.config)?).await,
            Command::Snapshot(command) => command.execute(&load(&self.config)?).await,
            Command::Source(command) => command.execute(load(&self.config)?).await,
            Command::Webhook(command) => command.execute(&self.config).await,
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "headgate", &mut script);
                failure::print(&script)
            }
        }
    }
}

fn load(file: &Path) -> Result<Config, Failure> {
    read(file).map_err(|error| Failure::usage(error.to_string()))
}

fn read(file: &Path) -> Result<Config, ConfigError> {
    config::load(file, &|name| std::env::var(name).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line that a terminal of the usual width breaks loses its column.
    #[test]
    fn help_fits_eighty_columns() {
        fn look(command: &clap::Command, wide: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let too_wide = help.lines().filter(|line| line.chars().count() > 80);
            wide.extend(too_wide.map(|line| format!("{}: {line}", command.get_name())));
            command.get_subcommands().for_each(|command| look(command, wide));
        }
        let mut wide = Vec::new();
        look(&Cli::command(), &mut wide);
        assert_eq!(wide, Vec::<String>::new());
    }
}
