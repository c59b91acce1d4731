//! What the commands ask of a connector.

use crate::{
    config::{Connector, Source},
    pipeline::fitness,
};
use headgate_sdk::{Fault, Finding};

/// Whether the source can be run.
pub(super) async fn check(name: &str, source: &Source) -> Vec<Finding> {
    let mut findings = match &source.connector {
        Connector::Postgres(config) => headgate_postgres::check(name, config).await,
        Connector::MySql(config) => headgate_mysql::check(name, config).await,
    };
    // A database that cannot be reached has been found out by now.
    if let Ok(fitness) = fitness(name, source).await {
        findings.extend(fitness);
    }
    findings
}

/// Removes everything that the connector keeps in the database for the source; tells what it removed.
pub(super) async fn drop_source(name: &str, source: &Source) -> Result<Vec<String>, Fault> {
    match &source.connector {
        Connector::Postgres(config) => headgate_postgres::drop_source(name, config).await,
        // A reader of a binary log leaves nothing behind on the server.
        Connector::MySql(_) => Ok(Vec::new()),
    }
}
