//! The frame around every event: 19 bytes of header before its body, a checksum after it.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html>

use super::cursor::{Cursor, DecodeError, Problem};
use flate2::Crc;

/// Type codes of events. `MARIADB_` where only MariaDB has them.
#[allow(missing_docs, reason = "the servers' own names, explained where each event is decoded")]
pub mod kind {
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const APPEND_BLOCK: u8 = 9;
    pub const DELETE_FILE: u8 = 11;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_ROWS_V1: u8 = 23;
    pub const UPDATE_ROWS_V1: u8 = 24;
    pub const DELETE_ROWS_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const IGNORABLE: u8 = 28;
    pub const ROWS_QUERY: u8 = 29;
    pub const WRITE_ROWS: u8 = 30;
    pub const UPDATE_ROWS: u8 = 31;
    pub const DELETE_ROWS: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const PREVIOUS_GTIDS: u8 = 35;
    pub const TRANSACTION_CONTEXT: u8 = 36;
    pub const VIEW_CHANGE: u8 = 37;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
    pub const MARIADB_ANNOTATE_ROWS: u8 = 160;
    pub const MARIADB_BINLOG_CHECKPOINT: u8 = 161;
    pub const MARIADB_GTID: u8 = 162;
    pub const MARIADB_GTID_LIST: u8 = 163;
    pub const MARIADB_START_ENCRYPTION: u8 = 164;
    pub const MARIADB_QUERY_COMPRESSED: u8 = 165;
    pub const MARIADB_WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub const MARIADB_UPDATE_ROWS_COMPRESSED_V1: u8 = 167;
    pub const MARIADB_DELETE_ROWS_COMPRESSED_V1: u8 = 168;
    pub const MARIADB_WRITE_ROWS_COMPRESSED: u8 = 169;
    pub const MARIADB_UPDATE_ROWS_COMPRESSED: u8 = 170;
    pub const MARIADB_DELETE_ROWS_COMPRESSED: u8 = 171;
}

/// Flag of an event that a reader may leave out if it does not know its type (`LOG_EVENT_IGNORABLE_F`).
pub(super) const IGNORABLE: u16 = 0x80;

/// The header of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// When the statement began, in seconds since 1970-01-01 UTC.
    pub timestamp: u32,
    /// The type of the event, one of [`kind`].
    pub kind: u8,
    /// The server that wrote it first.
    pub server_id: u32,
    /// Its size in bytes, with this header and the checksum.
    pub size: u32,
    /// Where the next event begins in the file; 0 where that is not told, and wrapped beyond 4 GiB.
    pub log_pos: u32,
    /// Its flags.
    pub flags: u16,
}

impl Header {
    /// Bytes of a header.
    pub const LEN: usize = 19;

    /// Decodes a header.
    ///
    /// # Errors
    /// Fewer than [`Header::LEN`] bytes, or a size that is smaller than the header.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes, "header of an");
        let header = Self {
            timestamp: cursor.u32("timestamp")?,
            kind: cursor.u8("type")?,
            server_id: cursor.u32("server id")?,
            size: cursor.u32("size")?,
            log_pos: cursor.u32("position")?,
            flags: cursor.u16("flags")?,
        };
        if (header.size as usize) < Self::LEN {
            return Err(cursor.error("size", Problem::Contradiction));
        }
        Ok(header)
    }
}

/// One event as it stands in a file or arrives from a server: header, body, and the checksum taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header.
    pub header: Header,
    /// The body, for [`Event::decode`](super::Event::decode).
    pub body: &'a [u8],
    /// Whether events end with a CRC-32 from here on: what was given, or what a FORMAT_DESCRIPTION says.
    pub checksums: bool,
}

impl<'a> Frame<'a> {
    /// Cuts one whole event into its parts, and checks its checksum where `checksums` says that it has one.
    ///
    /// A FORMAT_DESCRIPTION says itself which checksum it and the events after it have, so `checksums` does not matter there.
    ///
    /// # Errors
    /// The size in the header is not that of `bytes`, the checksum is wrong, or its algorithm is not known.
    pub fn decode(bytes: &'a [u8], checksums: bool) -> Result<Self, DecodeError> {
        let header = Header::decode(bytes)?;
        let cursor = Cursor::new(bytes, "frame of an");
        if header.size as usize != bytes.len() {
            return Err(cursor.error("size", Problem::Contradiction));
        }
        let body = bytes.get(Header::LEN..).unwrap_or_default();
        if header.kind == kind::FORMAT_DESCRIPTION {
            // It has room for a checksum even where there is none, and the algorithm before it.
            let Some((body, [algorithm, checksum @ ..])) = body.split_last_chunk::<{ 1 + CHECKSUM }>() else {
                return Err(cursor.error("checksum", Problem::Short));
            };
            let checksums = match algorithm {
                0 => false,
                1 => true,
                other => return Err(cursor.error("checksum algorithm", Problem::Unknown((*other).into()))),
            };
            if checksums {
                check(bytes, *checksum, &cursor)?;
            }
            return Ok(Self { header, body, checksums });
        }
        if !checksums {
            return Ok(Self { header, body, checksums });
        }
        let Some((body, checksum)) = body.split_last_chunk() else {
            return Err(cursor.error("checksum", Problem::Short));
        };
        check(bytes, *checksum, &cursor)?;
        Ok(Self { header, body, checksums })
    }
}

/// Compares an event's bytes with the checksum at their end.
fn check(bytes: &[u8], checksum: [u8; CHECKSUM], cursor: &Cursor<'_>) -> Result<(), DecodeError> {
    let mut bytes = bytes.get(..bytes.len().saturating_sub(checksum.len())).unwrap_or_default();
    let mut crc = Crc::new();
    if bytes.get(KIND_AT) == Some(&kind::FORMAT_DESCRIPTION)
        && let Some((head, rest)) = bytes.split_first_chunk::<{ Header::LEN }>()
    {
        // The flag of a file that is being written (`LOG_EVENT_BINLOG_IN_USE_F`) is set after the checksum is made.
        let mut head = *head;
        head[FLAGS_AT] &= !1;
        crc.update(&head);
        bytes = rest;
    }
    crc.update(bytes);
    if crc.sum() == u32::from_le_bytes(checksum) {
        Ok(())
    } else {
        Err(cursor.error("checksum", Problem::Checksum))
    }
}

/// Bytes of a CRC-32.
const CHECKSUM: usize = 4;

/// Where a header has its type.
const KIND_AT: usize = 4;

/// Where a header has its flags.
const FLAGS_AT: usize = 17;
