//! A door for this crate's own integration tests. Not part of its interface.

use crate::{apply::Apply, catalog::Catalog};
use headgate_sdk::{Fault, Outlet, TableFilter};
use std::sync::Arc;
use tokio_postgres::Client;

/// A replication stream whose payloads come from elsewhere.
#[derive(Debug)]
pub struct Replay(Apply);

impl Replay {
    /// A stream in epoch 1 that captures `tables`.
    #[must_use]
    pub fn new(client: Arc<Client>, tables: &[String]) -> Self {
        Self(Apply::new(1, Catalog::new(client), TableFilter::new(tables)))
    }

    /// Tells one payload.
    ///
    /// # Errors
    /// It is not as the protocol has it.
    pub async fn message<O: Outlet>(
        &mut self,
        payload: &[u8],
        wal_start: u64,
        outlet: &mut O,
    ) -> Result<(), Fault> {
        self.0.message(payload, wal_start, outlet).await
    }

    /// Tells of a payload by its head.
    ///
    /// # Errors
    /// It is not as the protocol has it.
    pub fn oversized<O: Outlet>(&mut self, head: &[u8], size: u64, outlet: &mut O) -> Result<(), Fault> {
        self.0.oversized(head, size, outlet)
    }

    /// Whether a transaction is open.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.0.in_transaction()
    }
}
