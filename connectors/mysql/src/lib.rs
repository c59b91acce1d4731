//! The binary log of MySQL and MariaDB as a Headgate source.

mod apply;
mod catalog;
mod config;
mod connect;
mod dump;
#[doc(hidden)]
pub mod event;
mod executed;
#[doc(hidden)]
pub mod gtid;
mod history;
#[doc(hidden)]
pub mod json;
mod landmarks;
mod monitor;
mod place;
mod preflight;
mod privileges;
mod removal;
mod server;
mod shape;
mod snapshot;
mod source;
mod statement;
mod survey;
#[doc(hidden)]
pub mod table;
mod tables;
mod tags;
#[doc(hidden)]
pub mod value;

pub use config::Config;
pub use connect::{UrlError, parse_url};
pub use place::{log_distance, log_text};
pub use preflight::{check, missing};
pub use removal::drop_source;
pub use shape::tables;
pub use source::MySql;
pub use survey::{Survey, SurveyedTable, survey};
