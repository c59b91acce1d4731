//! The spool: verified deliveries on local disk, for as long as the broker cannot take them.
//!
//! * **Durability**: [`Spool::append`] returns when the records are synced to disk. Appends that wait at the same time
//!   share one sync (group commit). The store (redb) is copy-on-write with checksums: after `kill -9`, a torn write or a
//!   power cut it opens at its last complete commit. Each record has a checksum of its own besides: one that was damaged
//!   at rest is set aside, told of, and never published.
//! * **Order**: records of one source are kept and read by their sequence, which the caller makes rise.
//! * **Duplicates**: a record is removed after the broker has it. A gateway that dies between the two reads it again; the
//!   broker's own de-duplication drops it.
//! * **Memory and disk**: what is held is bounded in bytes ([`SpoolError::Full`]); the store's cache is a few MiB.
//! * **Faults**: after an I/O error (a full disk) the store is closed and opened anew with the next request, so a disk that
//!   has room again needs no restart.
//! * **Shutdown**: the last handle's drop ends the writer's thread after what it had begun.
//!
//! One thread owns the store; everything else asks it. The file also holds the secrets that providers gave in a handshake.

mod store;

use crate::Secret;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use store::Store;
use tokio::sync::{mpsc, oneshot};

/// Requests to the writer that may wait. Their size is bounded by the listener's budget for bodies.
const WAITING: usize = 1024;
/// Bytes that one commit takes at most.
const COMMIT_BYTES: usize = 16 << 20;
/// What the store and its records' keys cost beside a record's content.
const OVERHEAD: u64 = 64;

/// Why something was not kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpoolError {
    /// No room is left within the bound.
    #[error("the spool holds {held} bytes of at most {most}")]
    Full {
        /// Bytes that it holds.
        held: u64,
        /// Bytes that it may hold.
        most: u64,
    },
    /// The disk does not take it, or the file cannot be used.
    #[error("the spool {path}: {problem}", path = path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// Another process has the file open.
    #[error("the spool {path} is in use by another headgate", path = path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A secret is stored for the endpoint already.
    #[error("the endpoint has a secret already")]
    SecretExists,
    /// The writer has ended.
    #[error("the spool is closed")]
    Closed,
}

/// One thing to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in its source's order; higher than any before.
    pub sequence: u64,
    /// What it is, opaque here.
    pub content: Bytes,
}

/// What a source has in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Records.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Sequence of the oldest; 0 where there is none.
    pub oldest: u64,
}

/// What is known of an endpoint beside its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointState {
    /// The secret that its provider gave in a handshake.
    pub secret: Option<Secret>,
    /// Whether it has had a verified delivery.
    pub settled: bool,
}

/// A handle on the spool; clones share it.
#[derive(Clone, Debug)]
pub struct Spool {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    most: u64,
    /// Bytes held, those under way to the disk included.
    bytes: AtomicU64,
    held: Mutex<BTreeMap<Arc<str>, Held>>,
}

