//! The publications that Headgate keeps: which tables belong in them, and the statements that bring them there.
//!
//! A table whose updates and deletes are published must have a replica identity, or the *application's* UPDATE fails.
//! So there are two: `headgate_{source}` for tables with a usable identity, and `headgate_{source}_append` for the
//! others, which publishes what needs none. Never FOR ALL TABLES.

use crate::{
    Config,
    refusal::{Refusal, sql_fault},
    row_filter::{self, RowFilter, RowFilters},
    slot::bounded,
    sql_name,
};
use headgate_sdk::{CapturedTables, Fault, TableFilter, TableName};
use postgres_protocol::escape::escape_identifier;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Client;

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

/// What there is, what there should be, and how to get there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Publications that do not exist.
    pub(crate) missing: Vec<String>,
    /// In order; all in one transaction.
    pub(crate) statements: Vec<String>,
    /// What the statements do, for people.
    pub(crate) changes: Vec<String>,
    /// Every captured table that is (to be) published whole.
    pub(crate) whole: BTreeSet<TableName>,
    /// Every captured table without a usable identity.
    pub(crate) append: BTreeSet<TableName>,
    /// The OIDs of both.
    oids: BTreeMap<TableName, u32>,
    /// Those of both that are published now.
    published: BTreeSet<TableName>,
    /// Tables that have to be added but are not ours, with their owner unless that is a superuser.
    pub(crate) foreign: Vec<(TableName, Option<String>)>,
    /// Tables that are published whole although they have a row filter.
    pub(crate) unfiltered: Vec<TableName>,
    /// Tables whose row filter reads columns outside their identity, with those. Published as if they had none.
    pub(crate) uncovered: Vec<(TableName, Vec<String>)>,
    /// Row filters of tables that are not captured.
    pub(crate) orphans: Vec<String>,
}

impl Plan {
    /// Logs what was changed; of many tables the first ones and a number.
    pub(crate) fn tell(&self, source: &str) {
        const TOLD: usize = 12;
        for change in self.changes.iter().take(TOLD) {
            tracing::info!(source, change, "publications changed");
        }
        if let Some(more) = self.changes.len().checked_sub(TOLD).filter(|more| *more > 0) {
            tracing::info!(
                source,
                changes = self.changes.len(),
                "publications changed, and {more} times more"
            );
        }
    }
}

/// A table in one of the publications.
struct Member {
    publication: String,
    oid: u32,
    name: TableName,
    /// Its row filter, as the server writes it.
    filter: Option<String>,
}

impl Plan {
    /// The tables that are captured once the plan is carried out.
    pub(crate) fn captured(&self) -> CapturedTables {
        let all = self.whole.union(&self.append);
        self.with_oids(all.filter(|table| !self.foreign.iter().any(|(foreign, _)| foreign == *table)))
    }

    /// The tables that are captured while nobody carries it out. One that only should be published is not among them: it would count as
    /// read before its changes are told.
    pub(crate) fn captured_as_is(&self) -> CapturedTables {
        self.with_oids(self.published.iter())
    }

    fn with_oids<'a>(&self, tables: impl Iterator<Item = &'a TableName>) -> CapturedTables {
        tables
            .map(|table| (table.clone(), self.oids.get(table).copied().unwrap_or_default().into()))
            .collect()
    }
}

