//! A request for a snapshot: which tables are meant, and whether the condition can be asked of them.

use super::Reader;
use crate::{Fault, SnapshotRequest, TableName};
use std::{collections::BTreeSet, sync::Arc};
use tokio::{sync::oneshot, task::JoinHandle};

/// A request that is being looked at.
pub(super) struct Asked {
    pub(super) tables: Vec<TableName>,
    pub(super) condition: Option<String>,
    pub(super) answer: oneshot::Sender<Result<u64, Fault>>,
    check: JoinHandle<Result<(), Fault>>,
}

impl Asked {
    /// Begins to look at a request. `None`: it is answered already.
    pub(super) fn new<R: Reader>(
        request: SnapshotRequest,
        captured: &BTreeSet<TableName>,
        default_schema: &str,
        database: Arc<R::Database>,
    ) -> Option<Self> {
        let SnapshotRequest { tables, condition, answer } = request;
        let tables = match meant(&tables, condition.as_deref(), captured, default_schema) {
            Ok(tables) => tables,
            Err(fault) => {
                // Whoever asked may have gone away.
                let _ = answer.send(Err(fault));
                return None;
            }
        };
        let check = tokio::spawn(check::<R>(database, tables.clone(), condition.clone()));
        Some(Self { tables, condition, answer, check })
    }

    /// Waits for what was found. May be cancelled without loss.
    pub(super) async fn checked(&mut self) -> Result<(), Fault> {
        (&mut self.check)
            .await
            .unwrap_or_else(|_| Err(Fault::transient("the task that looks at a request failed")))
    }
}

/// The captured tables that are meant by what a person writes.
fn meant(
    asked: &[String],
    condition: Option<&str>,
    captured: &BTreeSet<TableName>,
    default_schema: &str,
) -> Result<Vec<TableName>, Fault> {
    if asked.is_empty() {
        if condition.is_some() {
            return Err(Fault::definite("a condition is for one table").with_fix("name the table"));
        }
        if captured.is_empty() {
            return Err(
                Fault::definite("the source captures no table").with_fix("see `tables` in its settings")
            );
        }
        return Ok(captured.iter().cloned().collect());
    }
    let mut meant = BTreeSet::new();
    for name in asked {
        // `orders` is the one of the default schema, or the only table of that name.
        let full = captured.iter().filter(|table| table.to_string() == *name);
        let plain = captured.iter().filter(|table| table.schema == default_schema && table.table == *name);
        let any: Vec<_> = captured.iter().filter(|table| table.table == *name).collect();
        let found = full.chain(plain).next().or(if any.len() == 1 { any.first().copied() } else { None });
        match found {
            Some(table) => meant.insert(table.clone()),
            None if any.is_empty() => {
                return Err(
                    Fault::definite(format!("the source captures no table {name}")).with_fix(known(captured))
                );
            }
            None => {
                return Err(Fault::definite(format!("there are several tables {name}")).with_fix(format!(
                    "write it with its schema: {}",
                    any.first().map_or_else(String::new, ToString::to_string)
                )));
            }
        };
    }
    if condition.is_some() && meant.len() != 1 {
        return Err(Fault::definite("a condition is for one table").with_fix("ask for one table at a time"));
    }
    Ok(meant.into_iter().collect())
}

/// What could be meant.
fn known(captured: &BTreeSet<TableName>) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<String> = captured.iter().take(SHOWN).map(ToString::to_string).collect();
    match captured.len().checked_sub(SHOWN) {
        _ if shown.is_empty() => "see `tables` in its settings: it captures none".to_owned(),
        None | Some(0) => format!("it captures {}", shown.join(", ")),
        Some(more) => format!("it captures {} and {more} more", shown.join(", ")),
    }
}

/// Whether the tables are there, and the condition can be asked.
async fn check<R: Reader>(
    database: Arc<R::Database>,
    tables: Vec<TableName>,
    condition: Option<String>,
) -> Result<(), Fault> {
    let (Some(condition), [name]) = (condition, tables.as_slice()) else { return Ok(()) };
    let mut session = R::start(database).await?;
    let table = session
        .describe(name)
        .await?
        .ok_or_else(|| Fault::definite(format!("table {name} is not there, or not captured")))?;
    session.try_condition(&table, &condition).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finds_what_is_meant() {
        let name =
            |schema: &str, table: &str| TableName { schema: schema.to_owned(), table: table.to_owned() };
        let captured: BTreeSet<TableName> =
            [("public", "orders"), ("old", "orders"), ("a", "log"), ("b", "log"), ("a", "one")]
                .map(|(schema, table)| name(schema, table))
                .into();
        let meant = |asked: &[&str], condition: Option<&str>| {
            let asked: Vec<String> = asked.iter().map(|&name| name.to_owned()).collect();
            meant(&asked, condition, &captured, "public")
        };
        assert_eq!(meant(&["orders"], None).unwrap(), [name("public", "orders")]);
        assert_eq!(meant(&["old.orders", "one"], None).unwrap(), [name("a", "one"), name("old", "orders")]);
        assert_eq!(meant(&[], None).unwrap().len(), 5);
        assert_eq!(meant(&["one"], Some("x")).unwrap().len(), 1);
        for (asked, condition) in
            [(&["log"][..], None), (&["none"], None), (&[], Some("x")), (&["one", "orders"], Some("x"))]
        {
            assert!(meant(asked, condition).is_err(), "{asked:?}");
        }
    }
}
