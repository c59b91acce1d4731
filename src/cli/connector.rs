//! What the commands ask of a connector.

use crate::config::{Connector, Source};
use headgate_sdk::{Fault, Finding};

/// Whether the source can be run.
pub(super) async fn check(name: &str, source: &Source) -> Vec<Finding> {
    match &source.connector {
        Connector::Postgres(config) => headgate_postgres::check(name, config).await,
        Connector::MySql(config) => headgate_mysql::check(name, config).await,
    }
}

/// Removes everything that the connector keeps in the database for the source; tells what it removed.
pub(super) async fn drop_source(name: &str, source: &Source) -> Result<Vec<String>, Fault> {
    match &source.connector {
        Connector::Postgres(config) => headgate_postgres::drop_source(name, config).await,
        // A reader of a binary log leaves nothing behind on the server.
        Connector::MySql(_) => Ok(Vec::new()),
    }
}
