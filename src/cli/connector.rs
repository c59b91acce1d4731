//! What the commands ask of a connector.

use crate::{
    config::{Config, Connector, Source, Webhook},
    pipeline::fitness,
    webhook,
};
use headgate_sdk::{Fault, Finding, Resume};

/// Whether the source can be run.
pub(super) async fn check(name: &str, source: &Source) -> Vec<Finding> {
    let mut findings = match &source.connector {
        Connector::Postgres(config) => headgate_postgres::check(name, config).await,
        Connector::MySql(config) => headgate_mysql::check(name, config).await,
        Connector::Webhook(webhook) => webhook_findings(webhook),
    };
    // A database that cannot be reached has been found out by now.
    if let Ok(fitness) = fitness(name, source).await {
        findings.extend(fitness);
    }
    findings
}

/// Why changes after `resume` are lost to the stream; `None` where they are not.
pub(super) async fn missing(name: &str, source: &Source, resume: &Resume) -> Result<Option<String>, Fault> {
    match &source.connector {
        Connector::Postgres(config) => headgate_postgres::missing(name, config, resume).await,
        Connector::MySql(config) => headgate_mysql::missing(config, resume).await,
        Connector::Webhook(_) => Ok(None),
    }
}

/// Removes everything that the connector keeps for the source, in the database or on this machine; tells what it removed.
pub(super) async fn drop_source(config: &Config, name: &str, source: &Source) -> Result<Vec<String>, Fault> {
    match &source.connector {
        Connector::Postgres(settings) => headgate_postgres::drop_source(name, settings).await,
        Connector::MySql(settings) => {
            headgate_mysql::drop_source(name, settings).await?;
            Ok(Vec::new())
        }
        Connector::Webhook(_) => webhook::forget(config, name).await,
    }
}

/// What there is to say about a webhook source before it runs. That it can be verified was checked with the file.
fn webhook_findings(webhook: &Webhook) -> Vec<Finding> {
    let provider = &webhook.provider;
    let mut findings = vec![Finding::good("provider", provider.title())];
    findings.push(match webhook.settings.secrets.len() {
        0 => Finding::good("secret", "none: the provider gives it in a handshake, or signs with its own key"),
        1 => Finding::good("secret", "1"),
        count => Finding::warning(
            "secret",
            format!("{count} are accepted"),
            "an old secret that is kept for longer than its replacement takes can still be used",
        ),
    });
    if webhook.settings.tolerance == headgate_webhook::Tolerance::Off {
        let why = "whoever saw a signed request can send it again; only dedup_window is left";
        findings.push(Finding::warning("tolerance", "off", why).with_fix("tolerance = \"5m\""));
    }
    findings
}