impl Shared {
    /// Takes away what is no longer there; `gone.oldest` is what is the oldest now.
    fn forget(&self, source: &Arc<str>, gone: Held) {
        if gone.records == 0 {
            return;
        }
        let mut held = self.held();
        let of = held.entry(source.clone()).or_default();
        *of = Held {
            records: of.records.saturating_sub(gone.records),
            bytes: of.bytes.saturating_sub(gone.bytes),
            oldest: gone.oldest,
        };
        self.bytes.fetch_sub(gone.bytes, Ordering::AcqRel);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Answer<T> = oneshot::Sender<Result<T, SpoolError>>;

#[derive(Debug)]
enum Request {
    Append { source: Arc<str>, records: Vec<Record>, answer: Answer<()> },
    Remove { source: Arc<str>, through: u64, answer: Answer<()> },
    Oldest { source: Arc<str>, most: usize, answer: Answer<Vec<Record>> },
    SetAside { source: Arc<str>, sequence: u64, answer: Answer<()> },
    KeepSecret { endpoint: Arc<str>, secret: Secret, answer: Answer<()> },
    Settle { endpoint: Arc<str>, at: i64, answer: Answer<()> },
    Forget { endpoint: Arc<str>, answer: Answer<()> },
    Endpoint { endpoint: Arc<str>, answer: Answer<EndpointState> },
}

impl Spool {
    /// Opens the spool in a directory, which is made if it is missing. What it holds may weigh `most` bytes.
    ///
    /// # Errors
    /// The file cannot be used: no permission, no room, or another gateway has it open.
    pub fn open(directory: &Path, most: u64) -> Result<Self, SpoolError> {
        let path = directory.join("spool.redb");
        let failed = |error: &dyn std::fmt::Display| SpoolError::Disk {
            path: path.clone(),
            problem: error.to_string(),
        };
        make_directory(directory).map_err(|error| failed(&error))?;
        let mut store = Store::new(path.clone());
        let held = store.open().and_then(|opened| opened.held()).map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => SpoolError::InUse { path: path.clone() },
            error => failed(&error),
        })?;
        let bytes = held.values().map(|held| held.bytes).sum();
        let shared = Arc::new(Shared { most, bytes: AtomicU64::new(bytes), held: Mutex::new(held) });
        let (requests, inbox) = mpsc::channel(WAITING);
        let writer = Writer { store, shared: Arc::clone(&shared), inbox };
        std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| failed(&error))?;
        Ok(Self { requests, shared })
    }

    /// Keeps records; returns when they are on disk. All or none.
    ///
    /// # Errors
    /// They are not there: no room, or the disk failed.
    pub async fn append(&self, source: &Arc<str>, records: Vec<Record>) -> Result<(), SpoolError> {
        let weight = weight(&records);
        let before = self.shared.bytes.fetch_add(weight, Ordering::AcqRel);
        if before.saturating_add(weight) > self.shared.most {
            self.shared.bytes.fetch_sub(weight, Ordering::AcqRel);
            return Err(SpoolError::Full { held: before, most: self.shared.most });
        }
        let source = Arc::clone(source);
        // The writer gives the weight back where it could not keep them.
        self.ask(|answer| Request::Append { source, records, answer }).await
    }

    /// The oldest records of a source, up to about this many bytes, at least one where there is one.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn oldest(&self, source: &Arc<str>, most: usize) -> Result<Vec<Record>, SpoolError> {
        let source = Arc::clone(source);
        self.ask(|answer| Request::Oldest { source, most, answer }).await
    }

    /// Forgets a source's records up to this sequence; returns when that is on disk.
    ///
    /// # Errors
    /// The disk failed; they are still there.
    pub async fn remove(&self, source: &Arc<str>, through: u64) -> Result<(), SpoolError> {
        let source = Arc::clone(source);
        self.ask(|answer| Request::Remove { source, through, answer }).await
    }

    /// Moves a record that cannot be used out of the way, to where damaged ones are.
    ///
    /// # Errors
    /// The disk failed; it is still there.
    pub async fn set_aside(&self, source: &Arc<str>, sequence: u64) -> Result<(), SpoolError> {
        let source = Arc::clone(source);
        self.ask(|answer| Request::SetAside { source, sequence, answer }).await
    }

    /// Keeps the secret that a provider gave an endpoint; never replaces one.
    ///
    /// # Errors
    /// There is one, or the disk failed.
    pub async fn keep_secret(&self, endpoint: &Arc<str>, secret: Secret) -> Result<(), SpoolError> {
        let endpoint = Arc::clone(endpoint);
        self.ask(|answer| Request::KeepSecret { endpoint, secret, answer }).await
    }

    /// Notes that an endpoint has had its first verified delivery, at a time in microseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn settle(&self, endpoint: &Arc<str>, at: i64) -> Result<(), SpoolError> {
        let endpoint = Arc::clone(endpoint);
        self.ask(|answer| Request::Settle { endpoint, at, answer }).await
    }

    /// Forgets what is known of an endpoint, as if it had never been set up. Its deliveries stay.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn forget(&self, endpoint: &Arc<str>) -> Result<(), SpoolError> {
        let endpoint = Arc::clone(endpoint);
        self.ask(|answer| Request::Forget { endpoint, answer }).await
    }

    /// What is known of an endpoint.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn endpoint(&self, endpoint: &Arc<str>) -> Result<EndpointState, SpoolError> {
        let endpoint = Arc::clone(endpoint);
        self.ask(|answer| Request::Endpoint { endpoint, answer }).await
    }

    /// What a source has in it.
    #[must_use]
    pub fn held(&self, source: &str) -> Held {
        self.shared.held().get(source).copied().unwrap_or_default()
    }

    /// Every source that has something in it.
    #[must_use]
    pub fn sources(&self) -> Vec<Arc<str>> {
        self.shared.held().iter().filter(|(_, held)| held.records > 0).map(|(name, _)| name.clone()).collect()
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, SpoolError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| SpoolError::Closed)?;
        answered.await.map_err(|_| SpoolError::Closed)?
    }
}

fn weight(records: &[Record]) -> u64 {
    records.iter().map(|record| record.content.len() as u64 + OVERHEAD).sum()
}

