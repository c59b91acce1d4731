//! The source: from a connection to an ordered stream of changes.
//!
//! ```text
//!  walsender ──▶ Reader ──▶ Apply ──▶ Outlet            the run's own task
//!      ▲                                 │
//!      └── Feedback ◀── released ◀───────┘ (broker)     its own task, waits for nobody
//!  server ◀──▶ Monitor (slot, publications, heartbeat)  its own task
//! ```
//!
//! # Order and duplicates
//! Everything is told from one task, in the log's order. After a restart the server sends again what was not confirmed;
//! the outlet drops what the stream already holds.
//!
//! # Durability
//! The server is told to forget only what came back through [`Context::released`].
//!
//! # Shutdown
//! Ours: confirm once more, say goodbye, `Ok`. The server's: it waits for a walsender whose client has not confirmed
//! everything, and we confirm late on purpose, so we leave at once.

use crate::{
    Config,
    apply::Apply,
    catalog::Catalog,
    connect::{Server, SqlSession, Target},
    feedback::{self, Feedback},
    frame::Frame,
    history::{Facts, Identity, SlotAction, Verdict, judge},
    lsn::Lsn,
    monitor::{self, Alarm, Monitor, Watch},
    publication::Publications,
    refusal::{Refusal, sql_fault},
    replication::{CommandError, Replication, Streaming, System, garbled, lost},
    slot::{self, Slot},
};
use headgate_sdk::{Context, Fault, Gap, Origin, Outlet, Progress, Resume, Source, TableFilter, Vitals};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio_postgres::Client;

/// Oldest server: logical messages and pgoutput's options as we use them.
pub(crate) const OLDEST: i32 = 140_000;

/// A PostgreSQL database as a source of changes.
#[derive(Debug)]
pub struct Postgres {
    source: String,
    config: Config,
    /// Why the slot, though it is there, cannot give the whole history any more. Found while streaming, judged by the
    /// next run; a process that dies in between finds it again, for nothing behind it was confirmed.
    lost: Option<String>,
}

impl Postgres {
    /// The source named `source`.
    #[must_use]
    pub fn new(source: impl Into<String>, config: Config) -> Self {
        Self { source: source.into(), config, lost: None }
    }

    /// The slot's name.
    fn slot(&self) -> String {
        slot_name(&self.source, &self.config)
    }
}

/// The slot of a source.
pub(crate) fn slot_name(source: &str, config: &Config) -> String {
    config.slot.clone().unwrap_or_else(|| slot::default_name(source))
}

impl Source for Postgres {
    async fn run<O: Outlet>(
        &mut self,
        resume: Resume,
        outlet: &mut O,
        context: Context,
    ) -> Result<(), Fault> {
        let shutdown = context.shutdown.clone();
        let stream = tokio::select! {
            stream = Box::pin(self.start(&resume, outlet, &context)) => stream?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let vitals = Arc::clone(&context.vitals);
        vitals.streaming.store(1, Relaxed);
        let ended = Box::pin(stream.run(outlet, context)).await;
        vitals.streaming.store(0, Relaxed);
        match ended {
            Ok(()) => Ok(()),
            Err(Ended::Fault(fault)) => Err(fault),
            Err(Ended::HistoryLost(reason)) => {
                let fault = Fault::transient(format!("history is lost: {reason}"));
                self.lost = Some(reason);
                Err(fault)
            }
        }
    }
}

/// What a server is, as far as it matters.
pub(crate) struct Facilities {
    pub(crate) version: i32,
    pub(crate) standby: bool,
    pub(crate) wal_sender_timeout: Duration,
    /// Whether the database keeps text as bytes of no known encoding (SQL_ASCII).
    raw_text: bool,
}

impl Facilities {
    /// Asks the server.
    pub(crate) async fn of(client: &Client) -> Result<Self, Fault> {
        let failed = |error| sql_fault(error, "cannot ask the server what it is");
        let row = client
            .query_one(
                "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), \
                 (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'), \
                 current_setting('server_encoding') = 'SQL_ASCII'",
                &[],
            )
            .await
            .map_err(failed)?;
        let timeout: i64 = row.try_get(2).map_err(failed)?;
        Ok(Self {
            version: row.try_get(0).map_err(failed)?,
            standby: row.try_get(1).map_err(failed)?,
            wal_sender_timeout: Duration::from_millis(u64::try_from(timeout).unwrap_or(0)),
            raw_text: row.try_get(3).map_err(failed)?,
        })
    }

