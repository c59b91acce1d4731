//! GTID, ANONYMOUS_GTID and PREVIOUS_GTIDS of MySQL.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/classbinary__log_1_1Gtid__event.html>

use super::{
    cursor::{Cursor, DecodeError, Problem},
    header::kind,
};
use crate::gtid::mysql::{GtidSet, MAX_NUMBER, Source, Tag, Uuid};

/// A transaction begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gtid {
    /// Its global name; `None` where the server gives none (`gtid_mode = OFF`).
    pub id: Option<crate::gtid::mysql::Gtid>,
    /// When this server committed it, in microseconds since 1970-01-01 UTC; `None` before MySQL 8.0.
    pub immediate_commit: Option<u64>,
    /// When the first server committed it, in microseconds since 1970-01-01 UTC.
    pub original_commit: Option<u64>,
    /// Bytes of the whole transaction in the log, with this event.
    pub length: Option<u64>,
    /// Flags; the lowest bit says that it may hold changes as statements (`FLAG_MAY_HAVE_SBR`).
    pub flags: u8,
}

/// Marks that the 7 bytes of a timestamp are followed by another timestamp.
const HAS_ORIGINAL: u64 = 1 << 55;

/// The only way of telling which transactions depend on each other.
const LOGICAL_TIMESTAMP: u8 = 2;

impl Gtid {
    pub(super) fn decode(event: u8, body: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "GTID");
        let flags = cursor.u8("flags")?;
        let uuid = Uuid::new(cursor.array("server uuid")?);
        let number = cursor.u64("number")?;
        let id = match event {
            kind::GTID if (1..=MAX_NUMBER).contains(&number) => {
                Some(crate::gtid::mysql::Gtid { source: Source { uuid, tag: Tag::default() }, number })
            }
            kind::ANONYMOUS_GTID => None,
            _ => return Err(cursor.error("number", Problem::TooMany(number))),
        };
        let mut gtid = Self { id, immediate_commit: None, original_commit: None, length: None, flags };
        if cursor.is_empty() || cursor.u8("kind of logical timestamp")? != LOGICAL_TIMESTAMP {
            return Ok(gtid);
        }
        cursor.u64("last committed")?;
        cursor.u64("sequence number")?;
        if cursor.is_empty() {
            return Ok(gtid);
        }
        let immediate = timestamp(&mut cursor)?;
        let original =
            if immediate & HAS_ORIGINAL == 0 { immediate } else { timestamp(&mut cursor)? } & !HAS_ORIGINAL;
        gtid.immediate_commit = Some(immediate & !HAS_ORIGINAL);
        gtid.original_commit = Some(original);
        if !cursor.is_empty() {
            gtid.length = Some(cursor.lenenc("length of the transaction")?);
        }
        // What follows (versions of the servers, a ticket of group commit) tells nothing of the changes.
        Ok(gtid)
    }
}

/// Microseconds in 7 bytes.
fn timestamp(cursor: &mut Cursor<'_>) -> Result<u64, DecodeError> {
    let [a, b, c, d, e, f, g] = cursor.array("commit timestamp")?;
    Ok(u64::from_le_bytes([a, b, c, d, e, f, g, 0]))
}

/// The body of a PREVIOUS_GTIDS event: the set in the server's binary form.
pub(super) fn previous(body: &[u8]) -> Result<GtidSet, DecodeError> {
    let mut cursor = Cursor::new(body, "PREVIOUS_GTIDS");
    let head = cursor.u64("number of sources")?;
    // The highest byte is the version of the form. With tags the count stands between it and a reserved byte.
    let (tagged, sources) = match head >> 56 {
        0 => (false, head),
        1 => (true, head >> 8 & 0xffff_ffff_ffff),
        version => return Err(cursor.error("version", Problem::Unknown(version))),
    };
    let mut set = GtidSet::default();
    for _ in 0..sources {
        let uuid = Uuid::new(cursor.array("server uuid")?);
        let tag = if tagged {
            let len = super::tagged::varlen(&mut cursor, "length of tag")?;
            let tag = cursor.bytes(len, "tag")?;
            Tag::from_bytes(tag).ok_or_else(|| cursor.error("tag", Problem::Contradiction))?
        } else {
            Tag::default()
        };
        let intervals = cursor.u64("number of intervals")?;
        for _ in 0..intervals {
            let (start, end) = (cursor.u64("start of an interval")?, cursor.u64("end of an interval")?);
            // The end on the wire is the first number after the interval.
            if start == 0 || end <= start || end - 1 > MAX_NUMBER {
                return Err(cursor.error("interval", Problem::Contradiction));
            }
            set.add_range(&Source { uuid, tag }, start, end - 1);
        }
    }
    cursor.finish()?;
    Ok(set)
}
