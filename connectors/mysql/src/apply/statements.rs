//! Statements that bound transactions, empty tables, or are changes in words.

use super::{Apply, Halt, MAX_PREPARED, Replay, Stage};
use crate::{
    event,
    history::Prepared,
    statement::{Name, Statement},
    value::Charset,
};
use headgate_sdk::{Fault, Outlet};

/// What a statement is. Its text is in the character set of the client that sent it, and so are the names in it.
pub(super) fn read(query: &event::Query<'_>) -> Statement {
    let text = &*query.text;
    let charset = if text.is_ascii() { None } else { query.charset() };
    match charset.and_then(|collation| Charset::of_collation(collation.into())?.decode(text).ok()) {
        Some(text) => Statement::read(text.as_bytes()),
        None => Statement::read(text),
    }
}

impl Apply {
    pub(super) fn query<O: Outlet>(
        &mut self,
        query: &event::Query<'_>,
        outlet: &mut O,
    ) -> Result<Option<Replay>, Halt> {
        let statement = read(query);
        let schema = String::from_utf8_lossy(query.schema);
        let Some(stage) = self.open.as_ref().map(|open| open.stage) else {
            return match statement {
                Statement::Empty => Ok(None),
                _ => Err(Fault::definite(format!(
                    "the log at {}.{} has a statement outside any transaction",
                    self.opening.log, self.place
                ))
                .into()),
            };
        };
        match statement {
            Statement::Begin | Statement::CreateWithRows => self.begin(outlet),
            Statement::Commit => {
                self.begin(outlet);
                self.commit(outlet)?;
            }
            Statement::Rollback if stage == Stage::Named => self.commit(outlet)?,
            // In row format what is rolled back is not logged. If it is, it was told already.
            Statement::Rollback => {
                self.lose("a transaction was logged and rolled back (ROLLBACK in the log): its rows were told, and are not in the database".to_owned());
                self.commit(outlet)?;
            }
            Statement::XaStart => {
                if let Some(open) = &mut self.open {
                    open.stage = Stage::Preparing;
                }
            }
            Statement::Savepoint(_) | Statement::RollbackTo(_) if stage == Stage::Begun => {
                self.savepoint(&statement);
            }
            // Where the transaction is prepared, they are met when its rows are read again.
            Statement::Savepoint(_) | Statement::RollbackTo(_) => {}
            Statement::XaEnd | Statement::Release | Statement::Empty => {}
            Statement::XaCommit(name) => {
                self.begin(outlet);
                match self.opening.prepared.remove(&name) {
                    Some(prepared) => return Ok(Some(Replay { name, prepared })),
                    None => {
                        self.lose(format!(
                            "the distributed transaction {name} was prepared before this source began to read, or on a server whose log is not at hand; its rows cannot be told"
                        ));
                        self.commit(outlet)?;
                    }
                }
            }
            Statement::XaRollback(name) => {
                self.opening.prepared.remove(&name);
                self.commit(outlet)?;
            }
            Statement::Truncate(name) => {
                self.begin(outlet);
                let (schema, table) = self.stored(name, &schema);
                self.truncate(schema, table, outlet);
                self.commit(outlet)?;
            }
            Statement::Change(name) => {
                let name = name.map(|name| self.stored(name, &schema));
                let captured =
                    name.as_ref().is_none_or(|(schema, table)| self.opening.tables.captures(schema, table));
                if captured {
                    let table =
                        name.map_or("tables that are captured, perhaps".to_owned(), |(_, table)| table);
                    self.lose(format!(
                        "a session changed {table} in statement format (binlog_format), which logs the statement and not the rows"
                    ));
                }
                if stage == Stage::Named {
                    self.commit(outlet)?;
                }
            }
            // A shape changed: the next TABLE_MAP tells it. Within a transaction (MariaDB's CREATE … SELECT) rows follow.
            Statement::Other => {
                if stage == Stage::Named {
                    self.commit(outlet)?;
                }
            }
        }
        Ok(None)
    }

    /// Schema and table of a name in a statement, as the server has them.
    fn stored(&self, name: Name, schema: &str) -> (String, String) {
        let (schema, table) = (name.schema.unwrap_or_else(|| schema.to_owned()), name.table);
        if self.opening.lower_case { (schema.to_lowercase(), table.to_lowercase()) } else { (schema, table) }
    }

    /// A savepoint is set, or what was told since one is rolled back.
    pub(super) fn savepoint(&mut self, statement: &Statement) {
        let Some(open) = &mut self.open else { return };
        match statement {
            Statement::Savepoint(name) => open.savepoints.set(name),
            Statement::RollbackTo(name) if open.savepoints.undoes(name) => {
                self.lose(format!(
                    "rows were logged and rolled back to the savepoint {name} (ROLLBACK TO in the log): they were told, and are not in the database"
                ));
            }
            _ => {}
        }
    }

    pub(super) fn prepare<O: Outlet>(
        &mut self,
        prepare: &event::XaPrepare<'_>,
        outlet: &mut O,
    ) -> Result<Option<Replay>, Halt> {
        let Some(open) = &self.open else { return Err(self.unended()) };
        let prepared = Prepared { place: open.began.0, gtid: open.gtid.map(|name| name.to_string()) };
        let name = prepare.name();
        if prepare.one_phase {
            self.begin(outlet);
            return Ok(Some(Replay { name, prepared }));
        }
        if self.opening.prepared.len() >= MAX_PREPARED {
            return Err(Fault::definite(format!(
                "more than {MAX_PREPARED} distributed transactions are prepared and not ended"
            ))
            .with_fix("end them: XA RECOVER; then XA COMMIT or XA ROLLBACK")
            .into());
        }
        self.opening.prepared.insert(name, prepared);
        self.commit(outlet)?;
        Ok(None)
    }
}
