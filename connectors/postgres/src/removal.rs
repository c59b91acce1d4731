//! Taking away what a source left on its server.

use crate::{
    Config,
    connect::{Server, Target},
    facilities::Facilities,
    publication::Publications,
    refusal::sql_fault,
    slot,
};
use headgate_sdk::Fault;
use postgres_protocol::escape::escape_identifier;

/// Drops the slot and the publications that Headgate made for `source`, and says what it dropped.
///
/// # Errors
/// The server cannot be reached, or refuses: the slot is being read, a privilege is missing.
pub async fn drop_source(source: &str, config: &Config) -> Result<Vec<String>, Fault> {
    let (server, session) = Server::find(Target::new(config, source)?).await?;
    let mut dropped = Vec::new();
    let name = slot::name(source, config);
    if let Some(slot) = slot::inspect(&session.client, &name).await? {
        slot.validate(&name, &server.target.database)?;
        if let Some(pid) = slot.active_pid {
            return Err(Fault::busy(format!("slot {name} is being read by process {pid}"))
                .with_fix("stop the gateway that runs the source first"));
        }
        if slot::drop(&session.client, &name).await? {
            dropped.push(format!("replication slot {name}"));
        }
    }
    let publications = Publications::new(source, config, Facilities::of(&session.client).await?.version);
    if publications.are_kept() {
        let missing = publications.plan(&session.client).await?.missing;
        for name in publications.names().into_iter().filter(|name| !missing.contains(name)) {
            session
                .client
                .batch_execute(&format!("DROP PUBLICATION IF EXISTS {}", escape_identifier(&name)))
                .await
                .map_err(|error| sql_fault(error, format!("cannot drop publication {name}")))?;
            dropped.push(format!("publication {name}"));
        }
    }
    Ok(dropped)
}
