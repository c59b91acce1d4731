//! From a connection to the first byte of the stream: server, publications, verdict on the history, slot.

use super::{Postgres, stream::Stream};
use crate::{
    Config,
    apply::Apply,
    catalog::Catalog,
    connect::{Server, SqlSession, Target},
    continuity::{self, Seen},
    facilities::Facilities,
    feedback::{self, Feedback},
    history::{Identity, SlotAction, Verdict},
    lsn::Lsn,
    monitor::{Monitor, Watch},
    publication::Publications,
    replication::{CommandError, Replication, Streaming, System},
    row_filter,
    slot::{self, Slot},
    snapshot::{Database, Snapshots},
    wal_guard::WalGuard,
};
use headgate_sdk::{
    CapturedTables, Context, Fault, Gap, Origin, Outlet, Position, Progress, Resume, SnapshotStart,
    TableFilter, snapshots,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_postgres::Client;

impl Postgres {
    /// Everything up to the first byte of the stream.
    pub(super) async fn start<O: Outlet>(
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
        let found = find_slot(&control.client, &name, &server.target.database).await?;
        let mut publications = Publications::new(&self.source, &self.config, facilities.version);
        publications.try_row_filters(&control.client, facilities.standby).await?;
        let (missing, captured) = self.publish(&publications, &control, &server, facilities.standby).await?;

        let seen = Seen {
            system: &system,
            slot: found.as_ref(),
            missing: &missing,
            lost: None,
            standby: facilities.standby,
        };
        let verdict = self.judge(&mut replication, resume, seen).await?;
        let mut opening = Opening {
            source: self,
            replication: &mut replication,
            server: &server,
            control: &control,
            system: &system,
            name: &name,
            standby: facilities.standby,
            captured: &captured,
            snapshots: context.snapshots.clone(),
            gap: None,
        };
        let (epoch, from) = opening.open(verdict, resume, found.as_ref(), outlet).await?;
        let (snapshots, gap) = (opening.snapshots, opening.gap);
        if self.config.failover && found.is_some_and(|slot| !slot.failover) && !facilities.standby {
            self.keep_on_standbys(&mut replication, &name).await?;
        }

        let streaming = match replication.start(&name, from, &publications.names()).await {
            Ok(streaming) => streaming,
            Err(error) => return Err(refused_start(error, &control.client, &name).await),
        };
        tracing::info!(source = self.source, slot = name, epoch, server = %server.address, "streaming");
        let Streaming { reader, writer } = streaming;
        let (captured, is_captured) = watch::channel(captured);
        let user = server.target.user.clone();
        let database = server.target.database.clone();
        let snapshots = Snapshots::new(
            snapshots,
            snapshots::Beginning {
                source: self.source.clone(),
                database: Database {
                    server,
                    publications: publications.names(),
                    version: facilities.version,
                    standby: facilities.standby,
                    raw_text: facilities.raw_text,
                },
                epoch,
                last: gap.or(resume.last.map(|last| last.position)),
                passed: 0,
                default_schema: "public".to_owned(),
                max_row: self.config.max_row,
                captured: is_captured,
                released: context.released.clone(),
            },
        );
        snapshots.show_places(outlet);
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
            user,
            database,
            vitals: Arc::clone(&context.vitals),
            wal: WalGuard::new(&self.source, &self.config, Arc::clone(&context.vitals)),
            captured,
        };
        Ok(Stream {
            epoch,
            reader,
            apply,
            snapshots,
            feedback,
            monitor: Monitor::start(watch, control, catalog),
        })
    }

    /// What is to be done about the history. Where the stream lacks what an earlier run read before it found a loss, that is
    /// read again first, and the loss is found again behind it.
    async fn judge(
        &self,
        replication: &mut Replication,
        resume: &Resume,
        mut seen: Seen<'_>,
    ) -> Result<Verdict, Fault> {
        match self.lost_since(resume) {
            Some(lost) if lost.is_ahead_of(resume) => {
                tracing::info!(
                    source = self.source,
                    slot = self.slot(),
                    "the stream lacks what was read before history was lost: reading that again first"
                );
                seen.missing = &[];
            }
            lost => seen.lost = lost.map(|lost| lost.reason.clone()),
        }
        continuity::verdict(replication, resume, seen).await
    }

    /// Makes a slot that was there before `failover` was set a failover slot.
    async fn keep_on_standbys(&self, replication: &mut Replication, slot: &str) -> Result<(), Fault> {
        replication
            .keep_on_standbys(slot)
            .await
            .map_err(|error| error.fault(format!("cannot make slot {slot} a failover slot")))?;
        tracing::info!(source = self.source, slot, "the slot is a failover slot now");
        Ok(())
    }

    /// Brings the publications up to date; gives those that did not exist, and the tables that are captured.
    async fn publish(
        &self,
        publications: &Publications,
        control: &SqlSession,
        server: &Server,
        standby: bool,
    ) -> Result<(Vec<String>, CapturedTables), Fault> {
        let plan = publications.plan(&control.client).await?;
        if !publications.are_kept() {
            return match plan.missing.first() {
                None => Ok((Vec::new(), plan.captured())),
                Some(name) => Err(Fault::definite(format!("publication {name} does not exist"))
                    .with_fix(format!("CREATE PUBLICATION {} FOR TABLE …; or leave publication out of the settings: Headgate then keeps its own", postgres_protocol::escape::escape_identifier(name)))),
            };
        }
        let Target { user, database, .. } = &server.target;
        if let Some(fault) = plan.foreign_fault(user) {
            return Err(fault);
        }
        if let Some(table) = plan.orphans.first() {
            return Err(row_filter::absent(table));
        }
        if let Some((table, columns)) = plan.uncovered.first() {
            return Err(row_filter::uncovered(table, columns));
        }
        if standby {
            if let Some(table) = plan.unfiltered.first() {
                return Err(Fault::definite(format!(
                    "{table} is published without its row filter, and a standby cannot change that"
                ))
                .with_fix(format!("on the primary: {}", plan.statements.join("; "))));
            }
            if !plan.missing.is_empty() {
                return Err(Fault::definite(format!(
                    "a standby cannot make publication {}",
                    plan.missing.join(" and ")
                ))
                .with_fix(format!("on the primary: {}", plan.statements.join("; "))));
            }
        } else {
            publications.carry_out(&control.client, &plan, user, database).await?;
            plan.tell(&self.source);
        }
        if plan.whole.is_empty() && plan.append.is_empty() {
            tracing::warn!(
                source = self.source,
                tables = ?self.config.tables,
                fix = "correct the globs of tables; they match schema.table as the catalog has it",
                "no table matches, and nothing is captured"
            );
        }
        let captured = if standby { plan.captured_as_is() } else { plan.captured() };
        Ok((plan.missing, captured))
    }
}

