//! One run of one source: reads where its stream ends, and joins connector, normalizer, publisher and release into the
//! one way down.
//!
//! A run ends with the connector (shutdown or a fault) or with the publisher (the stream lost acknowledged events). At a
//! shutdown the connector stops first, then the publisher waits for the last acknowledgements, then the last progress is
//! kept; a run that ends by a fault is cut off, for the next run reads again from what the stream really holds.

mod footing;
mod supervise;

pub(crate) use footing::Footing;
pub use supervise::supervise;

use crate::{
    broker::Link,
    config::{self, Connector},
    event::Batch,
    normalize::{
        Encoder, Look, Normalizer, Stores, Style,
        form::Form,
        gap_fault,
        shapes::Shapes,
        shaping::{self, Shaping},
        subject::Template,
    },
    publish::{
        CheckpointStore, DelayLine, End, Identity, Publisher, SourceStream, StoredCheckpoint, release,
    },
    schema::{Evidence, History, Known, Registry, event_names},
    snapshot::LedgerStore,
    status::SourceState,
    witness::Witness,
};
use async_nats::jetstream;
use footing::{held_by_stream, reconciled, resume};
use headgate_sdk::{Context, Fault, FaultKind, Finding, Progress, Resume, Severity, SnapshotStart, Source};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Batches between normalizer and publisher; what they may weigh is bounded by `gateway.memory`.
const BATCHES: usize = 64;

/// One source with everything it needs to run.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The source's name.
    pub name: String,
    /// Its settings.
    pub source: config::Source,
    /// The gateway's settings.
    pub gateway: config::Gateway,
    /// The broker's settings.
    pub nats: config::Nats,
    /// The way to the broker.
    pub jetstream: jetstream::Context,
    /// How that way is.
    pub link: watch::Receiver<Link>,
    /// How the source is.
    pub state: Arc<SourceState>,
}

/// What reads the source's log: one for all runs, for a run remembers what it found out about the log for the next.
#[derive(Debug)]
enum Log {
    Postgres(headgate_postgres::Postgres),
    MySql(headgate_mysql::MySql),
    /// A webhook source has none.
    None,
}

/// What the last run left waiting for its release, and on which connection to the broker it had published that: over another one
/// the stream may have lost it in between, and got it again. Nothing, if that run did not end by the source's own fault alone.
type Unreleased = Option<(u64, DelayLine)>;

impl Log {
    fn of(pipeline: &Pipeline) -> Self {
        let name = &pipeline.name;
        match &pipeline.source.connector {
            Connector::Postgres(config) => {
                Self::Postgres(headgate_postgres::Postgres::new(name, config.clone()))
            }
            Connector::MySql(config) => Self::MySql(headgate_mysql::MySql::new(name, config.clone())),
            Connector::Webhook(_) => Self::None,
        }
    }
}

impl Pipeline {
    /// Runs once: until shutdown or a fault, which is whatever ended the run.
    async fn run(
        &self,
        log: &mut Log,
        unreleased: &mut Unreleased,
        shutdown: CancellationToken,
    ) -> Result<(), Fault> {
        self.state.begins();
        let opened = tokio::select! {
            opened = self.open() => opened?,
            () = shutdown.cancelled() => return Ok(()),
        };
        tokio::select! {
            fits = self.fits() => fits?,
            () = shutdown.cancelled() => return Ok(()),
        }
        match log {
            Log::Postgres(source) => Box::pin(self.drive(source, opened, unreleased, shutdown)).await,
            Log::MySql(source) => Box::pin(self.drive(source, opened, unreleased, shutdown)).await,
            Log::None => Err(Fault::definite("a webhook source has no log to read")),
        }
    }

    /// Refuses to run with settings that the tables do not fit: a column that was to be hidden may have another name.
    async fn fits(&self) -> Result<(), Fault> {
        let findings = fitness(&self.name, &self.source).await?;
        match findings.into_iter().find(|finding| finding.severity == Severity::Error) {
            Some(Finding { subject, what, fix, .. }) => {
                let fault = Fault::definite(format!("{subject}: {what}"));
                Err(match fix {
                    Some(fix) => fault.with_fix(fix),
                    None => fault,
                })
            }
            None => Ok(()),
        }
    }