/// A table that could be captured.
struct Candidate {
    oid: u32,
    name: TableName,
    partitioned: bool,
    identity: bool,
    ancestors: Vec<u32>,
    owned: bool,
    /// `None` where it is a superuser.
    owner: Option<String>,
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
        let failed = |error| sql_fault(error, "cannot look at the publications");
        let rows = client
            .query("SELECT pubname::text, puballtables, pubviaroot, pubinsert AND pubtruncate, pubupdate AND pubdelete, pubupdate OR pubdelete, \
                COALESCE(to_jsonb(p) ->> 'pubgencols', 's') FROM pg_publication p WHERE pubname::text = ANY($1)", &[&self.names()])
            .await
            .map_err(failed)?;
        let mut plan = Plan { missing: self.names(), ..Plan::default() };
        let mut settings = Vec::new();
        for row in &rows {
            let read = || -> Result<_, tokio_postgres::Error> {
                Ok((
                    row.try_get::<_, String>(0)?,
                    row.try_get::<_, bool>(1)?,
                    row.try_get::<_, bool>(2)?,
                    row.try_get::<_, bool>(3)?,
                    row.try_get::<_, bool>(4)?,
                    row.try_get::<_, bool>(5)?,
                    row.try_get::<_, String>(6)?,
                ))
            };
            let found = read().map_err(failed)?;
            plan.missing.retain(|name| *name != found.0);
            settings.push(found);
        }
        let Kind::Kept { whole, append } = &self.kind else {
            plan.oids = self.published(client).await?;
            plan.whole = plan.oids.keys().cloned().collect();
            plan.published.clone_from(&plan.whole);
            return Ok(plan);
        };

        let mut candidates = self.candidates(client).await?;
        for candidate in candidates.iter_mut().filter(|candidate| candidate.identity) {
            let columns = self.row_filters.of(&candidate.name).and_then(RowFilter::columns);
            let Some(columns) = columns else { continue };
            let outside = row_filter::outside_identity(client, candidate.oid, columns).await?;
            if !outside.is_empty() {
                candidate.identity = false;
                plan.uncovered.push((candidate.name.clone(), outside));
            }
        }
        let captured: BTreeSet<u32> = candidates.iter().map(|candidate| candidate.oid).collect();
        // A partition whose root is published speaks under the root's name already.
        let wanted: Vec<&Candidate> = candidates
            .iter()
            .filter(|c| !c.ancestors.iter().any(|ancestor| captured.contains(ancestor)))
            .collect();
        let is_wanted = |table: &str| wanted.iter().any(|candidate| candidate.name.to_string() == table);
        plan.orphans =
            self.row_filters.tables().filter(|table| !is_wanted(table)).map(str::to_owned).collect();

        for (name, updates) in [(whole, true), (append, false)] {
            let operations = if updates { "insert, update, delete, truncate" } else { "insert, truncate" };
            let generated = if self.version >= 180_000 { ", publish_generated_columns = stored" } else { "" };
            let with = format!(
                "publish = '{operations}', publish_via_partition_root = {}{generated}",
                self.partition_root
            );
            let quoted = escape_identifier(name);
            match settings.iter().find(|found| found.0 == *name) {
                None => {
                    plan.statements.push(format!("CREATE PUBLICATION {quoted} WITH ({with})"));
                    plan.changes.push(format!("create publication {name}"));
                }
                Some((_, true, ..)) => {
                    return Err(Fault::definite(format!("publication {name} is FOR ALL TABLES: it would make updates of tables without a replica identity fail"))
                        .with_fix(format!("DROP PUBLICATION {quoted}; -- Headgate makes its own")));
                }
                Some((_, _, root, appends, all, any, generated)) => {
                    let operations = *appends && if updates { *all } else { !*any };
                    if *root != self.partition_root || !operations || generated != "s" {
                        plan.statements.push(format!("ALTER PUBLICATION {quoted} SET ({with})"));
                        plan.changes.push(format!("set the options of publication {name}"));
                    }
                }
            }
        }