/// The slot, if it is there; one that is fit and that nobody reads.
async fn find_slot(client: &Client, name: &str, database: &str) -> Result<Option<Slot>, Fault> {
    let found = slot::inspect(client, name).await?;
    if let Some(slot) = &found {
        slot.validate(name, database)?;
        // Whoever reads it moves it on, so that what it has confirmed says nothing about what we know.
        if let Some(pid) = slot.active_pid {
            return Err(read_by_another(client, name, pid).await);
        }
    }
    Ok(found)
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
    source: &'a mut Postgres,
    replication: &'a mut Replication,
    server: &'a Server,
    control: &'a SqlSession,
    system: &'a System,
    name: &'a str,
    standby: bool,
    captured: &'a CapturedTables,
    snapshots: SnapshotStart,
    /// The position of the word of a gap, where one was given.
    gap: Option<Position>,
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
                let unknown = Identity::of(resume).is_none() && resume.proven().is_none();
                if unknown && matches!(slot, SlotAction::Keep) {
                    tracing::warn!(
                        source = self.source.source,
                        slot = self.name,
                        at = %stands,
                        "the slot was there before the stream began: if another broker, or another store of this one, had its events until now, those are not in this stream"
                    );
                }
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
                snapshots::after_gap(&mut self.snapshots, self.captured, outlet).await?;
                let gap = Gap { from, to: Progress { epoch, log: begins.0 }, reason: reason.clone() };
                outlet.gap(self.origin(epoch, begins), gap).await?;
                tracing::warn!(source = self.source.source, reason, "history is lost, going on");
                self.gap = Some(Position { epoch, commit: begins.0, index: 0 });
                outlet.open(self.origin(epoch, begins)).await?;
                Ok((epoch, start))
            }
        }
    }

    async fn create(&mut self) -> Result<Lsn, Fault> {
        let Config { failover, slot_timeout, .. } = self.source.config;
        if failover && self.standby {
            return Err(Fault::definite("a standby cannot make a failover slot").with_fix(
                "set failover = false, or point the url at the primary (several hosts with target_session_attrs=read-write find it)",
            ));
        }
        let point =
            slot::create(self.replication, self.server, self.control, self.name, failover, slot_timeout)
                .await?;
        // It went with the old slot: what the new one keeps from now on is not to be given up for it. That there is a gap
        // shows in where the new one begins.
        self.source.lost = None;
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
