//! Rows of ten columns of usual types, and ways to write many of them.

use crate::support::postgres::Postgres;

/// How the rows are written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Each row in a transaction of its own.
    SingleRows,
    /// A thousand rows a transaction.
    Thousands,
    /// All rows in one transaction.
    OneTransaction,
}

impl Load {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SingleRows => "each row its own transaction",
            Self::Thousands => "1000-row transactions",
            Self::OneTransaction => "one transaction",
        }
    }

    /// Writes `rows` rows.
    pub(crate) async fn write(self, postgres: &Postgres, rows: u64) {
        const INSERT: &str = "INSERT INTO bench (customer, status, note, total, rate, ok, at, doc, tag) \
             SELECT 1234567, 'new', 'a note of some forty characters for order', 199.95, 0.25, true, now(), \
             '{\"a\": 1, \"b\": \"two\", \"c\": [1, 2, 3]}', '6f1c1f4e-7a57-4d0a-9c3e-0d3d6d8b5b11'";
        let (transactions, size) = match self {
            Self::SingleRows => (rows, 1),
            Self::Thousands => (rows / 1000, 1000),
            Self::OneTransaction => (1, rows),
        };
        postgres
            .execute(&format!(
                "DO $$ BEGIN FOR i IN 1..{transactions} LOOP \
                 {INSERT} FROM generate_series(1, {size}); COMMIT; END LOOP; END $$"
            ))
            .await;
    }
}

/// Makes the table and its publication.
pub(crate) async fn create_table(postgres: &Postgres) {
    postgres
        .execute(
            "CREATE TABLE bench (id bigserial PRIMARY KEY, customer bigint, status text, note text, \
             total numeric(12,2), rate float8, ok boolean, at timestamptz, doc jsonb, tag uuid); \
             CREATE PUBLICATION bench FOR TABLE bench",
        )
        .await;
}
