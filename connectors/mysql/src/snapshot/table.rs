//! A table as a snapshot reads it: its shape, and the statements that read its rows.

use super::{form, literal::literal};
use crate::{
    catalog,
    table::{DescribedColumn, Description, SnapshotTable},
    value::Kind,
};
use headgate_sdk::{
    Column, Fault, Relation, TableName,
    snapshots::{self, Rows},
};
use mysql_async::{Conn, prelude::Queryable as _};
use std::sync::Arc;

/// A captured table.
#[derive(Debug)]
pub(crate) struct Table {
    /// The shape of rows that are JSON already.
    pub(super) relation: Arc<Relation>,
    /// The shape of rows as a query prints them.
    printed: Arc<Relation>,
    /// What the shape was made from; anything else is another shape.
    pub(super) facts: Facts,
    select: String,
    name: String,
    /// Name, as SQL wants it, and type of each key column, in key order.
    key: Vec<(String, Kind)>,
}

/// What the catalog says of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    description: Description,
    /// The name of its key's index.
    index: Option<String>,
    /// Whether reads of it are of one moment, that of their transaction.
    pub(super) transactional: bool,
}

/// A name as SQL wants it.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

impl Facts {
    /// Asks the catalog; `None` if there is no such table.
    pub(super) async fn ask(
        session: &mut Conn,
        name: &TableName,
    ) -> Result<Option<Self>, mysql_async::Error> {
        let TableName { schema, table } = name;
        let Some(mut description) = catalog::describe(session, schema, table).await? else { return Ok(None) };
        let kind: Option<(Option<String>, Option<String>)> = session
            .exec_first(
                "SELECT table_type, engine FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
                (schema, table),
            )
            .await?;
        let Some((kind, engine)) = kind else { return Ok(None) };
        let named = |name: &str| description.columns.iter().any(|column| column.name == name);
        if kind.as_deref() == Some("SYSTEM VERSIONED")
            && !description.columns.iter().any(|column| column.row_end)
            && !named("row_start")
            && !named("row_end")
        {
            // Columns that nobody declared: the log has them, the catalog has not.
            let column = |name: &str, row_end| DescribedColumn {
                name: name.to_owned(),
                column_type: "timestamp(6)".to_owned(),
                row_end,
                ..DescribedColumn::default()
            };
            description.columns.extend([column("row_start", false), column("row_end", true)]);
        }
        let index: Option<String> = match description.key.first() {
            None => None,
            Some(_) => {
                session
                    .exec_first(
                        "SELECT i.index_name FROM information_schema.statistics i \
                         WHERE i.table_schema = ? AND i.table_name = ? AND i.non_unique = 0 \
                         GROUP BY i.index_name HAVING SUM(i.nullable = 'YES') = 0 AND SUM(i.column_name IS NULL) = 0 \
                         ORDER BY i.index_name <> 'PRIMARY', i.index_name LIMIT 1",
                        (schema, table),
                    )
                    .await?
            }
        };
        let transactional = engine.is_some_and(|engine| {
            ["InnoDB", "ROCKSDB"].iter().any(|transactional| engine.eq_ignore_ascii_case(transactional))
        });
        Ok(Some(Self { description, index, transactional }))
    }
}

/// A type without the length that its values are not ordered by. The labels of an ENUM, say, they are ordered by.
fn ordered_kind(type_name: &str) -> &str {
    match type_name.split_once('(') {
        Some((kind @ ("char" | "varchar" | "varbinary"), _)) => kind,
        _ => type_name,
    }
}

impl snapshots::Table for Table {
    fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    fn order(&self) -> String {
        let columns = self.printed.columns.iter().zip(&self.facts.description.columns);
        let columns: Vec<_> = columns.collect();
        let key = self.printed.key.iter().filter_map(|&at| columns.get(at));
        key.map(|(column, described)| {
            let (name, kind) = (&column.name, ordered_kind(&column.type_name));
            match &described.collation {
                Some(collation) => format!("{name} {kind} {collation},"),
                None => format!("{name} {kind},"),
            }
        })
        .collect()
    }
}

