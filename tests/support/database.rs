//! What the database holds, as the contract says that it looks in events.

use super::stream::canonical;
use base64::{Engine, engine::general_purpose::STANDARD};
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// A row: canonical JSON by column.
pub(crate) type Row = BTreeMap<String, String>;

/// Tables by `schema.table`.
pub(crate) type Tables = BTreeMap<String, Table>;

/// A table as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// The database's names of the columns' types.
    pub(crate) types: BTreeMap<String, String>,
    /// Rows by their key.
    pub(crate) rows: BTreeMap<Row, Row>,
}

/// Reads every table of a schema that has a primary key.
pub(crate) async fn read(client: &Client, schema: &str) -> Tables {
    let columns = client
        .query(
            "SELECT c.relname, quote_ident(c.relname), a.attname, quote_ident(a.attname), t.typname,
                    a.attnum = ANY (i.indkey)
             FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = $1
             JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             JOIN pg_type t ON t.oid = a.atttypid
             WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
             ORDER BY c.relname, a.attnum",
            &[&schema],
        )
        .await
        .unwrap();
    let mut tables = Tables::new();
    for columns in columns.chunk_by(|a, b| a.get::<_, &str>(0) == b.get::<_, &str>(0)) {
        let selected: Vec<String> = columns
            .iter()
            .map(|column| match column.get::<_, &str>(4) {
                kind if kind.starts_with('_') => format!("to_json({})::text", column.get::<_, &str>(3)),
                _ => format!("{}::text", column.get::<_, &str>(3)),
            })
            .collect();
        let statement =
            format!("SELECT {} FROM \"{schema}\".{}", selected.join(", "), columns[0].get::<_, &str>(1));
        let mut table = Table::default();
        for column in columns {
            table.types.insert(column.get(2), column.get(4));
        }
        for found in client.query(&statement, &[]).await.unwrap() {
            let (mut key, mut row) = (Row::new(), Row::new());
            for (index, column) in columns.iter().enumerate() {
                let json = found
                    .get::<_, Option<&str>>(index)
                    .map_or("null".to_owned(), |text| json(column.get(4), text));
                if column.get(5) {
                    key.insert(column.get(2), json.clone());
                }
                row.insert(column.get(2), json);
            }
            table.rows.insert(key, row);
        }
        tables.insert(format!("{schema}.{}", columns[0].get::<_, &str>(0)), table);
    }
    tables
}

/// The contract's JSON of a value that PostgreSQL wrote as text, for the types that the workload uses.
fn json(kind: &str, text: &str) -> String {
    let string = |text: &str| serde_json::Value::from(text).to_string();
    match kind {
        "int2" | "int4" | "int8" | "bool" => text.to_owned(),
        "float4" | "float8" if matches!(text, "NaN" | "Infinity" | "-Infinity") => string(text),
        "float4" | "float8" => text.to_owned(),
        "json" | "jsonb" => canonical(text),
        kind if kind.starts_with('_') => canonical(text),
        "bytea" => {
            let digits = text.strip_prefix("\\x").expect("bytea_output is hex").as_bytes();
            let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hexadecimal digit") as u8;
            let bytes: Vec<u8> = digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
            string(&STANDARD.encode(bytes))
        }
        "timestamp" if text.len() >= 19 && text.is_char_boundary(11) => string(&text.replacen(' ', "T", 1)),
        "timestamptz" if text.ends_with("+00") => {
            string(&format!("{}Z", text.trim_end_matches("+00").replacen(' ', "T", 1)))
        }
        "numeric" | "text" | "varchar" | "uuid" | "date" | "time" | "interval" | "timestamp"
        | "timestamptz" => string(text),
        other => panic!("the oracle has no mapping for the type {other}"),
    }
}

/// Whether two JSON values of a column are the same value. Spelling is free where the contract leaves it free: the
/// digits of a float, and zeros that end a fraction of a second.
pub(crate) fn same(kind: Option<&String>, a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match kind.map(String::as_str) {
        Some("float4" | "float8") => match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => a.to_bits() == b.to_bits(),
            _ => false,
        },
        Some("timestamp" | "timestamptz" | "time") => moment(a) == moment(b),
        _ => false,
    }
}

fn moment(json: &str) -> String {
    let text = json.trim_matches('"');
    let (text, zone) = text.strip_suffix('Z').map_or((text, ""), |text| (text, "Z"));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    format!("{text}{zone}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_the_json_of_the_contract() {
        for (kind, text, expected) in [
            ("int8", "-9223372036854775808", "-9223372036854775808"),
            ("numeric", "1.50", "\"1.50\""),
            ("float8", "NaN", "\"NaN\""),
            ("bytea", "\\xdeadbeef", "\"3q2+7w==\""),
            ("timestamptz", "2026-11-22 14:06:07.12+00", "\"2026-11-22T14:06:07.12Z\""),
            ("timestamp", "2026-11-22 14:06:07", "\"2026-11-22T14:06:07\""),
            ("timestamp", "infinity", "\"infinity\""),
            ("jsonb", "{\"b\": 1.50, \"a\": []}", "{\"a\":[],\"b\":1.50}"),
        ] {
            assert_eq!(json(kind, text), expected, "{kind} {text}");
        }
    }

    #[test]
    fn only_free_spelling_is_forgiven() {
        let is = |kind: &str, a, b| same(Some(&kind.to_owned()), a, b);
        assert!(is("float8", "1e+20", "100000000000000000000"));
        assert!(!is("float8", "0.1", "0.10000000000000002"));
        assert!(is("timestamptz", "\"2026-11-22T14:06:07.120000Z\"", "\"2026-11-22T14:06:07.12Z\""));
        assert!(!is("timestamptz", "\"2026-11-22T14:06:10Z\"", "\"2026-11-22T14:06:1Z\""));
        assert!(!is("numeric", "\"1.50\"", "\"1.5\""));
        assert!(!is("text", "\"\"", "null"));
    }
}
