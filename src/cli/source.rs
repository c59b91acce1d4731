//! `headgate source`: what a source leaves in the database and in the broker, and what it waits for somebody to accept: gaps in
//! its history, new shapes of its tables.

use super::{Failure, connector, failure::print};
use crate::{
    broker::{self, Patience},
    config::{self, Config, Connector},
    publish, schema, snapshot,
};
use async_nats::jetstream::{self, Context};
use clap::Subcommand;
use headgate_sdk::{Fault, FaultKind};
use std::io::{IsTerminal as _, Write as _};

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum Source {
    /// Remove what a source keeps in the database (slot, publications) or in data_dir (webhooks), and its checkpoint in the broker
    #[command(after_help = "\
Stop the gateway first: a slot that is being read stays, and so does what a
gateway has of a webhook. The broker has to be reachable. The stream with the
events stays; a source of the same name that is added again begins with a gap,
unless it is a webhook.

Example:
  headgate source drop shop --yes")]
    Drop {
        /// The source, as in [sources.NAME]
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Go on after a gap, although some changes are not in the stream and never will be
    #[command(
        name = "accept-gap",
        after_help = "\
A source whose state is `gap` waits for this. What is missing is told by the
`gap` event in its stream:
  headgate tail shop.headgate.gap --from start --json

Example:
  headgate source accept-gap shop"
    )]
    AcceptGap {
        /// The source, as in [sources.NAME]
        name: String,
    },
    /// Go on with a table whose shape changed in a way that is not compatible
    #[command(
        name = "accept-schema",
        after_help = "\
A source with on_incompatible = \"stop\" waits for this before the first event of
the new shape. `headgate status` shows the table and what changed. The running
gateway looks for it every half minute.

Examples:
  headgate source accept-schema shop
  headgate source accept-schema shop public.orders"
    )]
    AcceptSchema {
        /// The source, as in [sources.NAME]
        name: String,
        /// The table, or a glob on schema.table [default: every table that waits]
        table: Option<String>,
    },
}

impl Source {
    pub(super) async fn execute(self, config: Config) -> Result<(), Failure> {
        match self {
            Self::Drop { name, yes } => {
                let source = find(&config, &name)?;
                let question = match source.connector {
                    Connector::Webhook(_) => {
                        "Forget what its provider gave in handshakes, and its bookmarks, of"
                    }
                    _ => "Its place in the log will be lost. Drop the slot and the checkpoint of",
                };
                confirm(&name, question, yes)?;
                // The broker first: were it away, a dropped slot with a checkpoint left would look like a gap.
                let context = connect(&config).await?;
                let removed =
                    connector::drop_source(&config, &name, source).await.map_err(|fault| failure(&fault))?;
                publish::forget(&context, &name).await.map_err(|fault| failure(&fault))?;
                snapshot::forget(&context, &name).await.map_err(|fault| failure(&fault))?;
                schema::forget(&context, &name).await.map_err(|error| {
                    Failure::unavailable(format!("cannot forget the shapes of its tables: {error}"))
                })?;
                let mut text: String = removed.iter().map(|what| format!("dropped {what}\n")).collect();
                let what = match source.connector {
                    Connector::Webhook(_) => "dropped",
                    _ => "forgot the checkpoint of",
                };
                text.push_str(&format!("{what} {name}; the stream {} stays\n", publish::stream_name(&name)));
                print(text.as_bytes())
            }
            Self::AcceptGap { name } => {
                find(&config, &name)?;
                let context = connect(&config).await?;
                match publish::accept_gap(&context, &name).await.map_err(|fault| failure(&fault))? {
                    Some(gap) => print(
                        format!(
                            "accepted for {name}: {gap}; a running gateway goes on within half a minute\n"
                        )
                        .as_bytes(),
                    ),
                    None => Err(Failure::refused(format!("{name} has no gap to accept"))
                        .with_fix("headgate status shows what holds the source up")),
                }
            }
            Self::AcceptSchema { name, table } => {
                find(&config, &name)?;
                let context = connect(&config).await?;
                let accepted = schema::accept(&context, &name, table.as_deref())
                    .await
                    .map_err(|error| Failure::unavailable(format!("cannot accept: {error}")))?;
                if accepted.is_empty() {
                    let what = table.map_or_else(|| name.clone(), |table| format!("{table} of {name}"));
                    return Err(Failure::refused(format!("{what} has no new shape to accept"))
                        .with_fix("headgate status shows what holds the source up"));
                }
                let line = |(table, changes): &(String, Vec<String>)| {
                    format!("accepted for {table}: {}\n", changes.join("; "))
                };
                print(accepted.iter().map(line).collect::<String>().as_bytes())
            }
        }
    }
}

fn find<'a>(config: &'a Config, name: &str) -> Result<&'a config::Source, Failure> {
    config.sources.get(name).ok_or_else(|| {
        let known = config.sources.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        Failure::usage(format!("the configuration has no source {name}")).with_fix(format!("known: {known}"))
    })
}

async fn connect(config: &Config) -> Result<Context, Failure> {
    let name = format!("{} source", config.gateway.name);
    match broker::connect(&config.nats, &name, Patience::Once).await {
        Ok((client, _)) => Ok(jetstream::new(client)),
        Err(error) => Err(Failure::unavailable(error.to_string()).with_fix(error.fix())),
    }
}

/// Asks on a terminal; refuses where nobody can be asked.
fn confirm(name: &str, question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::refused(format!("dropping {name} is for good, and nobody can be asked"))
            .with_fix("add --yes"));
    }
    let mut err = std::io::stderr();
    let _ = write!(err, "{question} {name}? [y/N] ");
    let _ = err.flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::refused("nothing was dropped")),
    }
}

fn failure(fault: &Fault) -> Failure {
    let failure = match fault.kind() {
        FaultKind::Transient | FaultKind::Definite => Failure::unavailable(fault.to_string()),
        FaultKind::Busy | FaultKind::Gap => Failure::refused(fault.to_string()),
    };
    match fault.fix() {
        Some(fix) => failure.with_fix(fix),
        None => failure,
    }
}
