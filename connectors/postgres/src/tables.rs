//! Which tables are captured.

/// A choice of tables by globs on `schema.table`.
#[derive(Clone, Debug)]
pub(crate) struct TableFilter {
    tables: Vec<String>,
}

impl TableFilter {
    /// A filter by globs.
    pub(crate) fn new(tables: &[String]) -> Self {
        Self { tables: tables.to_vec() }
    }

    /// Whether a table is captured.
    pub(crate) fn matches(&self, schema: &str, table: &str) -> bool {
        let is = |glob: &str| match glob.split_once('.') {
            Some((s, "*")) => s == schema,
            _ => glob == format!("{schema}.{table}"),
        };
        let (out, within): (Vec<&str>, Vec<&str>) =
            self.tables.iter().map(String::as_str).partition(|glob| glob.starts_with('!'));
        within.into_iter().any(is) && !out.iter().any(|glob| is(&glob[1..]))
    }
}
