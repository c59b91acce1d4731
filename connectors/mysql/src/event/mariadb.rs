//! GTID and GTID_LIST of MariaDB.
//!
//! <https://mariadb.com/docs/server/reference/clientserver-protocol/replication-protocol/gtid_event>

use super::cursor::{Cursor, DecodeError, Problem};
use crate::gtid::mariadb::{Gtid, GtidList};

/// A transaction begins, or a group of events that is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MariaGtid {
    /// Its global name.
    pub id: Gtid,
    /// No event says that it ends: it is one statement, which is DDL as a rule.
    pub standalone: bool,
    /// It is DDL.
    pub ddl: bool,
    /// It is the first half of a distributed transaction, which ends with XA_PREPARE.
    pub prepared_xa: bool,
    /// It is the second half, `XA COMMIT` or `XA ROLLBACK`.
    pub completed_xa: bool,
}

/// Flags of the event.
mod flag {
    pub(super) const STANDALONE: u8 = 1;
    pub(super) const DDL: u8 = 32;
    pub(super) const PREPARED_XA: u8 = 64;
    pub(super) const COMPLETED_XA: u8 = 128;
}

/// The bits of a count that are the count; the others are flags.
const COUNT: u32 = (1 << 28) - 1;

impl MariaGtid {
    pub(super) fn decode(server_id: u32, body: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "GTID");
        let sequence = cursor.u64("sequence number")?;
        let domain = cursor.u32("domain")?;
        let flags = cursor.u8("flags")?;
        // A commit id, an XA id, engines and a thread may follow: they tell nothing of the changes.
        Ok(Self {
            id: Gtid { domain, server: server_id, sequence },
            standalone: flags & flag::STANDALONE != 0,
            ddl: flags & flag::DDL != 0,
            prepared_xa: flags & flag::PREPARED_XA != 0,
            completed_xa: flags & flag::COMPLETED_XA != 0,
        })
    }
}

/// The body of a GTID_LIST event.
pub(super) fn gtid_list(body: &[u8]) -> Result<GtidList, DecodeError> {
    let mut cursor = Cursor::new(body, "GTID_LIST");
    let count = cursor.u32("count")? & COUNT;
    if u64::from(count) * 16 > cursor.len() as u64 {
        return Err(cursor.error("count", Problem::TooMany(count.into())));
    }
    let mut list = GtidList::default();
    for _ in 0..count {
        list.advance(Gtid {
            domain: cursor.u32("domain")?,
            server: cursor.u32("server id")?,
            sequence: cursor.u64("sequence number")?,
        });
    }
    // With a flag in the count, a list of further numbers may follow.
    Ok(list)
}
