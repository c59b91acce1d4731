//! A publication that somebody else keeps, which Headgate takes as it is: what it does to the source, and to the
//! application's own writes.

use super::{Findings, Site, ask};
use crate::{
    publication::{Plan, Publications},
    sql_name,
};
use headgate_sdk::Finding;
use headgate_sdk::TableName;
use postgres_protocol::escape::escape_identifier;

/// The options of a publication.
struct Options {
    name: String,
    all_tables: bool,
    via_root: bool,
    operations: [(&'static str, bool); 4],
}

impl Options {
    fn publishes_changes(&self) -> bool {
        self.operations[1].1 || self.operations[2].1
    }
}

/// A table of the publication.
struct Member {
    table: TableName,
    /// Whether an UPDATE can name its row.
    identity: bool,
    /// Columns that are not published, and those of them that the identity needs.
    left_out: Vec<String>,
    needed: Vec<String>,
    filter: Option<String>,
    /// Stored generated columns of a table whose whole row is its identity, in a publication without them.
    generated: bool,
}

pub(super) async fn look(site: &Site<'_>, publications: &Publications, plan: &Plan) -> Findings {
    if let Some(name) = plan.missing.first() {
        return Ok(vec![
            Finding::error(
                "publication",
                format!("{name} does not exist"),
                "the server sends what a publication names, and nothing else",
            )
            .with_fix(format!("CREATE PUBLICATION {} FOR TABLE …", escape_identifier(name))),
        ]);
    }
    let mut findings = Vec::new();
    for options in options(site, &publications.names()).await? {
        findings.extend(judge(site, &options));
        for member in members(site, &options.name).await? {
            findings.extend(judge_member(&options, &member));
        }
    }
    Ok(findings)
}

fn judge(site: &Site<'_>, options: &Options) -> Vec<Finding> {
    let (name, quoted) = (&options.name, escape_identifier(&options.name));
    let mut findings = vec![Finding::good("publication", format!("{name} is taken as it is"))];
    let missing: Vec<&str> =
        options.operations.iter().filter(|(_, on)| !on).map(|(operation, _)| *operation).collect();
    if !missing.is_empty() {
        findings.push(
            Finding::warning(
                "publication",
                format!("{name} does not publish {}", missing.join(", ")),
                "these changes are not in the stream, which is then not the table's history",
            )
            .with_fix(format!(
                "ALTER PUBLICATION {quoted} SET (publish = 'insert, update, delete, truncate')"
            )),
        );
    }
    if options.all_tables {
        findings.push(
            Finding::warning(
                "publication",
                format!("{name} is FOR ALL TABLES"),
                "every table that is ever made without a primary key is one whose UPDATE and DELETE fail",
            )
            .with_fix(format!(
                "DROP PUBLICATION {quoted}; CREATE PUBLICATION {quoted} FOR TABLE …; -- before the first run: later ones find a gap there"
            )),
        );
    }
    if options.via_root != site.config.partition_root {
        findings.push(
            Finding::warning(
                "publication",
                format!("publish_via_partition_root is {}", options.via_root),
                "partition_root says otherwise, and the publication decides",
            )
            .with_fix(format!(
                "ALTER PUBLICATION {quoted} SET (publish_via_partition_root = {}), or partition_root = {}",
                site.config.partition_root, options.via_root
            )),
        );
    }
    findings
}

fn judge_member(options: &Options, member: &Member) -> Vec<Finding> {
    const FAILS: &str = "the application's UPDATE and DELETE on it fail now";
    let (table, quoted) = (&member.table, sql_name::quoted(&member.table));
    let publication = escape_identifier(&options.name);
    let mut findings = Vec::new();
    if options.publishes_changes() && !member.identity {
        findings.push(
            Finding::error(
                format!("replica identity of {table}"),
                "published with updates and deletes, but without an identity",
                FAILS,
            )
            .with_fix(format!(
                "add a primary key, or ALTER TABLE {quoted} REPLICA IDENTITY FULL, or ALTER PUBLICATION {publication} DROP TABLE {quoted}"
            )),
        );
    }
    if options.publishes_changes() && !member.needed.is_empty() {
        findings.push(
            Finding::error(
                format!("column list of {table}"),
                format!("without {}, which its replica identity needs", member.needed.join(", ")),
                FAILS,
            )
            .with_fix(format!(
                "BEGIN; ALTER PUBLICATION {publication} DROP TABLE {quoted}; ALTER PUBLICATION {publication} ADD TABLE {quoted}{}; COMMIT",
                member.filter.as_ref().map_or_else(String::new, |filter| format!(" WHERE ({filter})"))
            )),
        );
    } else if !member.left_out.is_empty() {
        findings.push(Finding::warning(
            format!("column list of {table}"),
            format!("leaves out {}", member.left_out.join(", ")),
            "events have no such columns; if that is meant, all is well",
        ));
    }
    if options.publishes_changes() && member.generated {
        findings.push(
            Finding::error(
                format!("generated columns of {table}"),
                "REPLICA IDENTITY FULL, and its generated columns are not published",
                FAILS,
            )
            .with_fix(format!("ALTER PUBLICATION {publication} SET (publish_generated_columns = stored)")),
        );
    }
    if let Some(filter) = &member.filter {
        findings.push(Finding::warning(
            format!("row filter of {table}"),
            format!("WHERE {filter}"),
            "events of other rows are not there, and an update across the border is told as created or deleted",
        ));
    }
    findings
}

async fn options(site: &Site<'_>, names: &[String]) -> Result<Vec<Options>, headgate_sdk::Fault> {
    const STATEMENT: &str = "SELECT pubname::text, puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate \
        FROM pg_publication WHERE pubname::text = ANY($1)";
    ask::all(site.client, "look at the publication", STATEMENT, &[&names], |row| {
        Ok(Options {
            name: row.try_get(0)?,
            all_tables: row.try_get(1)?,
            via_root: row.try_get(2)?,
            operations: [
                ("insert", row.try_get(3)?),
                ("update", row.try_get(4)?),
                ("delete", row.try_get(5)?),
                ("truncate", row.try_get(6)?),
            ],
        })
    })
    .await
}

async fn members(site: &Site<'_>, publication: &str) -> Result<Vec<Member>, headgate_sdk::Fault> {
    // What came with later versions is asked for through JSON, so that one statement serves all. The columns that the
    // identity needs: all for FULL, else those of its index.
    const STATEMENT: &str = "WITH m AS ( \
          SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.relreplident AS identity, \
            CASE WHEN jsonb_typeof(to_jsonb(r) -> 'prattrs') = 'array' \
              THEN ARRAY(SELECT v::int2 FROM jsonb_array_elements_text(to_jsonb(r) -> 'prattrs') v) END AS columns, \
            to_jsonb(t) ->> 'rowfilter' AS filter, \
            COALESCE(to_jsonb(p) ->> 'pubgencols', 'n') AS generated, \
            (SELECT i.indkey::int2[] FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND \
              CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate WHEN 'i' THEN i.indisreplident ELSE false END) AS key \
          FROM pg_publication p JOIN pg_publication_tables t ON t.pubname = p.pubname \
          JOIN pg_namespace n ON n.nspname = t.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename \
          LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid \
          WHERE p.pubname::text = $1) \
        SELECT m.schema, m.name, m.identity = 'f' OR m.key IS NOT NULL, \
          ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped \
            AND m.columns IS NOT NULL AND a.attnum <> ALL (m.columns) ORDER BY a.attnum), \
          ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped \
            AND m.columns IS NOT NULL AND a.attnum <> ALL (m.columns) \
            AND (m.identity = 'f' OR a.attnum = ANY (m.key)) ORDER BY a.attnum), \
          m.filter, \
          m.identity = 'f' AND m.columns IS NULL AND m.generated <> 's' AND current_setting('server_version_num')::int >= 180000 \
            AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = m.oid AND a.attgenerated = 's') \
        FROM m ORDER BY 1, 2";
    ask::all(site.client, "look at the publication's tables", STATEMENT, &[&publication], |row| {
        Ok(Member {
            table: TableName { schema: row.try_get(0)?, table: row.try_get(1)? },
            identity: row.try_get(2)?,
            left_out: row.try_get(3)?,
            needed: row.try_get(4)?,
            filter: row.try_get(5)?,
            generated: row.try_get(6)?,
        })
    })
    .await
}
