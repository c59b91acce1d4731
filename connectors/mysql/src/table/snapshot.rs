//! The shape of a table for a snapshot: from the catalog alone, for the text that a query prints.

use super::{Unfit, declared::Declared, describe::Description, next_id};
use crate::value::{FromText, Kind};
use headgate_sdk::{Column, Relation};
use std::sync::Arc;

/// A table as a snapshot reads it.
#[derive(Clone, Debug)]
pub struct SnapshotTable {
    /// Its shape; the writers take the text protocol's values.
    pub relation: Arc<Relation>,
    /// For each column what to select, in order. The session's time zone is `+00:00`, its character set utf8mb4.
    pub select: Vec<String>,
    /// For each column what its values are.
    pub kinds: Vec<Kind>,
}

impl SnapshotTable {
    /// Prepares a table as the catalog describes it.
    ///
    /// # Errors
    /// [`Unfit`]: a column has a type or a character set that is not supported.
    pub fn prepare(schema: &str, table: &str, description: &Description) -> Result<Self, Unfit> {
        let mut columns = Vec::with_capacity(description.columns.len());
        let mut kinds = Vec::with_capacity(description.columns.len());
        let mut select = Vec::with_capacity(description.columns.len());
        for column in &description.columns {
            let declared = Declared::read(column);
            let declared =
                declared.map_err(|problem| Unfit::column(schema, table, &column.name, &problem))?;
            select.push(declared.kind.select(&format!("`{}`", column.name.replace('`', "``"))));
            kinds.push(declared.kind.clone());
            let writer = Box::new(FromText(declared.kind));
            columns.push(Column {
                name: column.name.clone(),
                type_name: declared.name,
                nullable: Some(column.nullable),
                writer,
            });
        }
        let row_end =
            |name: &&String| description.columns.iter().any(|column| column.row_end && column.name == **name);
        let named = description.key.iter().filter(|name| !row_end(name));
        let place = |name: &String| columns.iter().position(|column| column.name == *name);
        let key: Option<Vec<usize>> = named.map(place).collect();
        let relation = Relation {
            id: next_id(),
            schema: schema.to_owned(),
            table: table.to_owned(),
            key: key.unwrap_or_default(),
            columns,
        };
        Ok(Self { relation: Arc::new(relation), select, kinds })
    }
}
