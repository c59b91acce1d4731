//! Tables and their rows.

use super::{Apply, Halt, MAX_TABLES, Stage};
use crate::{
    event::{Flavor, RowChange, Rows, TableMap},
    table::{self, Table},
};
use headgate_sdk::{Change, Fault, Op, Outlet, Relation};
use std::sync::Arc;

impl Apply {
    /// Whether the body of a TABLE_MAP says what is known already. Most transactions begin with one.
    pub(super) fn knows(&self, body: &[u8]) -> bool {
        let Some(&[a, b, c, d, e, f]) = body.first_chunk::<6>() else { return false };
        match self.numbers.get(&u64::from_le_bytes([a, b, c, d, e, f, 0, 0])) {
            Some(Some(table)) => table.is_told_by(body),
            // A number means one table until the next file.
            Some(None) => true,
            None => false,
        }
    }

    pub(super) async fn table_map(&mut self, map: &TableMap<'_>) -> Result<(), Halt> {
        if let Some(Some(table)) = self.numbers.get(&map.table_id)
            && table.describes(map)
        {
            return Ok(());
        }
        let table =
            if self.opening.tables.captures(map.schema, map.table) { self.shape(map).await? } else { None };
        self.numbers.insert(map.table_id, table);
        Ok(())
    }

    /// The table's shape; `None` for what is no table of the application's.
    async fn shape(&mut self, map: &TableMap<'_>) -> Result<Option<Arc<Table>>, Halt> {
        let name = (map.schema.to_owned(), map.table.to_owned());
        if let Some(table) = self.shapes.get(&name)
            && table.describes(map)
        {
            return Ok(Some(Arc::clone(table)));
        }
        let flavor = self.opening.flavor;
        let description = if Table::wants_catalog(map, flavor) {
            // In a box, or every event would pay for moving the room that connecting needs.
            Box::pin(self.catalog.describe(map.schema, map.table)).await?
        } else {
            None
        };
        let table = Table::prepare(map, flavor, description.as_ref()).map_err(Fault::from)?;
        if flavor == Flavor::MariaDb && is_sequence(table.relation()) {
            return Ok(None);
        }
        if self.shapes.len() >= MAX_TABLES {
            self.shapes.clear();
        }
        let table = Arc::new(table);
        self.shapes.insert(name, Arc::clone(&table));
        Ok(Some(table))
    }

    pub(super) fn rows<O: Outlet>(&mut self, rows: &Rows<'_>, outlet: &mut O) -> Result<(), Halt> {
        let stage = self.open.as_ref().map(|open| open.stage);
        match stage {
            Some(Stage::Begun) => {}
            Some(Stage::Preparing) => return Ok(()),
            Some(Stage::Named) | None => {
                return Err(Fault::definite(format!(
                    "the log at {}.{} has rows outside any transaction",
                    self.opening.log, self.place
                ))
                .into());
            }
        }
        let is_void = rows.is_void();
        if rows.is_empty() && !is_void {
            return Ok(());
        }
        let table = match self.numbers.get(&rows.table_id) {
            Some(Some(table)) => table,
            Some(None) => return Ok(()),
            None => {
                return Err(Fault::definite(format!(
                    "the log at {}.{} has rows of a table that it did not describe",
                    self.opening.log, self.place
                ))
                .into());
            }
        };
        if is_void {
            let Relation { schema, table, .. } = &**table.relation();
            let reason = format!(
                "rows of nothing but defaults were inserted into {schema}.{table}, and with binlog_row_image = MINIMAL the log does not even say how many"
            );
            self.lose(reason);
            return Ok(());
        }
        if let Some(open) = &mut self.open {
            open.savepoints.tell();
        }
        let plain = match rows.change {
            RowChange::Write => Op::Created,
            RowChange::Update => Op::Updated,
            RowChange::Delete => Op::Deleted,
        };
        let ending = table.ending();
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut images = std::mem::take(&mut self.images).recycle();
        let read = 'read: {
            let mut reader = match rows.read(table, &mut scratch) {
                Ok(reader) => reader,
                Err(error) => break 'read Err(error),
            };
            loop {
                match reader.next_row(&mut images) {
                    Ok(true) => {
                        let op = match ending {
                            None => plain,
                            Some(ending) => match ending.told(rows.change, &images) {
                                Some(op) => op,
                                None => {
                                    // Whether it is history the catalog may have said, and may not say again when the log
                                    // is read once more: the changes behind it keep their indexes.
                                    outlet.pass_over();
                                    continue;
                                }
                            },
                        };
                        outlet.change(&Change {
                            relation: table.relation(),
                            op,
                            before: (op != Op::Created).then_some(images.before.as_slice()),
                            after: (op != Op::Deleted).then_some(images.after.as_slice()),
                        });
                    }
                    Ok(false) => break 'read Ok(()),
                    Err(error) => break 'read Err(error),
                }
            }
        };
        self.images = images.recycle();
        self.scratch = scratch;
        // One huge event should not be paid for ever after.
        self.scratch.shrink_to(1 << 20);
        read.map_err(|error| self.undecodable(error).into())
    }

    pub(super) fn truncate<O: Outlet>(&mut self, schema: String, table: String, outlet: &mut O) {
        if !self.opening.tables.captures(&schema, &table) {
            return;
        }
        let name = (schema, table);
        let relation = match self.shapes.get(&name) {
            Some(known) => Arc::clone(known.relation()),
            None => Arc::new(Relation {
                id: table::next_id(),
                schema: name.0,
                table: name.1,
                columns: Vec::new(),
                key: Vec::new(),
            }),
        };
        outlet.change(&Change { relation: &relation, op: Op::Truncated, before: None, after: None });
    }
}

/// MariaDB writes a sequence's numbers as rows of a table.
fn is_sequence(relation: &Relation) -> bool {
    const COLUMNS: [&str; 8] = [
        "next_not_cached_value",
        "minimum_value",
        "maximum_value",
        "start_value",
        "increment",
        "cache_size",
        "cycle_option",
        "cycle_count",
    ];
    relation.columns.iter().map(|column| column.name.as_str()).eq(COLUMNS)
}