    /// Reads where to go on.
    async fn open(&self) -> Result<Opened, Fault> {
        let mut link = self.link.clone();
        link.wait_for(|link| link.connected)
            .await
            .map_err(|_| Fault::transient("the broker's connection is closed"))?;
        let stream = SourceStream::open(&self.jetstream, &self.name, &self.nats).await?;
        let store = &self.nats.stream;
        // The checkpoint first, then the stream: read the other way round, a stream that another gateway is writing
        // would seem shorter than its checkpoint says.
        let checkpoints =
            CheckpointStore::open(&self.jetstream, &self.name, store.replicas, store.memory).await?;
        let end = stream.end().await?.ok_or_else(|| Fault::transient("the stream is gone"))?;
        let stored = match checkpoints.stored().await {
            Some(stored) => Some(self.reconcile(stored, end, &checkpoints).await?),
            None => None,
        };
        if let Some(StoredCheckpoint { gap: Some(reason), .. }) = &stored {
            return Err(gap_fault(&self.name, reason));
        }
        let (ledger_store, ledger) = LedgerStore::open(&self.jetstream, &self.name).await?;
        // Without a job there is nothing to be anywhere.
        let places = if ledger.jobs.is_empty() { Vec::new() } else { stream.places(&end).await? };
        let snapshots = SnapshotStart {
            settings: self.source.snapshots.clone(),
            ledger,
            places,
            desk: Arc::clone(&self.state.snapshots),
        };
        let resume = resume(end, stored);
        let look = self.look()?;
        let evidence = Evidence { stream: &stream, look: &look };
        let (history, mut known) =
            History::open(&self.jetstream, &self.name, held_by_stream(&resume), evidence).await?;
        if !self.source.shaping.outboxes.is_empty() {
            known.letters = event_names(&self.jetstream, &self.name).await;
            for event in &self.source.shaping.events {
                known.letters.remove(&event.name());
            }
        }
        Ok(Opened { look, resume, stream, end, checkpoints, ledger_store, history, known, snapshots })
    }

    /// Brings the checkpoint to what the stream proves.
    async fn reconcile(
        &self,
        stored: StoredCheckpoint,
        end: End,
        checkpoints: &CheckpointStore,
    ) -> Result<StoredCheckpoint, Fault> {
        if stored.reached.sequence > end.sequence {
            tracing::warn!(
                source = self.name,
                stream = end.sequence,
                checkpoint = stored.reached.sequence,
                "the stream lost its tail, filling it up from the log"
            );
        }
        let reconciled = reconciled(stored.clone(), end, self.source.on_gap);
        if reconciled != stored {
            // Kept at once: while the stream fills up again, it will be as long as it was before it holds as much.
            checkpoints.store(reconciled.clone()).await?;
        }
        Ok(reconciled)
    }

    async fn drive(
        &self,
        source: &mut impl Source,
        opened: Opened,
        unreleased: &mut Unreleased,
        shutdown: CancellationToken,
    ) -> Result<(), Fault> {
        let Opened { look, stream, end, checkpoints, ledger_store, history, known, snapshots, resume } =
            opened;
        let (batch_sender, batches) = mpsc::channel::<Batch>(BATCHES);
        let (released_sender, released) = watch::channel(Progress::default());
        let uri = look.style.uri.clone();
        let publisher = Publisher::new(
            &self.jetstream,
            self.link.clone(),
            (stream, end),
            Identity { source: &self.name, uri: &uri, partitions: self.gateway.partitions },
            self.nats.clone(),
            Arc::clone(&self.state),
        );
        let (durable, claim) = (publisher.durable(), publisher.claim_of_run());
        let generation = self.link.borrow().generation;
        let line = match unreleased.take() {
            Some((before, line)) if before == generation => line.within(end.sequence),
            _ => DelayLine::new(self.confirm_delay()),
        };
        let last = end.last.map(|last| last.position);
        let shapes = Shapes::new(&self.name, self.source.on_incompatible, known);
        let encoder = Encoder::new(look, self.state.metrics.clone(), held_by_stream(&resume), last, shapes);
        let mut normalizer = Normalizer::new(
            encoder,
            self.source.on_gap,
            self.gateway.memory,
            batch_sender,
            durable.clone(),
            Stores {
                checkpoints: checkpoints.clone(),
                schemas: Registry::new(&self.jetstream, self.nats.stream.replicas, self.nats.stream.memory),
                shapes: history,
                claim,
                ledger: ledger_store,
                witness: Witness::new(self.jetstream.clone(), &self.name),
            },
        );
        let mut publishing = Task(tokio::spawn(publisher.run(batches, shutdown.clone())));
        let releasing = release(durable, checkpoints, line, released_sender, Arc::clone(&self.state));
        let mut releasing = Task(tokio::spawn(releasing));
        let context = Context { released, shutdown, vitals: Arc::clone(&self.state.vitals), snapshots };
        let outcome = tokio::select! {
            outcome = source.run(resume, &mut normalizer, context) => outcome,
            ended = &mut publishing.0 => return Err(publisher_fault(ended)),
        };
        drop(normalizer);
        match outcome {
            Ok(()) => {
                // The supervisor cuts this off when the grace is over.
                if let Ok(Err(fault)) = (&mut publishing.0).await {
                    return Err(fault);
                }
                let _ = (&mut releasing.0).await;
                Ok(())
            }
            // What was read before the fault is good: give it a moment to arrive.
            Err(fault) => match timeout(Duration::from_secs(5), &mut publishing.0).await {
                Ok(Ok(Err(publisher))) => Err(publisher),
                Ok(Ok(Ok(()))) => {
                    // So that what was dealt with is not dealt with again each time that this fault comes. Another gateway's
                    // run in between would have published later than this one says.
                    if let Ok(Ok(line)) = timeout(Duration::from_secs(5), &mut releasing.0).await
                        && fault.kind() == FaultKind::Transient
                    {
                        *unreleased = Some((generation, line));
                    }
                    Err(fault)
                }
                _ => Err(fault),
            },
        }
    }