    /// The encoding to read the log's text in. A server that is asked for UTF-8 converts; where there is nothing to
    /// convert from, it would fail at the first value that is not UTF-8, at every try, and hold its log for good. Taken as
    /// it is, that one value goes to the dead letters.
    fn encoding(&self) -> &'static str {
        if self.raw_text { "SQL_ASCII" } else { "UTF8" }
    }

    fn suffices(&self, config: &Config) -> Result<(), Fault> {
        if self.version < OLDEST {
            return Err(Fault::definite(format!("PostgreSQL {} is too old", self.version / 10_000))
                .with_fix("upgrade the server to PostgreSQL 14 or later"));
        }
        if config.failover && self.version < 170_000 {
            return Err(Fault::definite(format!(
                "failover slots need PostgreSQL 17, and this is {}",
                self.version / 10_000
            ))
            .with_fix("set failover = false"));
        }
        if self.standby && self.version < 160_000 {
            return Err(Fault::definite(
                "this server is a standby, and only PostgreSQL 16 and later decode on a standby",
            )
            .with_fix(
                "point the url at the primary (several hosts with target_session_attrs=read-write find it)",
            ));
        }
        Ok(())
    }
}

impl Postgres {
    /// Everything up to the first byte of the stream.
    async fn start<O: Outlet>(
        &mut self,
        resume: &Resume,
        outlet: &mut O,
        context: &Context,
    ) -> Result<Stream, Fault> {
        let target = Target::new(&self.config, &self.source)?;
        let (server, control) = Server::find(target).await?;
        let facilities = Facilities::of(&control.client).await?;
        facilities.suffices(&self.config)?;
        let catalog = server.sql().await?;
        let (socket, backend) = server.replication(facilities.encoding()).await?;
        let mut replication = Replication::new(socket, backend, self.config.max_row);
        let system = replication.identify().await?;

        let name = self.slot();
        let found = slot::inspect(&control.client, &name).await?;
        if let Some(slot) = &found {
            slot.validate(&name, &server.target.database)?;
            // Whoever reads it moves it on, so that what it has confirmed says nothing about what we know.
            if let Some(pid) = slot.active_pid {
                return Err(read_by_another(&control.client, &name, pid).await);
            }
        }
        let publications = Publications::new(&self.source, &self.config, facilities.version);
        let missing = self.publish(&publications, &control, &server, facilities.standby).await?;

        let switches = match Identity::of(resume) {
            Some(known) if known.system == system.id && known.timeline < system.timeline => {
                replication.timeline_history(system.timeline).await?
            }
            _ => Vec::new(),
        };
        // A slot finds no publication in the log before the publication was made.
        let unpublished = (found.is_some() && !missing.is_empty()).then(|| monitor::lost(&missing));
        let unusable = found
            .as_ref()
            .and_then(|slot| slot.unusable.clone())
            .or(unpublished)
            .or_else(|| found.as_ref().and(self.lost.clone()));
        let facts = Facts {
            system: &system,
            switches: &switches,
            confirmed: found.as_ref().map(|slot| slot.confirmed.unwrap_or_default()),
            unusable: unusable.as_deref(),
            standby: facilities.standby,
        };
        let verdict = judge(resume, &facts);
        let mut opening = Opening {
            source: self,
            replication: &mut replication,
            server: &server,
            control: &control,
            system: &system,
            name: &name,
        };
        let (epoch, from) = opening.open(verdict, resume, found.as_ref(), outlet).await?;
        self.lost = None;

        let streaming = match replication.start(&name, from, &publications.names()).await {
            Ok(streaming) => streaming,
            Err(error) => return Err(refused_start(error, &control.client, &name).await),
        };
        tracing::info!(source = self.source, slot = name, epoch, server = %server.address, "streaming");
        let Streaming { reader, writer } = streaming;
        let interval = feedback::interval(facilities.wal_sender_timeout);
        let feedback =
            Feedback::start(writer, context.released.clone(), epoch, interval, Arc::clone(&context.vitals));
        let apply = Apply::new(
            epoch,
            Catalog::new(Arc::clone(&catalog.client)),
            TableFilter::new(&self.config.tables),
        );
        let watch = Watch {
            source: self.source.clone(),
            slot: name,
            pid: backend.pid,
            publications,
            standby: facilities.standby,
            heartbeat: self.config.heartbeat,
            user: server.target.user.clone(),
            database: server.target.database.clone(),
            vitals: Arc::clone(&context.vitals),
        };
        Ok(Stream { epoch, reader, apply, feedback, monitor: Monitor::start(watch, control, catalog) })
    }

