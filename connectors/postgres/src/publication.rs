//! The publications that Headgate keeps: which tables belong in them, and the statements that bring them there.
//!
//! A table whose updates and deletes are published must have a replica identity, or the *application's* UPDATE fails.
//! So there are two: `headgate_{source}` for tables with a usable identity, and `headgate_{source}_append` for the
//! others, which publishes what needs none. Never FOR ALL TABLES.

mod found;
mod plan;

use crate::{
    Config,
    refusal::{Refusal, sql_fault},
    row_filter::{self, RowFilter, RowFilters},
    slot::bounded,
    sql_name,
};
use found::{Candidate, Member, Publication};
use headgate_sdk::{Fault, TableFilter};
use postgres_protocol::escape::escape_identifier;
use std::collections::BTreeSet;
use tokio_postgres::Client;

pub(crate) use plan::Plan;

/// The publications of one source.
pub(crate) struct Publications {
    kind: Kind,
    filter: TableFilter,
    row_filters: RowFilters,
    /// The name under which row filters are tried; never committed.
    probe: String,
    partition_root: bool,
    version: i32,
}

enum Kind {
    /// One that somebody else keeps.
    Given(String),
    /// Ours.
    Kept { whole: String, append: String },
}

/// One of the two publications that are ours.
#[derive(Clone, Copy)]
struct Side<'a> {
    name: &'a str,
    /// Whether it is that of tables with a usable identity.
    whole: bool,
}

impl Side<'_> {
    fn operations(self) -> &'static str {
        if self.whole { "insert, update, delete, truncate" } else { "insert, truncate" }
    }

    /// Whether a publication publishes these operations and no others.
    fn is_of(self, found: &Publication) -> bool {
        found.appends && if self.whole { found.rewrites } else { !found.rewrites_some }
    }

    fn holds(self, candidate: &Candidate) -> bool {
        candidate.identity == self.whole
    }
}

impl Publications {
    /// The publications of `source` on a server of this version (`server_version_num`).
    pub(crate) fn new(source: &str, config: &Config, version: i32) -> Self {
        let kind = match &config.publication {
            Some(name) => Kind::Given(name.clone()),
            None => Kind::Kept {
                whole: bounded(format!("headgate_{source}")),
                append: bounded(format!("headgate_{source}_append")),
            },
        };
        Self {
            kind,
            filter: TableFilter::new(&config.tables),
            row_filters: RowFilters::new(&config.row_filters),
            probe: bounded(format!("headgate_probe_{source}")),
            partition_root: config.partition_root,
            version,
        }
    }

    /// For START_REPLICATION.
    pub(crate) fn names(&self) -> Vec<String> {
        match &self.kind {
            Kind::Given(name) => vec![name.clone()],
            Kind::Kept { whole, append } => vec![whole.clone(), append.clone()],
        }
    }

    /// Whether they are Headgate's own.
    pub(crate) fn are_kept(&self) -> bool {
        matches!(self.kind, Kind::Kept { .. })
    }

    /// Tries the row filters, so that [`plan`](Self::plan) knows what they read; changes nothing. A server that cannot be
    /// written to is not asked.
    ///
    /// # Errors
    /// The server does not take a filter, or has none.
    pub(crate) async fn try_row_filters(&mut self, client: &Client, standby: bool) -> Result<(), Fault> {
        if standby || !self.are_kept() {
            return Ok(());
        }
        self.row_filters.attempt(client, &self.probe, self.partition_root, self.version).await
    }

    /// Compares what is with what should be.
    pub(crate) async fn plan(&self, client: &Client) -> Result<Plan, Fault> {
        let names = self.names();
        let found = found::publications(client, &names).await?;
        let is_missing = |name: &String| !found.iter().any(|found| found.name == *name);
        let mut plan = Plan {
            missing: names.iter().filter(|name| is_missing(name)).cloned().collect(),
            ..Plan::default()
        };
        let Kind::Kept { whole, append } = &self.kind else {
            plan.oids = found::published(client, &names).await?;
            plan.oids.retain(|table, _| self.filter.matches(&table.schema, &table.table));
            plan.whole = plan.oids.keys().cloned().collect();
            plan.published.clone_from(&plan.whole);
            return Ok(plan);
        };
        let candidates = self.candidates(client, &mut plan).await?;
        let wanted = outermost(&candidates);
        let is_wanted = |table: &str| wanted.iter().any(|candidate| candidate.name.to_string() == table);
        plan.orphans =
            self.row_filters.tables().filter(|table| !is_wanted(table)).map(str::to_owned).collect();
        let sides = [Side { name: whole, whole: true }, Side { name: append, whole: false }];
        for side in sides {
            let found = found.iter().find(|found| found.name == side.name);
            self.plan_options(side, found, &mut plan)?;
        }
        let members = found::members(client, &names, self.version).await?;
        // Additions before removals, all in one transaction: a table that changes sides is never in neither.
        for side in sides {
            for candidate in wanted.iter().filter(|candidate| side.holds(candidate)) {
                self.plan_table(side, candidate, &members, &mut plan);
            }
        }
        for side in sides {
            plan_removals(side, &wanted, &members, &mut plan);
        }
        Ok(plan)
    }

    /// The tables that the globs match and that can be published. One whose row filter reads more than its identity counts as
    /// one without.
    async fn candidates(&self, client: &Client, plan: &mut Plan) -> Result<Vec<Candidate>, Fault> {
        let mut candidates = found::candidates(client).await?;
        // Without `partition_root` partitions speak under their own names, and their root has no rows of its own.
        candidates.retain(|candidate| {
            (self.partition_root || !candidate.partitioned)
                && self.filter.matches(&candidate.name.schema, &candidate.name.table)
        });
        for candidate in candidates.iter_mut().filter(|candidate| candidate.identity) {
            let columns = self.row_filters.of(&candidate.name).and_then(RowFilter::columns);
            let Some(columns) = columns else { continue };
            let outside = row_filter::outside_identity(client, candidate.oid, columns).await?;
            if !outside.is_empty() {
                candidate.identity = false;
                plan.uncovered.push((candidate.name.clone(), outside));
            }
        }
        Ok(candidates)
    }

