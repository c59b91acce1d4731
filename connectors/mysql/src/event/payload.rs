//! TRANSACTION_PAYLOAD: the events of a transaction, compressed (`binlog_transaction_compression`).
//!
//! They are decompressed one by one, so that a payload needs the memory of its largest event, whatever it inflates to.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/classbinary__log_1_1Transaction__payload__event.html>

use super::{
    cursor::{Cursor, DecodeError, Problem},
    header::Header,
};
use std::{
    fmt,
    io::{BufRead, Read as _},
};

/// A compressed transaction, from the event after its GTID up to and with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Whether the bytes are compressed at all.
    pub compressed: bool,
    /// Bytes after decompression, as the server says; `None` if it does not.
    pub uncompressed_size: Option<u64>,
    /// The bytes as they are in the log.
    pub bytes: &'a [u8],
}

/// The fields before the bytes.
mod field {
    pub(super) const END: u64 = 0;
    pub(super) const SIZE: u64 = 1;
    pub(super) const COMPRESSION: u64 = 2;
    pub(super) const UNCOMPRESSED_SIZE: u64 = 3;
}

/// Kinds of compression.
mod compression {
    pub(super) const ZSTD: u64 = 0;
    pub(super) const NONE: u64 = 255;
}

impl<'a> Payload<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "TRANSACTION_PAYLOAD");
        let (mut size, mut compressed, mut uncompressed_size) = (None, None, None);
        loop {
            let field = cursor.lenenc("field")?;
            if field == field::END {
                break;
            }
            let value = cursor.lenenc_bytes("value of a field")?;
            let number = |name| Cursor::new(value, "TRANSACTION_PAYLOAD").lenenc(name);
            match field {
                field::SIZE => size = Some(number("size")?),
                field::COMPRESSION => {
                    compressed = Some(match number("compression")? {
                        compression::ZSTD => true,
                        compression::NONE => false,
                        other => return Err(cursor.error("compression", Problem::Unknown(other))),
                    });
                }
                field::UNCOMPRESSED_SIZE => uncompressed_size = Some(number("uncompressed size")?),
                unknown => return Err(cursor.error("field", Problem::Unknown(unknown))),
            }
        }
        let (Some(size), Some(compressed)) = (size, compressed) else {
            return Err(cursor.error("size and compression", Problem::Short));
        };
        let bytes = cursor.bytes(size, "payload")?;
        cursor.finish()?;
        Ok(Self { compressed, uncompressed_size, bytes })
    }

    /// Reads the events in it, none larger than `max_event` bytes.
    ///
    /// # Errors
    /// The decompressor cannot be set up.
    pub fn events(&self, max_event: u32) -> Result<PayloadEvents<&'a [u8]>, DecodeError> {
        PayloadEvents::new(self.compressed, self.bytes, max_event)
    }
}

/// Where the plain bytes come from.
enum Source<R> {
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
    Plain(R),
}

/// The events of a payload, one after the other. They have no checksums.
pub struct PayloadEvents<R> {
    source: Source<R>,
    max_event: u32,
    event: Vec<u8>,
}

impl<R> fmt::Debug for PayloadEvents<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadEvents").field("max_event", &self.max_event).finish_non_exhaustive()
    }
}

impl<R: BufRead> PayloadEvents<R> {
    /// Reads the events in `bytes`, none larger than `max_event` bytes.
    ///
    /// # Errors
    /// The decompressor cannot be set up.
    pub fn new(compressed: bool, bytes: R, max_event: u32) -> Result<Self, DecodeError> {
        let source = if compressed {
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(|_| compression())?;
            Source::Zstd(Box::new(decoder))
        } else {
            Source::Plain(bytes)
        };
        Ok(Self { source, max_event, event: Vec::new() })
    }

    /// The next event's header and body; `None` at the end of the payload.
    ///
    /// # Errors
    /// The bytes do not decompress, end inside an event, or an event is larger than was allowed. Nothing more can be
    /// read then.
    pub fn next_event(&mut self) -> Result<Option<(Header, &[u8])>, DecodeError> {
        let Self { source, max_event, event } = self;
        event.clear();
        if read(source, Header::LEN as u64, event)? == 0 {
            return Ok(None);
        }
        let header = Header::decode(event)?;
        if header.size > *max_event {
            let cursor = Cursor::new(event, "TRANSACTION_PAYLOAD");
            return Err(cursor.error("size of an event", Problem::TooMany(header.size.into())));
        }
        event.clear();
        let len = u64::from(header.size) - Header::LEN as u64;
        if read(source, len, event)? != len {
            return Err(DecodeError {
                event: "TRANSACTION_PAYLOAD",
                field: "event",
                problem: Problem::Short,
            });
        }
        Ok(Some((header, event)))
    }
}

/// Reads up to `len` bytes.
fn read<R: BufRead>(source: &mut Source<R>, len: u64, to: &mut Vec<u8>) -> Result<u64, DecodeError> {
    let read = match source {
        Source::Zstd(decoder) => decoder.take(len).read_to_end(to),
        Source::Plain(bytes) => bytes.take(len).read_to_end(to),
    };
    read.map(|read| read as u64).map_err(|_| compression())
}

#[cold]
fn compression() -> DecodeError {
    DecodeError { event: "TRANSACTION_PAYLOAD", field: "payload", problem: Problem::Compression }
}
