//! From a connection to the first event: server, lock, verdict on the history, dump.

use super::{Ended, MySql, stream::Stream};
use crate::{
    apply::{Apply, Opening},
    catalog::Catalog,
    connect::Target,
    dump::{Dump, Request},
    executed::Executed,
    history::{Facts, Identity, Partial, Start, Verdict, judge, judge_failover},
    landmarks::Landmarks,
    monitor::{self, Monitor, Watch},
    place::Place,
    server::{self, Server},
    snapshot::{Database, Snapshots},
    tables::Captured,
};
use headgate_sdk::{
    CapturedTables, Context, Fault, Gap, Origin, Outlet, Position, Progress, Resume, SnapshotStart, clock,
    snapshots,
};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};
use tokio::sync::watch;

impl MySql {
    /// Everything up to the first event.
    pub(super) async fn start<O: Outlet>(
        &self,
        resume: &Resume,
        outlet: &mut O,
        context: &Context,
        lost: Option<&str>,
        foreign: bool,
    ) -> Result<(Stream, Snapshots), Ended> {
        let target = Target::new(&self.config)?;
        let mut session = target.connect().await?;
        let server = target.answer(Server::of(&mut session)).await?;
        server.suffices()?;
        let server_id = self.config.server_id_of(&self.source);
        if server.setting("server_id").parse() == Ok(server_id) {
            return Err(Fault::definite(format!("the server itself has the id {server_id}"))
                .with_fix("give the source another server_id")
                .into());
        }
        target.answer(server::lock(&mut session, &target, server_id)).await?;
        let facts = target.answer(server::facts(&mut session, &server)).await?;
        let captured = target.answer(monitor::tables(&self.config, &mut session)).await?;
        let mut start = context.snapshots.clone();
        let again = Again { start: &mut start, captured: &captured };
        let begun = self.settle(resume, &facts, outlet, (lost, foreign), again).await?;
        let snapshots = start;
        let Begun { epoch, identity, start, expected, gap } = begun;
        // Of log that is not read again nothing is compared.
        let held =
            resume.last.filter(|last| last.position.epoch == epoch && last.position.commit > identity.place);
        let held = held.and_then(|last| Some((Place(last.position.commit), last.committed_at?)));
        let request = Request {
            flavor: server.flavor,
            server_id,
            heartbeat: self.config.heartbeat,
            log: &facts.log,
            start: &start,
        };
        let dump = target.answer(Dump::start(&target, &request)).await?;
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
                held,
                executed,
                prepared: identity.prepared.clone(),
                partial: identity.partial.clone(),
                tables: Captured::new(&self.config.tables),
                lower_case: server.setting("lower_case_table_names") == "1",
                query: self.config.query,
            },
            Catalog::new(target.clone(), server.has_names()),
        );
        tracing::info!(source = self.source, epoch, server = %target.address(), version = server.name(), "streaming");
        // Places of another server, or of a log that was begun anew, are not to be compared with these.
        context.vitals.confirmed_log.store(identity.place, Relaxed);
        context.vitals.server_log.store(facts.end.0, Relaxed);
        let since = if identity.confirmed_at > 0 { identity.confirmed_at } else { clock::now() };
        let confirmed_at = Arc::new(AtomicI64::new(since));
        let (captured, is_captured) = watch::channel(captured);
        let snapshots = Snapshots::new(
            snapshots,
            snapshots::Beginning {
                source: self.source.clone(),
                database: Database { target: target.clone(), server: server.clone(), end: facts.end },
                epoch,
                last: gap.or(resume.last.map(|last| last.position)),
                passed: apply.done().0,
                default_schema: target.database.clone().unwrap_or_default(),
                max_row: u64::MAX,
                captured: is_captured,
                released: context.released.clone(),
            },
        );
        snapshots.show_places(outlet);
        let landmarks = Landmarks::new(identity, Arc::clone(&confirmed_at));
        let watch = Watch {
            source: self.source.clone(),
            target: target.clone(),
            server,
            vitals: Arc::clone(&context.vitals),
            confirmed_at,
            config: self.config.clone(),
            captured,
        };
        let stream = Stream {
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
            heard: 0,
        };
        Ok((stream, snapshots))
    }

    /// Finds out where to go on, and tells the outlet what has to be told before.
    async fn settle<O: Outlet>(
        &self,
        resume: &Resume,
        facts: &Facts,
        outlet: &mut O,
        (lost, foreign): (Option<&str>, bool),
        again: Again<'_>,
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
                Ok(Begun { epoch: 1, identity, start, expected: None, gap: None })
            }
            Verdict::Continue { epoch, start } => match (taken_over, known) {
                (Some(partial), known) => {
                    // Places of the old server mean nothing here; names do.
                    let Identity { mut prepared, confirmed_at, .. } = known.unwrap_or_default();
                    prepared.retain(|_, prepared| {
                        prepared.place = 0;
                        prepared.gtid.is_some() && matches!(start, Start::After(Executed::MySql(_)))
                    });
                    let executed = match &start {
                        Start::After(executed) => Some(executed.to_string()),
                        Start::At(_) => None,
                    };
                    let relies_on = resume.last.map(|last| last.position.to_string());
                    let identity = Identity { confirmed_at, executed, prepared, partial, relies_on, ..fresh };
                    tracing::warn!(
                        source = self.source,
                        epoch,
                        server = facts.server,
                        "another server has taken over"
                    );
                    outlet.open(Origin { epoch, identity: identity.to_string() }).await?;
                    Ok(Begun { epoch, identity, start, expected: None, gap: None })
                }
                (None, known) => {
                    let identity = known.unwrap_or(fresh);
                    outlet.open(Origin { epoch, identity: identity.to_string() }).await?;
                    let expected = (identity.place != 0).then_some((Place(identity.place), identity.born));
                    Ok(Begun { epoch, identity, start, expected, gap: None })
                }
            },
            Verdict::Gap { epoch, from, start, reason } => {
                let oldest =
                    facts.files.first().and_then(|(file, _)| Place::new(*file, 4)).unwrap_or(facts.end);
                let identity = match &start {
                    Start::After(executed) => Identity { executed: Some(executed.to_string()), ..fresh },
                    Start::At(place) => Identity { place: place.0, ..fresh },
                };
                let origin = Origin { epoch, identity: identity.to_string() };
                let to = Progress { epoch, log: oldest.0 };
                snapshots::after_gap(again.start, again.captured, outlet).await?;
                outlet.gap(origin.clone(), Gap { from, to, reason: reason.clone() }).await?;
                tracing::warn!(source = self.source, reason, "history is lost, going on");
                outlet.open(origin).await?;
                let gap = Some(Position { epoch, commit: oldest.0, index: 0 });
                Ok(Begun { epoch, identity, start, expected: None, gap })
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
    /// The position of the word of a gap, where one was given.
    gap: Option<Position>,
}

/// What has to be read again where history is lost, and that is the policy.
struct Again<'a> {
    start: &'a mut SnapshotStart,
    captured: &'a CapturedTables,
}
