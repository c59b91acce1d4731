//! The shapes of tables: what a TABLE_MAP says, and what a catalog has to add, made into writers of JSON.
//!
//! Pure. A shape is prepared once; its rows are then cut ([`Rows::read`](crate::event::Rows::read)) and written without
//! looking at any metadata again.
//!
//! The log tells a table's shape as it was when its rows were written, the catalog as it is now. So the log wins: the catalog
//! adds to a column only what the log cannot say (with `binlog_row_metadata = FULL`: which of MariaDB's types is inside a
//! binary string or a text), and only where the type in the log allows it. With MINIMAL metadata names and labels come from the
//! catalog alone, and only if all of its columns fit those of the log; otherwise the table is refused.

mod column;
mod declared;
mod describe;
mod layout;
mod prepare;
mod snapshot;
mod versioned;

pub use describe::{DescribedColumn, Description};
pub(crate) use layout::Layout;
pub use prepare::Unfit;
pub use snapshot::SnapshotTable;
pub(crate) use versioned::Ending;

use crate::{
    event::{Flavor, TableMap},
    value::Kind,
};
use headgate_sdk::Relation;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The next relation's id.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub(crate) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// One version of a table's shape, prepared for the rows of a log.
#[derive(Debug)]
pub struct Table {
    relation: Arc<Relation>,
    layouts: Vec<Layout>,
    kinds: Vec<Kind>,
    /// In a system-versioned table, what ends its rows.
    ending: Option<Ending>,
    shape: Vec<u8>,
}

impl Table {
    /// Prepares the shape that a TABLE_MAP tells.
    ///
    /// `description` is what the catalog says now; [`Table::wants_catalog`] says whether it is needed.
    ///
    /// # Errors
    /// [`Unfit`]: the log leaves out what nobody else can tell, or a column has a type or a character set that is not
    /// supported. The message names the column and what to do.
    pub fn prepare(
        map: &TableMap<'_>,
        flavor: Flavor,
        description: Option<&Description>,
    ) -> Result<Self, Unfit> {
        prepare::prepare(map, flavor, description)
    }

    /// Whether the catalog has to be asked before [`Table::prepare`]: the log leaves names or labels out, or a column's type
    /// on the wire is what MariaDB uses for types of its own, or there is no primary key.
    #[must_use]
    pub fn wants_catalog(map: &TableMap<'_>, flavor: Flavor) -> bool {
        prepare::wants_catalog(map, flavor)
    }

    /// Whether this is the shape that a TABLE_MAP tells. A table keeps its [`Relation`] as long as it is.
    #[must_use]
    pub fn describes(&self, map: &TableMap<'_>) -> bool {
        self.shape == map.shape
    }

    /// Whether this is the shape in the body of a TABLE_MAP, which then need not be decoded.
    pub(crate) fn is_told_by(&self, body: &[u8]) -> bool {
        // Everything of it but the number.
        body.get(6..).is_some_and(|shape| self.shape == shape)
    }

    /// The shape, for the outlet.
    #[must_use]
    pub fn relation(&self) -> &Arc<Relation> {
        &self.relation
    }

    /// What ends rows of a system-versioned table.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// How each column's values become JSON.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// How each column's values lie in an image.
    pub(crate) fn layouts(&self) -> &[Layout] {
        &self.layouts
    }
}
