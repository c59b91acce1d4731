//! The captured tables as `information_schema` has them now, for settings of the gateway that have to fit them.

use crate::{
    Config, catalog,
    connect::{Target, sql_fault},
    preflight::captured,
    server::Server,
    table::Description,
};
use headgate_sdk::{Fault, TableShape};

/// The tables that a run with `config` would capture.
///
/// # Errors
/// The database cannot be reached, or does not answer.
pub async fn tables(config: &Config) -> Result<Vec<TableShape>, Fault> {
    let mut session = Target::new(config)?.connect().await?;
    let server = Server::of(&mut session).await?;
    // MariaDB's FULL_NODUP leaves out of the new row what the old one has; the old one is whole.
    let image = server.setting("binlog_row_image").to_ascii_uppercase();
    let whole_before = image.is_empty() || image.starts_with("FULL");
    let make_before_whole = server.set("binlog_row_image", "'FULL'");
    let mut shapes = Vec::new();
    for (schema, table) in captured(config, &mut session).await? {
        let described = catalog::describe(&mut session, &schema, &table)
            .await
            .map_err(|error| sql_fault(error, format!("cannot look up {schema}.{table}")))?;
        // A table that went meanwhile is no table.
        if let Some(description) = described {
            shapes.push(shape(schema, table, description, whole_before, make_before_whole.clone()));
        }
    }
    Ok(shapes)
}

fn shape(
    schema: String,
    table: String,
    description: Description,
    whole_before: bool,
    make_before_whole: String,
) -> TableShape {
    // MariaDB adds the end of a system-versioned row to its keys; the events' key is without it.
    let row_end =
        |name: &String| description.columns.iter().any(|column| column.row_end && column.name == *name);
    TableShape {
        key: description.key.iter().filter(|name| !row_end(name)).cloned().collect(),
        columns: description.columns.into_iter().map(|column| column.name).collect(),
        whole_before,
        make_before_whole,
        schema,
        table,
    }
}
