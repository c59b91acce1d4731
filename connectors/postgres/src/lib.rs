//! PostgreSQL logical replication as a Headgate source.

mod apply;
mod catalog;
mod config;
mod connect;
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
mod replication;
mod slot;
mod source;
mod tables;
#[doc(hidden)]
pub mod testing;
#[doc(hidden)]
pub mod value;

pub use config::Config;
pub use preflight::{check, drop_source};
pub use source::Postgres;
