//! The source: from a connection to an ordered stream of changes.
//!
//! ```text
//!  server ──▶ Dump ──▶ Apply ──▶ Outlet        the run's own task
//!                        │
//!                    Landmarks ◀── released     which transactions are before a place that is safe
//!  server ◀──▶ Monitor (lock, end of the log, purge)   its own task
//! ```
//!
//! # Order and duplicates
//! Everything is told from one task, in the log's order. A run begins at the last landmark, which is a place that the broker
//! holds everything before; what was told since is read again, and dropped by the outlet, for it has the positions that it
//! had. Where another server has taken over it has not, so there what the stream holds is asked of the stream, by name.
//!
//! # Durability
//! A server keeps its log by age, whatever its readers do. What is kept here is the landmark: it moves on only to places that
//! came back through [`Context::released`].
//!
//! # Shutdown
//! The dump is dropped, the last landmark is kept, `Ok`.

use crate::{
    Config,
    apply::{Apply, Halt, Opening, Replay},
    catalog::Catalog,
    connect::Target,
    dump::{Arrival, Broken, Dump, Request},
    event::Event,
    executed::Executed,
    history::{Facts, Identity, Partial, Start, Verdict, judge, judge_failover},
    landmarks::Landmarks,
    monitor::{self, Monitor, Watch},
    place::Place,
    server::{self, Server},
    tables::Captured,
};
use headgate_sdk::{Context, Fault, Gap, Origin, Outlet, Progress, Resume, Source};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior};

/// How often landmarks are looked after.
const TICK: Duration = Duration::from_secs(1);
/// Events between two looks at the runtime, while they come without end.
const BURST: u32 = 256;

/// A MySQL or MariaDB database as a source of changes.
#[derive(Debug)]
pub struct MySql {
    source: String,
    config: Config,
}

impl MySql {
    /// The source named `source`.
    #[must_use]
    pub fn new(source: impl Into<String>, config: Config) -> Self {
        Self { source: source.into(), config }
    }
}

/// Why an attempt ended.
enum Ended {
    Fault(Fault),
    /// The server cannot go on where it was asked to.
    Lost(String),
    /// The log is another one than it seemed.
    Foreign(String),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Broken> for Ended {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Fault(fault) => Self::Fault(fault),
            Broken::Lost(reason) => Self::Lost(reason),
        }
    }
}

impl Source for MySql {
    async fn run<O: Outlet>(
        &mut self,
        resume: Resume,
        outlet: &mut O,
        context: Context,
    ) -> Result<(), Fault> {
        let (mut lost, mut foreign) = (None, false);
        loop {
            let shutdown = context.shutdown.clone();
            let started = tokio::select! {
                started = Box::pin(self.start(&resume, outlet, &context, lost.as_deref(), foreign)) => started,
                () = shutdown.cancelled() => return Ok(()),
            };
            let ended = match started {
                Ok(mut stream) => {
                    context.vitals.streaming.store(1, Relaxed);
                    let ended = Box::pin(stream.run(outlet, &context)).await;
                    context.vitals.streaming.store(0, Relaxed);
                    match ended {
                        // What was told since is not in `resume`: the next run has a fresh one, and finds the same.
                        Err(Ended::Lost(reason) | Ended::Foreign(reason)) if stream.told => {
                            Err(Ended::Fault(Fault::transient(reason)))
                        }
                        ended => ended,
                    }
                }
                Err(ended) => Err(ended),
            };
            match ended {
                Ok(()) => return Ok(()),
                Err(Ended::Lost(reason)) if lost.is_none() => lost = Some(reason),
                Err(Ended::Foreign(reason)) if !foreign => {
                    tracing::warn!(source = self.source, "the log is another one than before: {reason}");
                    foreign = true;
                }
                Err(Ended::Lost(reason) | Ended::Foreign(reason)) => return Err(Fault::transient(reason)),
                Err(Ended::Fault(fault)) => return Err(fault),
            }
        }
    }
}

