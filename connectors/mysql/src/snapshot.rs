//! Snapshots of MySQL's and MariaDB's tables: what [`headgate_sdk::snapshots`] has to know of these databases.
//!
//! A chunk is a short transaction of its own that only reads ([`read`]), with `SELECT` rights alone: no lock but the one on the
//! table's shape that every `SELECT` has, nothing written, nothing flushed. What it saw ([`sight`]) is told
//! * by MariaDB itself: the exact place in the log (`binlog_snapshot_position`);
//! * by MySQL from both sides: all of `gtid_executed` from before it, nothing from behind the end of the log after it.
//!
//! A query prints values as text and the log has them as images of rows, so here both become JSON as soon as they are read
//! ([`form`]), and keys become SQL again to go on behind them ([`literal`]).

mod form;
mod literal;
mod read;
mod sight;
mod table;

pub(crate) use read::{Database, Session};

/// The snapshots of a MySQL or MariaDB source.
pub(crate) type Snapshots = headgate_sdk::snapshots::Snapshots<Session>;
