//! Taking a source away. A reader of a binary log leaves nothing behind on the server, but it must have stopped.

use crate::{
    Config,
    connect::{Target, sql_fault},
    server::lock_name,
};
use headgate_sdk::Fault;
use mysql_async::prelude::Queryable as _;

/// Makes sure that no gateway reads `source`: one that did would go on, and remember its place again.
///
/// # Errors
/// The server cannot be reached, or the source is being read.
pub async fn drop_source(source: &str, config: &Config) -> Result<(), Fault> {
    let target = Target::new(config)?;
    let mut session = target.connect().await?;
    let server_id = config.server_id_of(source);
    let reader: Option<Option<u64>> = session
        .exec_first("SELECT IS_USED_LOCK(?)", (lock_name(server_id),))
        .await
        .map_err(|error| sql_fault(error, "cannot look for a reader of the log"))?;
    match reader.flatten() {
        Some(connection) => Err(Fault::busy(format!(
            "{} is being read under server id {server_id}, by connection {connection}",
            target.address()
        ))
        .with_fix("stop the gateway that runs the source first")),
        None => Ok(()),
    }
}