    /// Brings the publications up to date; gives those that did not exist.
    async fn publish(
        &self,
        publications: &Publications,
        control: &SqlSession,
        server: &Server,
        standby: bool,
    ) -> Result<Vec<String>, Fault> {
        let plan = publications.plan(&control.client).await?;
        if !publications.are_kept() {
            return match plan.missing.first() {
                None => Ok(Vec::new()),
                Some(name) => Err(Fault::definite(format!("publication {name} does not exist"))
                    .with_fix(format!("CREATE PUBLICATION {} FOR TABLE …; or leave publication out of the settings: Headgate then keeps its own", postgres_protocol::escape::escape_identifier(name)))),
            };
        }
        let Target { user, database, .. } = &server.target;
        if let Some(fault) = Publications::foreign_fault(&plan, user) {
            return Err(fault);
        }
        if standby {
            if !plan.missing.is_empty() {
                return Err(Fault::definite(format!(
                    "a standby cannot make publication {}",
                    plan.missing.join(" and ")
                ))
                .with_fix(format!("on the primary: {}", plan.statements.join("; "))));
            }
            if !plan.statements.is_empty() {
                tracing::warn!(
                    source = self.source,
                    statements = plan.statements.join("; "),
                    "the publications are out of date, which only the primary can change"
                );
            }
        } else {
            publications.carry_out(&control.client, &plan, user, database).await?;
            for change in &plan.changes {
                tracing::info!(source = self.source, change, "publications changed");
            }
        }
        monitor::warn_of_append(&self.source, &plan, &mut BTreeSet::new());
        if plan.whole.is_empty() && plan.append.is_empty() {
            tracing::warn!(source = self.source, "no table matches the globs of tables");
        }
        Ok(plan.missing)
    }
}

/// Another gateway reads the slot, or a session of ours that the server is about to give up: that is waited for.
async fn read_by_another(client: &Client, name: &str, pid: i32) -> Fault {
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        match slot::inspect(client, name).await {
            Ok(Some(Slot { active_pid: Some(_), .. })) => {}
            Ok(_) => {
                return Fault::transient(format!("slot {name} was being read until just now, by PID {pid}"));
            }
            Err(fault) => return fault,
        }
    }
    Fault::busy(format!("slot {name} is being read already, by PID {pid}"))
        .with_fix(format!("if nobody needs that: SELECT pg_terminate_backend({pid})"))
}

/// START_REPLICATION was refused.
async fn refused_start(error: CommandError, control: &Client, slot: &str) -> Fault {
    let refusal = match error {
        CommandError::Refused(refusal) => refusal,
        CommandError::Broken(fault) => return fault,
    };
    let doing = format!("cannot stream from slot {slot}");
    match refusal.code.as_str() {
        // It went while we looked, or has just been invalidated: the next run looks again and says what is lost.
        "42704" => Fault::transient(doing).with_cause(refusal),
        "55000" => match slot::inspect(control, slot).await {
            Ok(Some(Slot { unusable: Some(_), .. }) | None) => Fault::transient(doing).with_cause(refusal),
            Ok(Some(_)) | Err(_) => refusal.fault(doing).with_fix(format!(
                "look at it: SELECT * FROM pg_replication_slots WHERE slot_name = '{slot}'; if it is of no use: SELECT pg_drop_replication_slot('{slot}')"
            )),
        },
        _ => refusal.fault(doing),
    }
}

/// Carries out a verdict: gap, slot, open.
struct Opening<'a> {
    source: &'a Postgres,
    replication: &'a mut Replication,
    server: &'a Server,
    control: &'a SqlSession,
    system: &'a System,
    name: &'a str,
}

