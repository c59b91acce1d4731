//! The ledger of a source's snapshots, in the key-value bucket beside its checkpoint.

use crate::broker::bucket::{self, Key};
use async_nats::jetstream::Context;
use headgate_sdk::{Fault, SnapshotJob, SnapshotLedger, TableName};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Schema and table.
type Name = (String, String);

/// The ledger's JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    next: u64,
    jobs: Vec<JobRecord>,
    known: Vec<KnownRecord>,
}

/// Schema, table, and which table of that name: see [`headgate_sdk::CapturedTables`].
#[derive(Debug, Serialize, Deserialize)]
struct KnownRecord(String, String, #[serde(default)] u64);

#[derive(Debug, Serialize, Deserialize)]
struct JobRecord {
    id: u64,
    reason: String,
    tables: Vec<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
}

/// Keeps the ledger of one source.
#[derive(Clone, Debug)]
pub struct LedgerStore {
    key: Key,
    revision: Arc<Mutex<u64>>,
}

impl LedgerStore {
    /// Opens the bucket, which is made with the checkpoints, and reads the source's ledger; an empty one where there is none.
    ///
    /// # Errors
    /// Transient where the broker does not answer, definite where the ledger cannot be read.
    pub async fn open(context: &Context, source: &str) -> Result<(Self, SnapshotLedger), Fault> {
        let store = Self { key: Key::open(context, &key(source)).await?, revision: Arc::default() };
        let ledger = store.read(&mut *store.revision.lock().await).await?;
        Ok((store, ledger))
    }

    /// Replaces the ledger.
    ///
    /// # Errors
    /// Transient: the broker does not answer, or another gateway has written it.
    pub async fn keep(&self, ledger: &SnapshotLedger) -> Result<(), Fault> {
        let failed = || Fault::transient(format!("cannot write {}", self.key.subject()));
        let payload =
            serde_json::to_vec(&Record::from(ledger)).map_err(|error| failed().with_cause(error))?;
        let mut revision = self.revision.lock().await;
        match self.key.replace(*revision, payload).await {
            Ok(replaced) => {
                *revision = replaced;
                Ok(())
            }
            Err(error) => {
                // An acknowledgement may have been lost.
                if self.read(&mut revision).await.is_ok_and(|kept| kept == *ledger) {
                    return Ok(());
                }
                Err(failed().with_cause(error))
            }
        }
    }

    async fn read(&self, revision: &mut u64) -> Result<SnapshotLedger, Fault> {
        let entry = self.key.read().await?;
        *revision = entry.revision;
        let Some(value) = entry.value else { return Ok(SnapshotLedger::default()) };
        let unreadable = || {
            Fault::definite(format!("the snapshots' ledger {} is unreadable", self.key.subject()))
                .with_fix("remove it with `headgate source drop`, or restore the bucket")
        };
        let record: Record =
            serde_json::from_slice(&value).map_err(|error| unreadable().with_cause(error))?;
        record.ledger().ok_or_else(unreadable)
    }
}

impl From<&SnapshotLedger> for Record {
    fn from(ledger: &SnapshotLedger) -> Self {
        let name = |name: &TableName| (name.schema.clone(), name.table.clone());
        let job = |job: &SnapshotJob| JobRecord {
            id: job.id,
            reason: job.reason.as_str().to_owned(),
            tables: job.tables.iter().map(name).collect(),
            condition: job.condition.clone(),
        };
        Self {
            next: ledger.next,
            jobs: ledger.jobs.iter().map(job).collect(),
            known: ledger
                .known
                .iter()
                .map(|(name, made)| KnownRecord(name.schema.clone(), name.table.clone(), *made))
                .collect(),
        }
    }
}

impl Record {
    /// `None` where a reason is none that is known.
    fn ledger(self) -> Option<SnapshotLedger> {
        let name = |(schema, table): Name| TableName { schema, table };
        let job = |job: JobRecord| {
            Some(SnapshotJob {
                id: job.id,
                reason: job.reason.parse().ok()?,
                tables: job.tables.into_iter().map(name).collect(),
                condition: job.condition,
            })
        };
        Some(SnapshotLedger {
            next: self.next,
            jobs: self.jobs.into_iter().map(job).collect::<Option<_>>()?,
            known: self
                .known
                .into_iter()
                .map(|KnownRecord(schema, table, made)| (TableName { schema, table }, made))
                .collect(),
        })
    }
}

/// Removes a source's ledger.
///
/// # Errors
/// The broker does not answer.
pub async fn forget(context: &Context, source: &str) -> Result<(), Fault> {
    bucket::remove(context, &key(source))
        .await
        .map_err(|error| Fault::transient("cannot remove the snapshots' ledger").with_cause(error))
}

fn key(source: &str) -> String {
    format!("snapshot.{source}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use headgate_sdk::SnapshotReason;

    #[test]
    fn reads_back_what_it_writes() {
        let table = TableName { schema: "public".to_owned(), table: "a \"b\"".to_owned() };
        let job = |id, condition: Option<&str>| SnapshotJob {
            id,
            reason: SnapshotReason::Asked,
            tables: vec![table.clone()],
            condition: condition.map(str::to_owned),
        };
        let ledger = SnapshotLedger {
            next: 9,
            jobs: vec![job(8, None), job(9, Some("a = 'x'"))],
            known: [(table.clone(), 16_399)].into(),
        };
        let json = serde_json::to_string(&Record::from(&ledger)).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&json).unwrap().ledger(), Some(ledger));
        // As it was written before tables were told apart from their namesakes.
        let former = serde_json::from_str::<Record>(&json.replace(",16399", "")).unwrap().ledger().unwrap();
        assert_eq!(former.known, [(table, 0)].into());
        let strange = json.replace("asked", "dreamt");
        assert_eq!(serde_json::from_str::<Record>(&strange).unwrap().ledger(), None);
    }
}