impl MySql {
    /// Everything up to the first event.
    async fn start<O: Outlet>(
        &self,
        resume: &Resume,
        outlet: &mut O,
        context: &Context,
        lost: Option<&str>,
        foreign: bool,
    ) -> Result<Stream, Ended> {
        let target = Target::new(&self.config)?;
        let mut session = target.connect().await?;
        let server = Server::of(&mut session).await?;
        server.suffices()?;
        let server_id = self.config.server_id_of(&self.source);
        if server.setting("server_id").parse() == Ok(server_id) {
            return Err(Fault::definite(format!("the server itself has the id {server_id}"))
                .with_fix("give the source another server_id")
                .into());
        }
        server::lock(&mut session, &target, server_id).await?;
        let facts = server::facts(&mut session, &server).await?;
        let begun = self.settle(resume, &facts, outlet, lost, foreign).await?;
        let Begun { epoch, identity, start, expected } = begun;
        let request = Request {
            flavor: server.flavor,
            server_id,
            heartbeat: self.config.heartbeat,
            log: &facts.log,
            start: &start,
        };
        let dump = Dump::start(&target, &request).await?;
        let executed = match &start {
            Start::After(executed) => Some(executed.clone()),
            // In a log that is read by place, names are learned where a file begins, and until then none is known.
            Start::At(_) => None,
        };
        let apply = Apply::new(
            Opening {
                epoch,
                flavor: server.flavor,
                log: facts.log.clone(),
                expected,
                executed,
                prepared: identity.prepared.clone(),
                partial: identity.partial.clone(),
                tables: Captured::new(&self.config.tables),
                query: self.config.query,
            },
            Catalog::new(target.clone(), server.has_names()),
        );
        tracing::info!(source = self.source, epoch, server = %target.address(), version = server.name(), "streaming");
        let confirmed_at = Arc::new(AtomicI64::new(monitor::now()));
        let landmarks = Landmarks::new(identity, Arc::clone(&confirmed_at));
        let watch =
            Watch { source: self.source.clone(), server, vitals: Arc::clone(&context.vitals), confirmed_at };
        Ok(Stream {
            epoch,
            server_id,
            heartbeat: self.config.heartbeat,
            log: facts.log,
            target,
            dump,
            apply,
            landmarks,
            monitor: Monitor::start(watch, session),
            told: false,
        })
    }

    /// Finds out where to go on, and tells the outlet what has to be told before.
    async fn settle<O: Outlet>(
        &self,
        resume: &Resume,
        facts: &Facts,
        outlet: &mut O,
        lost: Option<&str>,
        foreign: bool,
    ) -> Result<Begun, Ended> {
        let known = Identity::of(resume);
        let fresh = Identity { server: facts.server.clone(), log: facts.log.clone(), ..Identity::default() };
        let mut verdict = judge(resume, facts, lost, foreign);
        let mut taken_over = None;
        if let Verdict::Failover { done } = verdict {
            let (done, partial) = self.complete(resume, known.as_ref(), done, outlet).await?;
            verdict = judge_failover(resume, facts, &done);
            taken_over = Some(partial);
        }
        match verdict {
            Verdict::Behind { missing } => Err(Fault::transient(format!(
                "this server has not replayed all that was read already; it lacks {missing}"
            ))
            .into()),
            // `judge_failover` has the last word.
            Verdict::Failover { .. } => {
                Err(Fault::transient("the server changed while it was looked at").into())
            }
            Verdict::Begin { start } => {
                let identity = match &start {
                    Start::After(executed) => Identity { executed: Some(executed.to_string()), ..fresh },
                    Start::At(place) => Identity { place: place.0, ..fresh },
                };
                outlet.open(Origin { epoch: 1, identity: identity.to_string() }).await?;
                Ok(Begun { epoch: 1, identity, start, expected: None })
            }
            Verdict::Continue { epoch, start } => match (taken_over, known) {
                (Some(partial), known) => {
                    // Places of the old server mean nothing here; names do.
                    let mut prepared = known.map(|known| known.prepared).unwrap_or_default();
                    prepared.retain(|_, prepared| {
                        prepared.place = 0;
                        prepared.gtid.is_some() && matches!(start, Start::After(Executed::MySql(_)))
                    });
                    let executed = match &start {
                        Start::After(executed) => Some(executed.to_string()),
                        Start::At(_) => None,
                    };
                    let relies_on = resume.last.map(|last| last.position.to_string());
                    let identity = Identity { executed, prepared, partial, relies_on, ..fresh };
                    tracing::warn!(
                        source = self.source,
                        epoch,
                        server = facts.server,
                        "another server has taken over"
                    );
                    outlet.open(Origin { epoch, identity: identity.to_string() }).await?;
                    Ok(Begun { epoch, identity, start, expected: None })
                }
                (None, known) => {
                    let identity = known.unwrap_or(fresh);
                    outlet.open(Origin { epoch, identity: identity.to_string() }).await?;
                    let expected = (identity.place != 0).then_some((Place(identity.place), identity.born));
                    Ok(Begun { epoch, identity, start, expected })
                }
            },
            Verdict::Gap { epoch, from, start, reason } => {
                tracing::warn!(source = self.source, reason, "history is lost");
                let oldest =
                    facts.files.first().and_then(|(file, _)| Place::new(*file, 4)).unwrap_or(facts.end);
                let identity = match &start {
                    Start::After(executed) => Identity { executed: Some(executed.to_string()), ..fresh },
                    Start::At(place) => Identity { place: place.0, ..fresh },
                };
                let origin = Origin { epoch, identity: identity.to_string() };
                let to = Progress { epoch, log: oldest.0 };
                outlet.gap(origin.clone(), Gap { from, to, reason }).await?;
                outlet.open(origin).await?;
                Ok(Begun { epoch, identity, start, expected: None })
            }
        }
    }

