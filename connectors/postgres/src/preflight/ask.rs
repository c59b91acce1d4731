//! Questions to the server.

use crate::refusal::sql_fault;
use headgate_sdk::Fault;
use tokio_postgres::{Client, Error, Row, types::ToSql};

/// All rows of a question, read by `read`.
pub(super) async fn all<T>(
    client: &Client,
    doing: &str,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
    read: impl FnMut(&Row) -> Result<T, Error>,
) -> Result<Vec<T>, Fault> {
    let failed = |error| sql_fault(error, format!("cannot {doing}"));
    let rows = client.query(statement, parameters).await.map_err(failed)?;
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

/// The one row of a question.
pub(super) async fn one<T>(
    client: &Client,
    doing: &str,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
    read: impl FnOnce(&Row) -> Result<T, Error>,
) -> Result<T, Fault> {
    let failed = |error| sql_fault(error, format!("cannot {doing}"));
    let row = client.query_one(statement, parameters).await.map_err(failed)?;
    read(&row).map_err(failed)
}

/// A setting as `SHOW` shows it; empty where the server does not know it.
pub(super) async fn setting(client: &Client, name: &str) -> Result<String, Fault> {
    let doing = format!("read the setting {name}");
    let shown: Option<String> =
        one(client, &doing, "SELECT current_setting($1, true)", &[&name], |row| row.try_get(0)).await?;
    Ok(shown.unwrap_or_default())
}
