//! What a stream cannot hold, in a key-value bucket: progress while nothing is published, what the positions are
//! positions in, and a gap that waits to be accepted. What begins behind a gap is noted before the word of the gap is given:
//! that word alone would prove to the next run that there is a new epoch, and not what its positions are positions in.
//!
//! Durability and fencing are those of the bucket's keys ([`bucket`]).

use crate::broker::bucket::{self, BUCKET, Key};
use async_nats::jetstream::Context;
use headgate_sdk::{Fault, Origin, Progress};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Mutex;

/// How far the log had been told when the stream ended at a sequence. A stream that is shorter proves less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Landmark {
    /// How far the log had been told.
    pub progress: Progress,
    /// Where the stream ended by then.
    pub sequence: u64,
}

/// A checkpoint as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// The epoch that new positions count in.
    pub epoch: u16,
    /// What they are positions in.
    pub identity: String,
    /// How far the log had been told, of the same epoch.
    pub reached: Landmark,
    /// The same of what was released to the database: long ago enough that a power cut of the broker cannot take it back.
    pub released: Landmark,
    /// Why history was lost, while that waits to be accepted.
    pub gap: Option<String>,
    /// What begins behind a gap whose word is about to be given. It holds once the stream has that word.
    pub announced: Option<Announced>,
}

/// The epoch behind a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// See [`Origin::epoch`].
    pub epoch: u16,
    /// See [`Origin::identity`].
    pub identity: String,
    /// Where it begins in the log, which is the position of the word of the gap.
    pub log: u64,
    /// Why history was lost.
    pub reason: String,
}

/// The checkpoint's JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    epoch: u16,
    identity: String,
    progress: String,
    stream_sequence: u64,
    #[serde(default)]
    released: String,
    #[serde(default)]
    released_sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gap: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    announced: Option<Announced>,
}

/// Keeps the checkpoint of one source.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    key: Key,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    stored: Option<StoredCheckpoint>,
}

impl StoredCheckpoint {
    /// How far the log is proven to be told where the stream ends at `sequence`.
    #[must_use]
    pub fn proven_at(&self, sequence: u64) -> Progress {
        [self.reached, self.released]
            .into_iter()
            .find(|landmark| landmark.sequence <= sequence && landmark.progress.epoch == self.epoch)
            .map_or(Progress { epoch: self.epoch, log: 0 }, |landmark| landmark.progress)
    }
}

impl CheckpointStore {
    /// Opens the bucket, makes it if it is missing, and reads the source's checkpoint.
    ///
    /// # Errors
    /// Transient where the broker does not answer, definite where the checkpoint cannot be read.
    pub async fn open(context: &Context, source: &str, replicas: usize, memory: bool) -> Result<Self, Fault> {
        Self::read_from(Key::open_or_create(context, &key(source), replicas, memory).await?).await
    }