    fn look(&self) -> Result<Look, Fault> {
        let uri = self.source.uri.clone().unwrap_or_else(|| format!("/headgate/{}", self.name));
        let template = Template::parse(&self.nats.subject)
            .map_err(|error| Fault::definite(format!("the subject template is wrong: {error}")))?;
        Ok(Look {
            style: Style {
                source: self.name.clone(),
                uri,
                type_prefix: self.source.type_prefix.clone().unwrap_or_else(|| self.name.clone()),
                form: Form::new(self.nats.mode),
                template,
                partitions: self.gateway.partitions,
            },
            entities: self.source.entities.clone(),
            default_schema: match &self.source.connector {
                Connector::Postgres(_) => "public".to_owned(),
                Connector::MySql(config) => config::mysql_default_schema(config),
                Connector::Webhook(_) => String::new(),
            },
            shaping: Shaping::new(self.source.shaping.clone()),
        })
    }

    /// How long to hold back what the log may release: longer than an unreplicated broker takes to sync to disk.
    fn confirm_delay(&self) -> Duration {
        if let Some(delay) = self.nats.confirm_delay {
            return delay;
        }
        match &self.nats.server {
            _ if self.nats.stream.replicas > 1 => Duration::ZERO,
            config::Server::Embedded(embedded) => embedded.sync_interval * 2 + Duration::from_secs(1),
            // A server's default `sync_interval` is two minutes, and a client cannot ask for it.
            config::Server::Remote(_) => Duration::from_secs(130),
        }
    }
}

/// How the source's settings fit its tables as they are now. Without such settings the database is not asked.
///
/// # Errors
/// The database cannot be reached.
pub(crate) async fn fitness(name: &str, source: &config::Source) -> Result<Vec<Finding>, Fault> {
    let settings = &source.shaping;
    if settings.columns.is_empty() && settings.outboxes.is_empty() && settings.events.is_empty() {
        return Ok(Vec::new());
    }
    let tables = match &source.connector {
        Connector::Postgres(config) => headgate_postgres::tables(name, config).await?,
        Connector::MySql(config) => headgate_mysql::tables(config).await?,
        Connector::Webhook(_) => return Ok(Vec::new()),
    };
    Ok(shaping::findings(settings, &tables))
}

/// What a run begins with.
#[derive(Debug)]
struct Opened {
    look: Look,
    stream: SourceStream,
    end: End,
    checkpoints: CheckpointStore,
    ledger_store: LedgerStore,
    history: History,
    known: Known,
    snapshots: SnapshotStart,
    resume: Resume,
}

/// A task that ends with the run, however that ends.
#[derive(Debug)]
struct Task<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why the publisher ended although nobody told it to.
fn publisher_fault(ended: Result<Result<(), Fault>, tokio::task::JoinError>) -> Fault {
    match ended {
        Ok(Err(fault)) => fault,
        Ok(Ok(())) => Fault::transient("the publisher has stopped"),
        Err(error) => Fault::transient("the publisher failed").with_cause(error),
    }
}
