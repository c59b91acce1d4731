//! PostgreSQL logical replication as a Headgate source.

mod config;
#[doc(hidden)]
pub mod pgoutput;

pub use config::Config;
