//! Which tables are told.

use headgate_sdk::TableFilter;

/// The globs of a source, and what is left out of them.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    filter: TableFilter,
    /// Globs without wildcards: a table that is named is meant.
    named: Vec<String>,
}

impl Captured {
    pub(crate) fn new(globs: &[String]) -> Self {
        let named = globs.iter().filter(|glob| !glob.contains(['*', '?', '!'])).cloned().collect();
        Self { filter: TableFilter::new(globs), named }
    }

    /// Whether changes of `schema.table` are told.
    ///
    /// The tables that gh-ost and pt-online-schema-change copy a captured table into, and swap with it in the end, are left
    /// out unless they are named: their rows are copies, and every change of the table itself is told under its own name.
    pub(crate) fn captures(&self, schema: &str, table: &str) -> bool {
        if !self.filter.matches(schema, table) {
            return false;
        }
        let copied = ["_gho", "_ghc", "_new"]
            .into_iter()
            .find_map(|suffix| table.strip_prefix('_')?.strip_suffix(suffix));
        !copied.is_some_and(|original| {
            self.filter.matches(schema, original)
                && !self.named.iter().any(|name| *name == format!("{schema}.{table}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_online_schema_changes_are_left_out() {
        let captured =
            Captured::new(&["shop.*".to_owned(), "!shop.secrets".to_owned(), "shop._named_new".to_owned()]);
        for (table, expected) in [
            ("orders", true),
            ("_orders_gho", false),
            ("_orders_ghc", false),
            ("_orders_new", false),
            ("_named_new", true),
            ("_secrets_new", true),
            ("orders_new", true),
            ("_orders_old", true),
        ] {
            assert_eq!(captured.captures("shop", table), expected, "{table}");
        }
        assert!(!captured.captures("other", "orders"));
    }
}
