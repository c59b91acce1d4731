//! PostgreSQL logical replication as a Headgate source.

mod config;

pub use config::Config;