impl Opening<'_> {
    /// Gives the epoch and the position to start from (zero: where the slot stands).
    async fn open<O: Outlet>(
        &mut self,
        verdict: Verdict,
        resume: &Resume,
        found: Option<&Slot>,
        outlet: &mut O,
    ) -> Result<(u16, Lsn), Fault> {
        let stands = found.and_then(|slot| slot.confirmed).unwrap_or_default();
        match verdict {
            Verdict::Behind { proven } => Err(Fault::transient(format!(
                "this standby has replayed its primary's log up to {} only, and {proven} was read already",
                self.system.log
            ))),
            Verdict::Continue { epoch, slot } => {
                let created = match slot {
                    SlotAction::Create => self.create().await?,
                    // The beginning of an epoch stays what it was.
                    SlotAction::Keep | SlotAction::Recreate => {
                        Identity::of(resume).map_or(stands, |known| known.created)
                    }
                };
                outlet.open(self.origin(epoch, created)).await?;
                Ok((epoch, Lsn::default()))
            }
            Verdict::Gap { epoch, from, start, reason, slot } => {
                // The new slot comes before the word of the gap, which ends where it begins: so nothing is lost while
                // somebody makes up their mind. If we die in between, the next run finds the slot made anew.
                let begins = match slot {
                    SlotAction::Keep => stands.max(start),
                    SlotAction::Create => self.create().await?,
                    SlotAction::Recreate => {
                        // Whoever holds an unreadable slot holds it for nothing.
                        slot::drop(&self.control.client, self.name).await?;
                        self.create().await?
                    }
                };
                tracing::warn!(source = self.source.source, reason, "history is lost");
                let gap = Gap { from, to: Progress { epoch, log: begins.0 }, reason };
                outlet.gap(self.origin(epoch, begins), gap).await?;
                outlet.open(self.origin(epoch, begins)).await?;
                Ok((epoch, start))
            }
        }
    }

    async fn create(&mut self) -> Result<Lsn, Fault> {
        let Config { failover, slot_timeout, .. } = self.source.config;
        let point =
            slot::create(self.replication, self.server, self.control, self.name, failover, slot_timeout)
                .await?;
        tracing::info!(source = self.source.source, slot = self.name, from = %point, "slot created");
        Ok(point)
    }

    fn origin(&self, epoch: u16, created: Lsn) -> Origin {
        let identity = Identity {
            system: self.system.id.clone(),
            timeline: self.system.timeline,
            slot: self.name.to_owned(),
            created,
        };
        Origin { epoch, identity: identity.to_string() }
    }
}