    /// Adds to what was done at the last landmark what the stream holds since, by name.
    async fn complete<O: Outlet>(
        &self,
        resume: &Resume,
        known: Option<&Identity>,
        mut done: Executed,
        outlet: &mut O,
    ) -> Result<(Executed, Option<Partial>), Ended> {
        let mut partial = known.and_then(|known| known.partial.clone());
        let Some(checkpoint) = &resume.checkpoint else { return Ok((done, partial)) };
        if resume.last.is_none_or(|last| last.position.epoch != checkpoint.epoch) {
            return Ok((done, partial));
        }
        let from = Progress { epoch: checkpoint.epoch, log: known.map_or(0, |known| known.place) };
        let mut unnamed = false;
        let whole = outlet
            .held_since(from, &mut |held| {
                let mut known = done.clone();
                if !known.add(held.transaction) {
                    unnamed = true;
                } else if held.ended {
                    done = known;
                    if partial.as_ref().is_some_and(|partial| partial.transaction == held.transaction) {
                        partial = None;
                    }
                } else {
                    let transaction = held.transaction.to_owned();
                    partial = Some(Partial { transaction, events: held.events });
                }
            })
            .await?;
        if !whole || unnamed {
            return Err(Ended::Lost(
                "another server has taken over, and the stream no longer says what it held of the old one"
                    .to_owned(),
            ));
        }
        Ok((done, partial))
    }
}

/// Where a stream begins.
struct Begun {
    epoch: u16,
    identity: Identity,
    start: Start,
    /// Where the first transaction is expected at the earliest, and when its file was begun.
    expected: Option<(Place, u32)>,
}

/// A running stream.
struct Stream {
    epoch: u16,
    server_id: u32,
    heartbeat: Duration,
    log: String,
    target: Target,
    dump: Dump,
    apply: Apply,
    landmarks: Landmarks,
    monitor: Monitor,
    /// Whether anything was told to the outlet.
    told: bool,
}

