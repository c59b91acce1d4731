//! PostgreSQL logical replication as a Headgate source.

mod apply;
mod catalog;
mod config;
#[doc(hidden)]
pub mod pgoutput;
mod relation;
mod tables;
#[doc(hidden)]
pub mod testing;
#[doc(hidden)]
pub mod value;

pub use config::Config;