/// Why a stream ended.
enum Ended {
    Fault(Fault),
    HistoryLost(String),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A running stream.
struct Stream {
    epoch: u16,
    reader: crate::frame::Reader<tokio::io::ReadHalf<crate::connect::Socket>>,
    apply: Apply,
    feedback: Feedback,
    monitor: Monitor,
}

impl Stream {
    async fn run<O: Outlet>(mut self, outlet: &mut O, context: Context) -> Result<(), Ended> {
        loop {
            // While much comes in, nothing below ever waits. The runtime's timers and sockets, and the feedback with
            // them, would wait for us instead.
            tokio::task::yield_now().await;
            while let Some(frame) = self.reader.next().map_err(garbled)? {
                read(frame, self.epoch, &mut self.apply, &self.feedback, &context.vitals, outlet).await?;
                if outlet.is_full() {
                    flush(outlet, &mut self.feedback, &mut self.monitor).await?;
                }
            }
            flush(outlet, &mut self.feedback, &mut self.monitor).await?;
            tokio::select! {
                biased;
                () = context.shutdown.cancelled() => {
                    self.feedback.finish().await;
                    return Ok(());
                }
                ended = trouble(&mut self.feedback, &mut self.monitor) => return Err(ended),
                filled = self.reader.fill() => {
                    filled.map_err(lost)?;
                    context.vitals.last_heard.store(feedback::now(), Relaxed);
                }
            }
        }
    }
}

/// Waits for the broker, but not when the database is in trouble.
async fn flush<O: Outlet>(
    outlet: &mut O,
    feedback: &mut Feedback,
    monitor: &mut Monitor,
) -> Result<(), Ended> {
    tokio::select! {
        biased;
        flushed = outlet.flush() => Ok(flushed?),
        ended = trouble(feedback, monitor) => Err(ended),
    }
}

async fn trouble(feedback: &mut Feedback, monitor: &mut Monitor) -> Ended {
    tokio::select! {
        fault = feedback.failed() => Ended::Fault(fault),
        alarm = monitor.alarm() => match alarm {
            Alarm::Fault(fault) => Ended::Fault(fault),
            Alarm::HistoryLost(reason) => Ended::HistoryLost(reason),
        },
    }
}

/// The header of an XLogData: tag, start, end, time.
const XLOG_HEADER: usize = 25;

fn malformed() -> Fault {
    Fault::definite("the server sent a replication message that cannot be read")
        .with_fix("connect to the server itself, not to a proxy")
}

/// A big-endian number at `at`.
fn number(body: &[u8], at: usize) -> Result<u64, Fault> {
    body.get(at..)
        .and_then(|rest| rest.first_chunk::<8>())
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or_else(malformed)
}

async fn read<O: Outlet>(
    frame: Frame<'_>,
    epoch: u16,
    apply: &mut Apply,
    feedback: &Feedback,
    vitals: &Vitals,
    outlet: &mut O,
) -> Result<(), Ended> {
    match frame {
        Frame::Whole { tag: b'd', body } => match body.first() {
            Some(b'w') => {
                let start = number(body, 1)?;
                let payload = body.get(XLOG_HEADER..).ok_or_else(malformed)?;
                count(payload.len() as u64, start, feedback, vitals);
                if payload.first() == Some(&b'B') {
                    // Begin: final LSN, commit time.
                    let committed =
                        number(payload, 9)?.cast_signed().saturating_add(feedback::POSTGRES_EPOCH);
                    vitals.last_commit.store(committed, Relaxed);
                }
                apply.message(payload, start, outlet).await?;
            }
            Some(b'k') => {
                let end = number(body, 1)?;
                count(0, end, feedback, vitals);
                vitals.server_log.fetch_max(end, Relaxed);
                if body.get(17) == Some(&1) {
                    feedback.answer();
                }
                // Within a transaction the end is that of what was sent, not of what is whole.
                if !apply.in_transaction() {
                    outlet.progress(Progress { epoch, log: end });
                }
            }
            _ => return Err(malformed().into()),
        },
        Frame::Oversized { head, size } => {
            if head.first() != Some(&b'w') {
                return Err(malformed().into());
            }
            let size = size.saturating_sub(XLOG_HEADER as u64);
            count(size, number(head, 1)?, feedback, vitals);
            apply.oversized(head.get(XLOG_HEADER..).ok_or_else(malformed)?, size, outlet)?;
        }
        Frame::Whole { tag: b'E', body } => return Err(refused(Refusal::parse(body))),
        Frame::Whole { tag: b'N', body } => noticed(&Refusal::parse(body))?,
        Frame::Whole { tag: b'S', .. } => {}
        Frame::Whole { tag: b'c' | b'C' | b'Z', .. } => {
            return Err(
                Fault::transient("the server ended the stream (it shuts down, or was promoted)").into()
            );
        }
        Frame::Whole { .. } => return Err(malformed().into()),
    }
    Ok(())
}

fn count(bytes: u64, log: u64, feedback: &Feedback, vitals: &Vitals) {
    vitals.received_bytes.fetch_add(bytes, Relaxed);
    feedback.received(log);
    vitals.received_log.fetch_max(log, Relaxed);
}

/// An error in the middle of the stream.
fn refused(refusal: Refusal) -> Ended {
    match refusal.code.as_str() {
        // Before PostgreSQL 18: a publication that does not exist at this position of the log.
        "42704" => Ended::HistoryLost(format!("the log cannot be decoded from here on: {refusal}")),
        // Invalidated while it was read: the next run looks at the slot.
        "55000" => {
            Ended::Fault(Fault::transient("the server can no longer read the slot").with_cause(refusal))
        }
        _ if refusal.is_shutdown() => {
            Ended::Fault(Fault::transient("the database is shutting down").with_cause(refusal))
        }
        _ => Ended::Fault(refusal.fault("the server ended the stream")),
    }
}

/// From PostgreSQL 18 on a publication that does not exist at this position of the log is skipped with a warning, and
/// its changes with it.
fn noticed(refusal: &Refusal) -> Result<(), Ended> {
    if refusal.severity == "WARNING" && refusal.code == "55000" {
        return Err(Ended::HistoryLost(format!("changes were skipped: {refusal}")));
    }
    tracing::info!(notice = %refusal, "the server notes");
    Ok(())
}
