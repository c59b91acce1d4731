//! What the server knows of a table now, where the log does not say it.

use crate::{
    connect::{Target, sql_fault},
    table::{DescribedColumn, Description},
};
use headgate_sdk::Fault;
use mysql_async::{Conn, prelude::Queryable as _};

/// Asks the server, by a session that is made when it is first needed and whenever it was lost.
#[derive(Debug)]
pub(crate) struct Catalog {
    target: Target,
    session: Option<Conn>,
    /// Whether the server gives transactions names that can be relied on.
    has_names: bool,
}

impl Catalog {
    pub(crate) fn new(target: Target, has_names: bool) -> Self {
        Self { target, session: None, has_names }
    }

    /// Whether every transaction has a name (MySQL: `gtid_mode = ON`).
    pub(crate) fn has_names(&self) -> bool {
        self.has_names
    }

    /// A table as it is now; `None` if it is gone.
    pub(crate) async fn describe(&mut self, schema: &str, table: &str) -> Result<Option<Description>, Fault> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.target.connect().await?,
        };
        match ask(&self.target, &mut session, schema, table).await {
            Ok(description) => {
                self.session = Some(session);
                Ok(description)
            }
            // The session may have idled too long.
            Err(_) => {
                let mut session = self.target.connect().await?;
                let description = ask(&self.target, &mut session, schema, table).await?;
                self.session = Some(session);
                Ok(description)
            }
        }
    }
}

async fn ask(
    target: &Target,
    session: &mut Conn,
    schema: &str,
    table: &str,
) -> Result<Option<Description>, Fault> {
    let described = async {
        let failed = |error| sql_fault(error, format!("cannot look up {schema}.{table}"));
        describe(session, schema, table).await.map_err(failed)
    };
    target.answer(described).await
}

type ColumnRow = (String, String, Option<String>, Option<String>, Option<String>, String);

/// Reads a table from `information_schema`.
pub(crate) async fn describe(
    session: &mut Conn,
    schema: &str,
    table: &str,
) -> Result<Option<Description>, mysql_async::Error> {
    let rows: Vec<ColumnRow> = session
        .exec(
            "SELECT column_name, column_type, character_set_name, collation_name, generation_expression, is_nullable \
             FROM information_schema.columns WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position",
            (schema, table),
        )
        .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    // MariaDB's JSON is a text with a check. MySQL has no such column in this table, or not the table, and needs none.
    let checks: Vec<String> = match session
        .exec(
            "SELECT check_clause FROM information_schema.check_constraints \
             WHERE constraint_schema = ? AND table_name = ? AND check_clause LIKE 'json_valid(%'",
            (schema, table),
        )
        .await
    {
        Err(mysql_async::Error::Server(refusal)) if matches!(refusal.code, 1054 | 1109) => Vec::new(),
        checks => checks?,
    };
    let key: Vec<(String, String)> = session
        .exec(
            "SELECT s.index_name, s.column_name FROM information_schema.statistics s \
             WHERE s.table_schema = ? AND s.table_name = ? AND s.non_unique = 0 \
             AND s.index_name = (SELECT i.index_name FROM information_schema.statistics i \
               WHERE i.table_schema = s.table_schema AND i.table_name = s.table_name AND i.non_unique = 0 \
               GROUP BY i.index_name HAVING SUM(i.nullable = 'YES') = 0 AND SUM(i.column_name IS NULL) = 0 \
               ORDER BY i.index_name <> 'PRIMARY', i.index_name LIMIT 1) \
             ORDER BY s.seq_in_index",
            (schema, table),
        )
        .await?;
    let columns = rows
        .into_iter()
        .map(|(name, column_type, character_set, collation, generation, nullable)| DescribedColumn {
            json: checks.iter().any(|check| *check == format!("json_valid(`{}`)", name.replace('`', "``"))),
            row_end: generation.is_some_and(|expression| expression.eq_ignore_ascii_case("ROW END")),
            name,
            column_type,
            character_set,
            collation,
            nullable: nullable.eq_ignore_ascii_case("YES"),
        })
        .collect();
    Ok(Some(Description { columns, key: key.into_iter().map(|(_, column)| column).collect() }))
}
