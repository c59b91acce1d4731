//! `headgate webhook`: the providers that are known, a signed test delivery, making a webhook, what was missed, dead letters published again.

mod access;
mod arrived;
mod bookmark;
mod list;
mod reconcile;
mod register;
mod replay;
mod secret_file;
mod send;
mod show;

use super::{Failure, failure::print, load};
use crate::config::{Config, Connector, Webhook as Settings};
use clap::Subcommand;
use headgate_webhook::{Catalog, Provider, Registration};
use serde::Serialize;
use std::path::Path;

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum Webhook {
    /// Show the providers that `provider` can name
    List(list::List),
    /// Show what a provider needs: secret, parameters, and what to set on its side
    Show(show::Show),
    /// Sign a sample as the source's provider would, and post it to the running gateway
    Send(send::Send),
    /// Make the webhook by the provider's API, or say what has to be set there
    Register(register::Register),
    /// Find by the provider's API what it never delivered, and have it delivered
    Reconcile(reconcile::Reconcile),
    /// Publish a source's dead letters again
    Replay(replay::Replay),
}

impl Webhook {
    pub(super) async fn execute(self, file: &Path) -> Result<(), Failure> {
        match self {
            Self::List(command) => command.execute(&catalog(file)?),
            Self::Show(command) => command.execute(&catalog(file)?, config(file).as_ref()),
            Self::Send(command) => command.execute(&load(file)?).await,
            Self::Register(command) => command.execute(file).await,
            Self::Reconcile(command) => command.execute(&load(file)?).await,
            Self::Replay(command) => command.execute(&load(file)?).await,
        }
    }
}

/// Prints what a script reads, as one line.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_vec(value).map_err(|error| Failure::internal(error.to_string()))?;
    text.push(b'\n');
    print(&text)
}

/// All providers: those of this release, and those of the configuration's `providers_dir` where there is a sound one.
fn catalog(file: &Path) -> Result<Catalog, Failure> {
    let directory = config(file).and_then(|config| config.http.providers_dir);
    let mut catalog = Catalog::builtin().map_err(|error| Failure::internal(error.to_string()))?;
    if let Some(directory) = directory {
        catalog.add_dir(&directory).map_err(|error| Failure::usage(error.to_string()))?;
    }
    Ok(catalog)
}

/// The configuration, where there is a sound one; secrets may still be missing.
fn config(file: &Path) -> Option<Config> {
    secret_file::load(file, "").ok().map(|(config, _)| config)
}

/// What the gateway can do by a provider's API.
fn abilities(provider: &Provider) -> Vec<&'static str> {
    let Some(service) = provider.service() else { return Vec::new() };
    let mut abilities = Vec::new();
    abilities.extend((service.register != Registration::Hand).then_some("register"));
    abilities.extend((!service.reconcile.is_empty()).then_some("reconcile"));
    abilities
}

/// A webhook source of the configuration.
fn find<'a>(config: &'a Config, name: &str) -> Result<&'a Settings, Failure> {
    let webhooks = config.sources.iter().filter_map(|(name, source)| match &source.connector {
        Connector::Webhook(webhook) => Some((name.as_str(), webhook)),
        _ => None,
    });
    let mut known = Vec::new();
    for (found, webhook) in webhooks {
        if found == name {
            return Ok(webhook);
        }
        known.push(found);
    }
    let fix = match known.as_slice() {
        [] => "add one: [sources.NAME] with connector = \"webhook\"".to_owned(),
        known => format!("known: {}", known.join(", ")),
    };
    Err(Failure::usage(format!("the configuration has no webhook source {name}")).with_fix(fix))
}
