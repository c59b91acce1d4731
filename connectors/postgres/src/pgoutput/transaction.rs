//! Begin, Commit and Origin: the frame of a transaction.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use super::cursor::{Cursor, DecodeError, Problem};

/// A transaction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// LSN of its commit record. A transaction is sent only when it has committed, so this is known from the start.
    pub final_lsn: u64,
    /// When it committed, in microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    /// Its id.
    pub xid: u32,
}

impl Begin {
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            final_lsn: cursor.u64("final LSN")?,
            committed_at: cursor.i64("commit time")?,
            xid: cursor.u32("transaction id")?,
        })
    }
}

/// The transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// LSN of the commit record.
    pub commit_lsn: u64,
    /// LSN after the commit record: what may be confirmed once the transaction is safe.
    pub end_lsn: u64,
    /// When it committed, in microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
}

impl Commit {
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        match cursor.u8("flags")? {
            0 => {}
            flags => return Err(cursor.error("flags", Problem::Unknown(flags))),
        }
        Ok(Self {
            commit_lsn: cursor.u64("commit LSN")?,
            end_lsn: cursor.u64("end LSN")?,
            committed_at: cursor.i64("commit time")?,
        })
    }
}

/// The transaction was replicated into this server from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// LSN of the commit on the server where it began.
    pub commit_lsn: u64,
    /// Name of the replication origin.
    pub name: &'a str,
}

impl<'a> Origin<'a> {
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        Ok(Self { commit_lsn: cursor.u64("commit LSN")?, name: cursor.name("name")? })
    }
}
