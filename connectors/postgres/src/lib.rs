//! PostgreSQL logical replication as a Headgate source.

mod config;
mod connect;
mod feedback;
mod frame;
mod lsn;
mod refusal;
mod replication;
mod tables;

pub use config::Config;
