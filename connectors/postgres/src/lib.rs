//! PostgreSQL logical replication as a Headgate source.

mod apply;
mod catalog;
mod config;
mod connect;
mod feedback;
mod frame;
mod lsn;
#[doc(hidden)]
pub mod pgoutput;
mod refusal;
mod relation;
mod replication;
mod source;
mod tables;
#[doc(hidden)]
pub mod testing;
#[doc(hidden)]
pub mod value;

pub use config::Config;
pub use source::Postgres;