impl Table {
    /// Prepares the statements for a table.
    pub(super) fn new(name: &TableName, facts: Facts) -> Result<Self, Fault> {
        let prepared = SnapshotTable::prepare(&name.schema, &name.table, &facts.description)?;
        let SnapshotTable { relation: printed, select, kinds } = prepared;
        let key = printed
            .key
            .iter()
            .filter_map(|&at| Some((quoted(&printed.columns.get(at)?.name), kinds.get(at)?.clone())));
        Ok(Self {
            relation: form::written(&printed),
            key: key.collect(),
            select: select.join(", "),
            name: format!("{}.{}", quoted(&name.schema), quoted(&name.table)),
            printed,
            facts,
        })
    }

    /// The statement that lets MariaDB use the key's index again, where it was told to ignore it.
    pub(super) fn make_visible(&self) -> Option<String> {
        let index = self.facts.index.as_ref()?;
        Some(format!("ALTER TABLE {} ALTER INDEX {} NOT IGNORED", self.name, quoted(index)))
    }

    /// The columns as a query prints them.
    pub(super) fn printed(&self) -> &[Column] {
        &self.printed.columns
    }

    /// The statement that reads rows. Fails where a key is not one of this table.
    pub(super) fn statement(&self, rows: &Rows, condition: Option<&str>) -> Result<String, Fault> {
        let mut conditions: Vec<String> = Vec::new();
        // A line of its own, so that a comment at its end stays within it.
        conditions.extend(condition.map(|condition| format!("({condition}\n)")));
        let (mut force, mut end) = (String::new(), String::new());
        match rows {
            Rows::All => {}
            Rows::After(after, limit) => {
                if let Some(after) = after {
                    conditions.push(self.behind(after)?);
                }
                // Whatever its statistics say: the rows are wanted in this order, and only the first of them.
                if let Some(index) = &self.facts.index {
                    force = format!(" FORCE INDEX ({})", quoted(index));
                }
                let order: Vec<&str> = self.key.iter().map(|(name, _)| name.as_str()).collect();
                end = format!(" ORDER BY {} LIMIT {limit}", order.join(", "));
            }
            Rows::Keys(keys) => {
                let keys = keys.iter().map(|key| self.equal(key)).collect::<Result<Vec<_>, _>>()?;
                conditions.push(format!("({})", keys.join(" OR ")));
            }
        }
        let filter = if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        };
        Ok(format!("SELECT {} FROM {}{force}{filter}{end}", self.select, self.name))
    }

    /// Statements that give nothing, one of which fails where a condition is not one.
    ///
    /// Chunks are read under the condition in parentheses. One that closes them itself (`a) OR (b`) would go past the key
    /// at which a chunk begins, and the snapshot would never end: without parentheses that is no statement.
    pub(super) fn trials(&self, condition: &str) -> [String; 2] {
        [format!("({condition}\n)"), format!("{condition}\n")]
            .map(|condition| format!("SELECT 1 FROM {} WHERE {condition} LIMIT 0", self.name))
    }

    /// The rows behind a key, written so that a range of the index is read: servers do not find one in `(a, b) > (1, 2)`.
    fn behind(&self, key: &str) -> Result<String, Fault> {
        let values = self.values(key)?;
        let pairs: Vec<(&str, &str)> =
            self.key.iter().zip(&values).map(|((name, _), value)| (name.as_str(), value.as_str())).collect();
        let alternatives = (0..pairs.len()).map(|at| {
            let (equal, rest) = pairs.split_at(at);
            let mut parts: Vec<String> =
                equal.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            parts.extend(rest.first().map(|(name, value)| format!("{name} > {value}")));
            format!("({})", parts.join(" AND "))
        });
        let alternatives: Vec<String> = alternatives.collect();
        let bound = pairs.first().map(|(name, value)| format!("{name} >= {value}")).unwrap_or_default();
        Ok(format!("{bound} AND ({})", alternatives.join(" OR ")))
    }

    fn equal(&self, key: &str) -> Result<String, Fault> {
        let values = self.values(key)?;
        let parts: Vec<String> =
            self.key.iter().zip(&values).map(|((name, _), value)| format!("{name} = {value}")).collect();
        Ok(format!("({})", parts.join(" AND ")))
    }

    fn values(&self, key: &str) -> Result<Vec<String>, Fault> {
        let values = snapshots::columns(key, self.key.len());
        let values: Option<Vec<String>> = values.and_then(|values| {
            self.key
                .iter()
                .zip(&values)
                .map(|((_, kind), json)| literal(kind, std::str::from_utf8(json).ok()?))
                .collect()
        });
        values.ok_or_else(|| {
            Fault::transient(format!(
                "the snapshot of {} cannot go on: its place is not a key of the table, or not a key that can be compared",
                self.name
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn statements_walk_the_key() {
        let column = |name: &str, column_type: &str| DescribedColumn {
            name: name.to_owned(),
            column_type: column_type.to_owned(),
            character_set: column_type.starts_with("varchar").then(|| "latin1".to_owned()),
            ..DescribedColumn::default()
        };
        let description = Description {
            columns: vec![column("a", "int"), column("b`", "varchar(9)"), column("f", "float")],
            key: vec!["b`".to_owned(), "a".to_owned()],
        };
        let facts = Facts { description, index: Some("PRIMARY".to_owned()), transactional: true };
        let name = TableName { schema: "s".to_owned(), table: "t".to_owned() };
        let table = Table::new(&name, facts).unwrap();
        let select = "SELECT `a`, CAST(`b``` AS BINARY), (`f` + 0e0) FROM `s`.`t`";
        assert_eq!(table.statement(&Rows::All, None).unwrap(), select);
        let after = Rows::After(Some("%22x%22,7".to_owned()), 32);
        assert_eq!(
            table.statement(&after, Some("a < 9 -- ten")).unwrap(),
            format!(
                "{select} FORCE INDEX (`PRIMARY`) WHERE (a < 9 -- ten\n) AND `b``` >= _utf8mb4 x'78' AND \
                 ((`b``` > _utf8mb4 x'78') OR (`b``` = _utf8mb4 x'78' AND `a` > 7)) ORDER BY `b```, `a` LIMIT 32"
            )
        );
        let keys = Rows::Keys(vec!["%22x%22,7".to_owned(), "%22%22,8".to_owned()]);
        assert!(
            table.statement(&keys, None).unwrap().ends_with(
                "WHERE ((`b``` = _utf8mb4 x'78' AND `a` = 7) OR (`b``` = _utf8mb4 x'' AND `a` = 8))"
            )
        );
        assert!(table.statement(&Rows::After(Some("7".to_owned()), 1), None).is_err());
    }

    #[test]
    fn a_key_is_ordered_by_its_collation_and_not_by_its_length() {
        use snapshots::Table as _;
        let order = |column_type: &str, collation: Option<&str>| {
            let column = DescribedColumn {
                name: "a".to_owned(),
                column_type: column_type.to_owned(),
                character_set: Some("utf8mb4".to_owned()),
                collation: collation.map(str::to_owned),
                ..DescribedColumn::default()
            };
            let description = Description { columns: vec![column], key: vec!["a".to_owned()] };
            let facts = Facts { description, index: None, transactional: true };
            let name = TableName { schema: "s".to_owned(), table: "t".to_owned() };
            Table::new(&name, facts).unwrap().order()
        };
        let former = order("varchar(9)", Some("utf8mb4_bin"));
        assert_eq!(former, "a varchar utf8mb4_bin,");
        assert_eq!(former, order("varchar(90)", Some("utf8mb4_bin")));
        assert_ne!(former, order("varchar(9)", Some("utf8mb4_general_ci")));
        assert_eq!(order("int(11)", None), "a int,");
        let labels = Some("utf8mb4_bin");
        assert_ne!(order("enum('a','b')", labels), order("enum('b','a')", labels));
    }
}