    /// Reads the source's checkpoint and makes nothing. `None`: there is no bucket.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn find(context: &Context, source: &str) -> Result<Option<Self>, Fault> {
        match Key::find(context, &key(source)).await? {
            Some(key) => Self::read_from(key).await.map(Some),
            None => Ok(None),
        }
    }

    async fn read_from(key: Key) -> Result<Self, Fault> {
        let store = Self { key, state: Arc::default() };
        store.read(&mut *store.state.lock().await).await?;
        Ok(store)
    }

    /// The checkpoint as last read or stored.
    pub async fn stored(&self) -> Option<StoredCheckpoint> {
        self.state.lock().await.stored.clone()
    }

    /// Checks that nobody else has written the checkpoint since it was read or written here.
    pub(crate) async fn assert_unchanged(&self) -> Result<(), Fault> {
        let state = self.state.lock().await;
        let mut found = State::default();
        self.read(&mut found).await?;
        if found.revision == state.revision { Ok(()) } else { Err(self.written_by_another()) }
    }

    /// Notes what begins behind a gap before the word of it is given. Refused where somebody else has written the checkpoint
    /// since it was read or written here: what looks like a gap may be the work of another gateway.
    pub(crate) async fn announce(&self, announced: Announced) -> Result<(), Fault> {
        let mut state = self.state.lock().await;
        let next =
            StoredCheckpoint { announced: Some(announced), ..state.stored.clone().unwrap_or_default() };
        let revision = state.revision;
        let Err(error) = self.put(&mut state, &next).await else { return Ok(()) };
        self.read(&mut state).await?;
        if state.stored.as_ref() == Some(&next) {
            // The acknowledgement was lost.
            return Ok(());
        }
        Err(if state.revision == revision { error } else { self.written_by_another() })
    }

    fn written_by_another(&self) -> Fault {
        Fault::transient(format!("another gateway has written {}, looking again", self.key.subject()))
    }

    /// Binds the positions to come to `origin`; keeps the progress if the epoch stays.
    pub(crate) async fn bind(&self, origin: Origin) -> Result<(), Fault> {
        let mut state = self.state.lock().await;
        let mut next = state.stored.clone().unwrap_or_default();
        if next.epoch == origin.epoch && next.identity == origin.identity {
            return Ok(());
        }
        if next.epoch != origin.epoch {
            let nothing = Progress { epoch: origin.epoch, log: 0 };
            next.reached = Landmark { progress: nothing, sequence: next.reached.sequence };
            next.released = Landmark { progress: nothing, sequence: 0 };
        }
        next.epoch = origin.epoch;
        next.identity = origin.identity;
        next.announced = None;
        self.write(&mut state, next).await
    }

    /// Keeps what was reached, and beside it what has been released. `false`: it is of another epoch than the checkpoint,
    /// which is about to be, or was, replaced.
    pub(crate) async fn advance(&self, reached: Landmark, released: Landmark) -> Result<bool, Fault> {
        let mut state = self.state.lock().await;
        let mut next = state.stored.clone().unwrap_or_default();
        if next.epoch != reached.progress.epoch {
            return Ok(false);
        }
        if next.reached.progress >= reached.progress {
            return Ok(true);
        }
        next.reached = reached;
        if released.progress.epoch == next.epoch {
            next.released = released;
        }
        self.write(&mut state, next).await.map(|()| true)
    }

    /// Replaces the checkpoint.
    pub(crate) async fn store(&self, checkpoint: StoredCheckpoint) -> Result<(), Fault> {
        self.write(&mut *self.state.lock().await, checkpoint).await
    }

    async fn read(&self, state: &mut State) -> Result<(), Fault> {
        let entry = self.key.read().await?;
        *state = State { revision: entry.revision, stored: None };
        let Some(value) = entry.value else { return Ok(()) };
        let unreadable = || {
            Fault::definite(format!("the checkpoint {} is unreadable", self.key.subject()))
                .with_fix("remove it with `headgate source drop`, or restore the bucket")
        };
        let record: Record =
            serde_json::from_slice(&value).map_err(|error| unreadable().with_cause(error))?;
        let landmark = |log: &str, sequence| match u64::from_str_radix(log, 16) {
            Ok(log) => Ok(Landmark { progress: Progress { epoch: record.epoch, log }, sequence }),
            Err(error) => Err(unreadable().with_cause(error)),
        };
        let reached = landmark(&record.progress, record.stream_sequence)?;
        let released = match record.released.as_str() {
            "" => Landmark::default(),
            log => landmark(log, record.released_sequence)?,
        };
        state.stored = Some(StoredCheckpoint {
            epoch: record.epoch,
            identity: record.identity,
            reached,
            released,
            gap: record.gap,
            announced: record.announced,
        });
        Ok(())
    }

    /// Writes in place of the revision that was read or written last.
    async fn put(&self, state: &mut State, checkpoint: &StoredCheckpoint) -> Result<(), Fault> {
        let record = Record {
            epoch: checkpoint.epoch,
            identity: checkpoint.identity.clone(),
            progress: format!("{:016x}", checkpoint.reached.progress.log),
            stream_sequence: checkpoint.reached.sequence,
            released: format!("{:016x}", checkpoint.released.progress.log),
            released_sequence: checkpoint.released.sequence,
            gap: checkpoint.gap.clone(),
            announced: checkpoint.announced.clone(),
        };
        let payload = serde_json::to_vec(&record)
            .map_err(|error| Fault::definite("the checkpoint cannot be written").with_cause(error))?;
        let revision = self.key.replace(state.revision, payload).await.map_err(|error| {
            let fault = Fault::transient(format!("cannot write {}", self.key.subject())).with_cause(error);
            fault.with_fix(format!(
                "see that the bucket {BUCKET} has room, and that the gateway's user may publish on $KV.{BUCKET}.>"
            ))
        })?;
        state.revision = revision;
        state.stored = Some(checkpoint.clone());
        Ok(())
    }

    async fn write(&self, state: &mut State, checkpoint: StoredCheckpoint) -> Result<(), Fault> {
        let Err(fault) = self.put(state, &checkpoint).await else { return Ok(()) };
        // One more try with the revision read anew: an acknowledgement may have been lost.
        tracing::debug!("{fault}; reading it again");
        self.read(state).await?;
        if let Some(stored) = &state.stored
            && (stored.epoch, stored.reached.progress) > (checkpoint.epoch, checkpoint.reached.progress)
        {
            return Err(Fault::transient(format!(
                "another gateway has gone further in {}",
                self.key.subject()
            )));
        }
        self.put(state, &checkpoint).await
    }
}

/// Accepts the gap that a source waits at. `Ok(None)`: it waits at none.
///
/// # Errors
/// The broker does not answer, or the checkpoint is unreadable.
pub async fn accept_gap(context: &Context, source: &str) -> Result<Option<String>, Fault> {
    let store = CheckpointStore::open(context, source, 1, false).await?;
    let Some(mut stored) = store.stored().await else { return Ok(None) };
    let Some(reason) = stored.gap.take() else { return Ok(None) };
    store.store(stored).await?;
    Ok(Some(reason))
}

/// Removes a source's checkpoint.
///
/// # Errors
/// The broker does not answer.
pub async fn forget(context: &Context, source: &str) -> Result<(), Fault> {
    bucket::remove(context, &key(source))
        .await
        .map_err(|error| Fault::transient("cannot remove the checkpoint").with_cause(error))
}

fn key(source: &str) -> String {
    format!("checkpoint.{source}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_stream_proves_less() {
        let at = |log, sequence| Landmark { progress: Progress { epoch: 2, log }, sequence };
        let mut stored = StoredCheckpoint {
            epoch: 2,
            reached: at(900, 50),
            released: at(700, 30),
            ..StoredCheckpoint::default()
        };
        for (sequence, log) in [(51, 900), (50, 900), (49, 700), (30, 700), (29, 0)] {
            assert_eq!(stored.proven_at(sequence), Progress { epoch: 2, log });
        }
        // One that was written before anything was released in this epoch.
        stored.released = Landmark::default();
        assert_eq!(stored.proven_at(49), Progress { epoch: 2, log: 0 });
    }
}