/// Nobody but the gateway's user may read it: payloads hold personal data.
fn make_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// The thread that owns the store.
struct Writer {
    store: Store,
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Request>,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.inbox.blocking_recv() {
            let mut requests = vec![first];
            let mut bytes = 0;
            while bytes < COMMIT_BYTES
                && let Ok(request) = self.inbox.try_recv()
            {
                if let Request::Append { records, .. } = &request {
                    bytes += records.iter().map(|record| record.content.len()).sum::<usize>();
                }
                requests.push(request);
            }
            self.serve(requests);
        }
    }

    /// Changes first, in one commit; then the rest, which so sees them.
    fn serve(&mut self, requests: Vec<Request>) {
        let (changes, reads): (Vec<_>, Vec<_>) = requests
            .into_iter()
            .partition(|request| !matches!(request, Request::Oldest { .. } | Request::Endpoint { .. }));
        if !changes.is_empty() {
            self.change(changes);
        }
        for read in reads {
            match read {
                Request::Oldest { source, most, answer } => {
                    let found = self.store.open().and_then(|store| store.oldest(&source, most));
                    let found = self.outcome(found).map(|(records, damaged)| {
                        self.shared.forget(&source, damaged);
                        records
                    });
                    let _ = answer.send(found);
                }
                Request::SetAside { source, sequence, answer } => {
                    let moved = self.store.open().and_then(|store| store.set_aside(&source, &[sequence]));
                    let moved = self.outcome(moved).map(|moved| self.shared.forget(&source, moved));
                    let _ = answer.send(moved);
                }
                Request::Endpoint { endpoint, answer } => {
                    let found = self.store.open().and_then(|store| store.endpoint(&endpoint));
                    let _ = answer.send(self.outcome(found));
                }
                Request::Append { .. }
                | Request::Remove { .. }
                | Request::KeepSecret { .. }
                | Request::Settle { .. }
                | Request::Forget { .. } => {}
            }
        }
    }

    fn change(&mut self, changes: Vec<Request>) {
        let done = self.store.open().and_then(|store| {
            let mut refused = vec![false; changes.len()];
            let mut freed = Vec::new();
            let mut commit = store.begin()?;
            for (change, refused) in changes.iter().zip(&mut refused) {
                match change {
                    Request::Append { source, records, .. } => commit.append(source, records)?,
                    Request::Remove { source, through, .. } => {
                        freed.push((source.clone(), commit.remove(source, *through)?));
                    }
                    Request::KeepSecret { endpoint, secret, .. } => {
                        *refused = !commit.keep_secret(endpoint, secret)?;
                    }
                    Request::Settle { endpoint, at, .. } => commit.settle(endpoint, *at)?,
                    Request::Forget { endpoint, .. } => commit.forget(endpoint)?,
                    Request::Oldest { .. } | Request::Endpoint { .. } | Request::SetAside { .. } => {}
                }
            }
            commit.finish()?;
            Ok((refused, freed))
        });
        let done = self.outcome(done);
        if let Ok((_, freed)) = &done {
            for (source, freed) in freed {
                self.shared.forget(source, *freed);
            }
        }
        let mut held = self.shared.held();
        for (index, change) in changes.into_iter().enumerate() {
            let outcome = done.as_ref().map_err(Clone::clone).map(|(refused, _)| refused[index]);
            match change {
                Request::Append { source, records, answer } => {
                    match &outcome {
                        Ok(_) => {
                            let of = held.entry(source).or_default();
                            of.records += records.len() as u64;
                            of.bytes += weight(&records);
                            if of.oldest == 0 {
                                of.oldest = records.first().map_or(0, |record| record.sequence);
                            }
                        }
                        Err(_) => {
                            self.shared.bytes.fetch_sub(weight(&records), Ordering::AcqRel);
                        }
                    }
                    let _ = answer.send(outcome.map(drop));
                }
                Request::Remove { answer, .. }
                | Request::Settle { answer, .. }
                | Request::Forget { answer, .. } => {
                    let _ = answer.send(outcome.map(drop));
                }
                Request::KeepSecret { answer, .. } => {
                    let _ = answer.send(match outcome {
                        Ok(true) => Err(SpoolError::SecretExists),
                        outcome => outcome.map(drop),
                    });
                }
                Request::Oldest { .. } | Request::Endpoint { .. } | Request::SetAside { .. } => {}
            }
        }
    }

    /// After an I/O error the store refuses everything: it has to be opened again.
    fn outcome<T>(&mut self, outcome: Result<T, redb::Error>) -> Result<T, SpoolError> {
        outcome.map_err(|error| {
            let path = self.store.path().to_owned();
            tracing::error!(path = %path.display(), "the spool failed: {error}; it is opened anew");
            self.store.close();
            SpoolError::Disk { path, problem: error.to_string() }
        })
    }
}

#[cfg(test)]
mod tests;