        let rows = client.query(&members_statement(self.version), &[&self.names()]).await.map_err(failed)?;
        let mut members = Vec::new();
        for row in &rows {
            let read = || -> Result<_, tokio_postgres::Error> {
                Ok(Member {
                    publication: row.try_get(0)?,
                    oid: row.try_get(1)?,
                    name: TableName { schema: row.try_get(2)?, table: row.try_get(3)? },
                    filter: row.try_get(4)?,
                })
            };
            members.push(read().map_err(failed)?);
        }
        // Additions before removals, all in one transaction: a table that changes sides is never in neither.
        let mut removals = Vec::new();
        for (name, updates) in [(whole, true), (append, false)] {
            let quoted = escape_identifier(name);
            for candidate in wanted.iter().filter(|candidate| candidate.identity == updates) {
                let member = members.iter().find(|m| m.publication == *name && m.oid == candidate.oid);
                let filter = self.row_filters.of(&candidate.name);
                if member.is_some_and(|member| member.filter.is_none()) && filter.is_some() {
                    plan.unfiltered.push(candidate.name.clone());
                }
                let as_it_should_be = member.is_some_and(|member| match filter {
                    Some(filter) => filter.is(member.filter.as_deref()),
                    // A filter whose table is not there may be that of this table, renamed.
                    None => member.filter.is_none() || !plan.orphans.is_empty(),
                });
                if !as_it_should_be && !candidate.owned {
                    plan.foreign.push((candidate.name.clone(), candidate.owner.clone()));
                } else if !as_it_should_be {
                    let table = sql_name::quoted(&candidate.name);
                    if member.is_some() {
                        plan.statements.push(format!("ALTER PUBLICATION {quoted} DROP TABLE ONLY {table}"));
                        plan.changes.push(format!(
                            "change the row filter of table {} in publication {name}",
                            candidate.name
                        ));
                    } else {
                        plan.changes.push(format!("add table {} to publication {name}", candidate.name));
                    }
                    let condition =
                        filter.map_or_else(String::new, |filter| format!(" WHERE ({}\n)", filter.condition));
                    plan.statements
                        .push(format!("ALTER PUBLICATION {quoted} ADD TABLE ONLY {table}{condition}"));
                }
                let side = if updates { &mut plan.whole } else { &mut plan.append };
                side.insert(candidate.name.clone());
                if members.iter().any(|member| member.oid == candidate.oid) {
                    plan.published.insert(candidate.name.clone());
                }
                plan.oids.insert(candidate.name.clone(), candidate.oid);
            }
            for Member { publication, oid, name: member, .. } in &members {
                if publication == name
                    && !wanted.iter().any(|candidate| candidate.oid == *oid && candidate.identity == updates)
                {
                    removals.push((
                        format!("ALTER PUBLICATION {quoted} DROP TABLE ONLY {}", sql_name::quoted(member)),
                        format!("remove table {member} from publication {name}"),
                    ));
                }
            }
        }
        for (statement, change) in removals {
            plan.statements.push(statement);
            plan.changes.push(change);
        }
        Ok(plan)
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

    /// The fault of a run that cannot publish tables it should.
    pub(crate) fn foreign_fault(plan: &Plan, user: &str) -> Option<Fault> {
        let (table, owner) = plan.foreign.first()?;
        let mut names: Vec<String> =
            plan.foreign.iter().take(10).map(|(table, _)| table.to_string()).collect();
        if plan.foreign.len() > names.len() {
            names.push(format!("and {} more", plan.foreign.len() - names.len()));
        }
        let quoted = sql_name::quoted(table);
        let fix = match owner {
            Some(owner) => format!(
                "GRANT {} TO {} (or ALTER TABLE {quoted} OWNER TO a role that both share), exclude the table (add to tables: \"!{table}\"), or name a publication that its owner keeps (publication = \"…\")",
                escape_identifier(owner),
                escape_identifier(user),
            ),
            // Whoever is a member of a superuser's role may do anything.
            None => format!(
                "add to tables: \"!{table}\"; or ALTER TABLE {quoted} OWNER TO a role that {} is a member of (a superuser owns it now, and that role is not to be granted), or name a publication that an administrator keeps (publication = \"…\")",
                escape_identifier(user),
            ),
        };
        let it = if plan.foreign.len() == 1 { "it" } else { "them" };
        let what = format!("{user} does not own {}, and so may not publish {it}", names.join(", "));
        Some(Fault::definite(what).with_fix(fix))
    }