impl Stream {
    async fn run<O: Outlet>(&mut self, outlet: &mut O, context: &Context) -> Result<(), Ended> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = false;
        loop {
            // While much comes in, nothing below ever waits. The runtime's timers and sockets would wait for us instead.
            tokio::task::yield_now().await;
            let mut idle = false;
            for _ in 0..BURST {
                let Some(arrival) = self.dump.ready()? else {
                    idle = true;
                    break;
                };
                self.tell(arrival, outlet, context).await?;
                if outlet.is_full() {
                    self.flush(outlet).await?;
                }
                if due && !self.apply.in_transaction() {
                    break;
                }
            }
            if due && !self.apply.in_transaction() {
                due = false;
                self.landmarks.note(&self.apply, &self.log);
                self.keep_landmark(outlet, context, false).await?;
            }
            if idle {
                self.flush(outlet).await?;
                tokio::select! {
                    biased;
                    () = context.shutdown.cancelled() => return self.keep_landmark(outlet, context, true).await,
                    fault = self.monitor.failed() => return Err(fault.into()),
                    arrived = self.dump.next() => {
                        let arrival = arrived?;
                        self.tell(arrival, outlet, context).await?;
                    }
                    _ = tick.tick() => due = true,
                }
                continue;
            }
            tokio::select! {
                biased;
                () = context.shutdown.cancelled() => return self.keep_landmark(outlet, context, true).await,
                fault = self.monitor.failed() => return Err(fault.into()),
                _ = tick.tick() => due = true,
                () = std::future::ready(()) => {}
            }
        }
    }

    /// Waits for the broker, but not when the server is in trouble.
    async fn flush<O: Outlet>(&mut self, outlet: &mut O) -> Result<(), Ended> {
        let begun = Instant::now();
        tokio::select! {
            biased;
            flushed = outlet.flush() => flushed?,
            fault = self.monitor.failed() => return Err(fault.into()),
        }
        if begun.elapsed() > Duration::from_secs(1) {
            self.dump.forgive();
        }
        Ok(())
    }

    /// Tells one event.
    async fn tell<O: Outlet>(
        &mut self,
        arrival: Arrival,
        outlet: &mut O,
        context: &Context,
    ) -> Result<(), Ended> {
        let vitals = &context.vitals;
        vitals.last_heard.store(monitor::now(), Relaxed);
        vitals.received_bytes.fetch_add(arrival.header.size.into(), Relaxed);
        let told = self.apply.event(&arrival.header, arrival.body(), arrival.inside, outlet).await;
        let told = match told {
            Ok(None) => Ok(()),
            Ok(Some(replay)) => self.replay(&replay, outlet).await,
            Err(halt) => Err(halt),
        };
        let place = self.apply.place().0;
        vitals.received_log.store(place, Relaxed);
        vitals.server_log.fetch_max(place, Relaxed);
        if let Some(at) = self.apply.committed_at() {
            vitals.last_commit.store(at, Relaxed);
            self.told = true;
        }
        match told {
            Ok(()) => Ok(()),
            Err(Halt::Fault(fault)) => Err(fault.into()),
            Err(Halt::Foreign(reason)) => Err(Ended::Foreign(reason)),
            Err(Halt::Lost(reason)) => Err(self.gap(reason, outlet).await),
        }
    }

    /// Tells that changes up to here are not in the log as rows.
    async fn gap<O: Outlet>(&mut self, reason: String, outlet: &mut O) -> Ended {
        let flushed = outlet.flush().await;
        let here = Progress { epoch: self.epoch, log: self.apply.done().0 };
        let epoch = self.epoch.saturating_add(1);
        let identity = self.landmarks.identity(&self.apply, &self.log);
        let origin = Origin { epoch, identity: identity.to_string() };
        let gap = Gap { from: Some(here), to: Progress { epoch, ..here }, reason };
        let told = match flushed {
            Ok(()) => outlet.gap(origin, gap).await,
            Err(fault) => Err(fault),
        };
        match told {
            Ok(()) => Fault::transient("going on after the gap").into(),
            Err(fault) => fault.into(),
        }
    }

    /// Reads the rows of a prepared transaction again, and tells them as those of the open one.
    async fn replay<O: Outlet>(&mut self, replay: &Replay, outlet: &mut O) -> Result<(), Halt> {
        let prepared = &replay.prepared;
        let wanted = prepared.gtid.clone();
        let by_name = match (self.apply.executed(), wanted.as_ref().and_then(|gtid| gtid.parse().ok())) {
            (Some(Executed::MySql(set)), Some(gtid)) => {
                let mut alone = crate::gtid::mysql::GtidSet::default();
                alone.add(&gtid);
                Some(Start::After(Executed::MySql(set.subtract(&alone))))
            }
            _ => None,
        };
        let start = by_name.unwrap_or(Start::At(Place(prepared.place)));
        let request = Request {
            flavor: self.apply.flavor(),
            // Two dumps under one id would end each other.
            server_id: self.server_id ^ 1 << 30,
            heartbeat: self.heartbeat,
            log: &self.log,
            start: &start,
        };
        let unread = |reason: String| {
            Halt::Fault(Fault::definite(format!(
                "the rows of the distributed transaction {} cannot be read again: {reason}",
                replay.name
            )))
        };
        let mut dump = match Dump::start(&self.target, &request).await {
            Ok(dump) => dump,
            Err(Broken::Fault(fault)) => return Err(fault.into()),
            Err(Broken::Lost(reason)) => return Err(unread(reason)),
        };
        let mut found = false;
        loop {
            let arrival = match dump.next().await {
                Ok(arrival) => arrival,
                Err(Broken::Fault(fault)) => return Err(fault.into()),
                Err(Broken::Lost(reason)) => return Err(unread(reason)),
            };
            if !found {
                let name = match Event::decode(&arrival.header, arrival.body()) {
                    Ok(Event::Gtid(gtid)) => gtid.id.map(|id| id.to_string()),
                    Ok(Event::MariaGtid(gtid)) => Some(gtid.id.to_string()),
                    _ => continue,
                };
                if name != wanted {
                    return Err(unread(format!("the log has {name:?} where {wanted:?} should be")));
                }
                found = true;
                continue;
            }
            if self.apply.replayed(&arrival.header, arrival.body(), outlet).await? {
                return self.apply.replay_ended(outlet);
            }
            if outlet.is_full() {
                outlet.flush().await?;
            }
        }
    }

    /// Keeps the newest landmark that the broker has everything before.
    async fn keep_landmark<O: Outlet>(
        &mut self,
        outlet: &mut O,
        context: &Context,
        last: bool,
    ) -> Result<(), Ended> {
        let released = *context.released.borrow();
        if released.epoch != self.epoch {
            return Ok(());
        }
        context.vitals.confirmed_log.fetch_max(released.log, Relaxed);
        if let Some(identity) = self.landmarks.reached(released.log, last) {
            // What is not kept now is kept the next time; a run that begins further back only reads more.
            if let Err(fault) =
                outlet.open(Origin { epoch: self.epoch, identity: identity.to_string() }).await
            {
                tracing::debug!("landmark not kept: {fault}");
            }
        }
        Ok(())
    }
}
