//! PostgreSQL logical replication as a Headgate source.

mod apply;
mod catalog;
mod config;
mod connect;
mod continuity;
mod facilities;
mod feedback;
mod frame;
mod history;
mod lookahead;
mod lsn;
mod monitor;
#[doc(hidden)]
pub mod pgoutput;
mod preflight;
mod publication;
mod refusal;
mod relation;
mod removal;
mod replication;
mod row_filter;
mod shape;
mod slot;
mod snapshot;
mod source;
mod sql_name;
mod survey;
#[doc(hidden)]
pub mod testing;
#[doc(hidden)]
pub mod value;
mod wal_guard;
mod wal_rate;

pub use config::{Config, WalPressure};
pub use continuity::missing;
pub use preflight::check;
pub use removal::drop_source;
pub use shape::tables;
pub use source::Postgres;
pub use survey::{RowIdentity, Survey, SurveyedTable, survey};
pub use wal_guard::guard;