    async fn published(&self, client: &Client) -> Result<BTreeMap<TableName, u32>, Fault> {
        let failed = |error| sql_fault(error, "cannot look at the publication's tables");
        let rows = client
            .query(
                "SELECT p.schemaname::text, p.tablename::text, c.oid FROM pg_publication_tables p \
                 JOIN pg_namespace n ON n.nspname = p.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
                 WHERE p.pubname::text = ANY($1)",
                &[&self.names()],
            )
            .await
            .map_err(failed)?;
        let mut tables = BTreeMap::new();
        for row in &rows {
            let name =
                TableName { schema: row.try_get(0).map_err(failed)?, table: row.try_get(1).map_err(failed)? };
            if self.filter.matches(&name.schema, &name.table) {
                tables.insert(name, row.try_get(2).map_err(failed)?);
            }
        }
        Ok(tables)
    }

    /// The tables that the globs match and that can be published.
    async fn candidates(&self, client: &Client) -> Result<Vec<Candidate>, Fault> {
        // The server asks each *leaf* for its identity when an UPDATE comes through the root. A virtual generated column
        // in a FULL identity cannot be published, and the server then refuses the UPDATE (PostgreSQL 18).
        const STATEMENT: &str = "WITH t AS (SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind = 'p' AS partitioned, c.relispartition, \
            pg_has_role(c.relowner, 'USAGE') AS owned, \
            (SELECT o.rolname::text FROM pg_roles o WHERE o.oid = c.relowner AND NOT o.rolsuper) AS owner, \
            CASE c.relreplident \
              WHEN 'f' THEN NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v') \
              WHEN 'd' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate) \
              WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid) \
              ELSE false END AS identity \
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
            WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384 AND n.nspname NOT LIKE 'pg\\_%') \
            SELECT t.oid, t.schema, t.name, t.partitioned, t.owned, t.owner, \
              t.identity AND (NOT t.partitioned OR COALESCE((SELECT bool_and(l.identity) FROM pg_partition_tree(t.oid) p JOIN t l ON l.oid = p.relid WHERE p.isleaf), true)), \
              CASE WHEN t.relispartition THEN ARRAY(SELECT a.relid::oid FROM pg_partition_ancestors(t.oid) a WHERE a.relid <> t.oid) ELSE '{}'::oid[] END \
            FROM t ORDER BY 2, 3";
        let failed = |error| sql_fault(error, "cannot list the database's tables");
        let rows = client.query(STATEMENT, &[]).await.map_err(failed)?;
        let mut candidates = Vec::new();
        for row in &rows {
            let read = || -> Result<_, tokio_postgres::Error> {
                Ok(Candidate {
                    oid: row.try_get(0)?,
                    name: TableName { schema: row.try_get(1)?, table: row.try_get(2)? },
                    partitioned: row.try_get(3)?,
                    owned: row.try_get(4)?,
                    owner: row.try_get(5)?,
                    identity: row.try_get(6)?,
                    ancestors: row.try_get(7)?,
                })
            };
            let candidate = read().map_err(failed)?;
            // Without `partition_root` partitions speak under their own names, and their root has no rows of its own.
            let speaks = self.partition_root || !candidate.partitioned;
            if speaks && self.filter.matches(&candidate.name.schema, &candidate.name.table) {
                candidates.push(candidate);
            }
        }
        Ok(candidates)
    }
}

/// The tables of publications, with their row filters where the version has them.
fn members_statement(version: i32) -> String {
    let filter = if version >= 150_000 { "pg_get_expr(r.prqual, r.prrelid)" } else { "NULL::text" };
    format!(
        "SELECT p.pubname::text, c.oid, n.nspname::text, c.relname::text, {filter} FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid \
         JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname::text = ANY($1)"
    )
}