    /// Makes a publication, or sets its options where they are others.
    fn plan_options(
        &self,
        side: Side<'_>,
        found: Option<&Publication>,
        plan: &mut Plan,
    ) -> Result<(), Fault> {
        let (name, quoted) = (side.name, escape_identifier(side.name));
        let generated = if self.version >= 180_000 { ", publish_generated_columns = stored" } else { "" };
        let with = format!(
            "publish = '{}', publish_via_partition_root = {}{generated}",
            side.operations(),
            self.partition_root
        );
        match found {
            None => plan.step(
                format!("CREATE PUBLICATION {quoted} WITH ({with})"),
                format!("create publication {name}"),
            ),
            Some(found) if found.all_tables => {
                return Err(Fault::definite(format!("publication {name} is FOR ALL TABLES: it would make updates of tables without a replica identity fail"))
                    .with_fix(format!("DROP PUBLICATION {quoted}; -- Headgate makes its own")));
            }
            Some(found) => {
                if found.via_root != self.partition_root || !side.is_of(found) || found.generated != "s" {
                    plan.step(
                        format!("ALTER PUBLICATION {quoted} SET ({with})"),
                        format!("set the options of publication {name}"),
                    );
                }
            }
        }
        Ok(())
    }

    /// Brings a table into its publication, with its row filter.
    fn plan_table(&self, side: Side<'_>, candidate: &Candidate, members: &[Member], plan: &mut Plan) {
        let (publication, quoted) = (side.name, escape_identifier(side.name));
        let Candidate { oid, name, .. } = candidate;
        let member = members.iter().find(|m| m.publication == publication && m.oid == *oid);
        let filter = self.row_filters.of(name);
        if member.is_some_and(|member| member.filter.is_none()) && filter.is_some() {
            plan.unfiltered.push(name.clone());
        }
        let as_it_should_be = member.is_some_and(|member| match filter {
            Some(filter) => filter.is(member.filter.as_deref()),
            // A filter whose table is not there may be that of this table, renamed.
            None => member.filter.is_none() || !plan.orphans.is_empty(),
        });
        if !as_it_should_be && !candidate.owned {
            plan.foreign.push((name.clone(), candidate.owner.clone()));
        } else if !as_it_should_be {
            let table = sql_name::quoted(name);
            let change = if member.is_some() {
                plan.statements.push(format!("ALTER PUBLICATION {quoted} DROP TABLE ONLY {table}"));
                format!("change the row filter of table {name} in publication {publication}")
            } else {
                format!("add table {name} to publication {publication}")
            };
            let condition =
                filter.map_or_else(String::new, |filter| format!(" WHERE ({}\n)", filter.condition));
            plan.step(format!("ALTER PUBLICATION {quoted} ADD TABLE ONLY {table}{condition}"), change);
        }
        let tables = if side.whole { &mut plan.whole } else { &mut plan.append };
        tables.insert(name.clone());
        if members.iter().any(|member| member.oid == *oid) {
            plan.published.insert(name.clone());
        }
        plan.oids.insert(name.clone(), *oid);
    }

    /// Carries a plan out, as a whole or not at all.
    pub(crate) async fn carry_out(
        &self,
        client: &Client,
        plan: &Plan,
        user: &str,
        database: &str,
    ) -> Result<(), Fault> {
        if plan.statements.is_empty() {
            return Ok(());
        }
        // Statements sent as one are one transaction.
        let Err(error) = client.batch_execute(&plan.statements.join("; ")).await else { return Ok(()) };
        let doing = "cannot bring the publications up to date";
        match Refusal::of(&error) {
            Some(refusal) if refusal.code == "42501" => Err(refusal.fault(doing).with_fix(format!(
                "GRANT CREATE ON DATABASE {} TO {}; or let an administrator run: {}",
                escape_identifier(database),
                escape_identifier(user),
                plan.statements.join("; ")
            ))),
            // A table went while we looked.
            Some(refusal) if matches!(refusal.code.as_str(), "42P01" | "42704" | "42710" | "3F000") => {
                Err(Fault::transient(doing).with_cause(refusal))
            }
            _ => Err(sql_fault(error, doing)),
        }
    }
}

/// The tables under whose names changes are told: a partition whose root is published speaks under the root's name already.
fn outermost(candidates: &[Candidate]) -> Vec<&Candidate> {
    let captured: BTreeSet<u32> = candidates.iter().map(|candidate| candidate.oid).collect();
    let is_within = |c: &&Candidate| c.ancestors.iter().any(|ancestor| captured.contains(ancestor));
    candidates.iter().filter(|candidate| !is_within(candidate)).collect()
}

/// Takes out of a publication what is not to be in it.
fn plan_removals(side: Side<'_>, wanted: &[&Candidate], members: &[Member], plan: &mut Plan) {
    let (publication, quoted) = (side.name, escape_identifier(side.name));
    for Member { oid, name, .. } in members.iter().filter(|member| member.publication == publication) {
        if !wanted.iter().any(|candidate| candidate.oid == *oid && side.holds(candidate)) {
            plan.step(
                format!("ALTER PUBLICATION {quoted} DROP TABLE ONLY {}", sql_name::quoted(name)),
                format!("remove table {name} from publication {publication}"),
            );
        }
    }
}
