//! Checked reads over the body of an event. All integers are little-endian unless a name says otherwise.

use std::fmt;

/// Why bytes are not an event: which event, which field of it, what is wrong there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} event, {field}: {problem}")]
pub struct DecodeError {
    /// The event being read.
    pub event: &'static str,
    /// The field being read.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The body ends before the field does.
    Short,
    /// This many bytes are left after the last field.
    Trailing(usize),
    /// A type, flag or code that this decoder does not know.
    Unknown(u64),
    /// A count or length above what the server can have.
    TooMany(u64),
    /// A name that is not UTF-8.
    NotUtf8,
    /// Two fields that do not fit each other.
    Contradiction,
    /// A checksum that is not that of the bytes.
    Checksum,
    /// Compressed bytes that do not decompress.
    Compression,
    /// A binary JSON document, or a change of one, that does not hold together.
    Json,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the event ends too early"),
            Self::Trailing(bytes) => write!(f, "{bytes} bytes too many"),
            Self::Unknown(value) => write!(f, "unknown value {value}"),
            Self::TooMany(count) => write!(f, "{count} is more than the server can have"),
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::Contradiction => f.write_str("contradicts what was said before"),
            Self::Checksum => {
                f.write_str("the checksum is wrong: the event was damaged on its way or on disk")
            }
            Self::Compression => f.write_str("does not decompress"),
            Self::Json => f.write_str("not a JSON document in MySQL's binary form"),
        }
    }
}

/// A reader that never goes past the end of one body.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    event: &'static str,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) fn new(body: &'a [u8], event: &'static str) -> Self {
        Self { rest: body, event }
    }

    #[cold]
    pub(crate) fn error(&self, field: &'static str, problem: Problem) -> DecodeError {
        DecodeError { event: self.event, field, problem }
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk() else {
            return Err(self.error(field, Problem::Short));
        };
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// A table's number.
    #[inline]
    pub(crate) fn u48(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(|[a, b, c, d, e, f]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    #[inline]
    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A number whose first byte says how long it is (`length-encoded integer`).
    #[inline]
    pub(crate) fn lenenc(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        match self.u8(field)? {
            short @ 0..=0xfa => Ok(short.into()),
            0xfc => self.u16(field).map(u64::from),
            0xfd => self.array(field).map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]).into()),
            0xfe => self.u64(field),
            byte => Err(self.error(field, Problem::Unknown(byte.into()))),
        }
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn bytes(&mut self, len: u64, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len))
        else {
            return Err(self.error(field, Problem::Short));
        };
        self.rest = rest;
        Ok(head)
    }

    /// Bytes with their length before them.
    #[inline]
    pub(crate) fn lenenc_bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.lenenc(field)?;
        self.bytes(len, field)
    }

    /// A name of `len` bytes and the zero byte after it.
    pub(crate) fn name(&mut self, len: u8, field: &'static str) -> Result<&'a str, DecodeError> {
        let name = self.bytes(len.into(), field)?;
        match self.u8(field)? {
            0 => self.utf8(name, field),
            byte => Err(self.error(field, Problem::Unknown(byte.into()))),
        }
    }

    /// `bytes` as a name.
    pub(crate) fn utf8(&self, bytes: &'a [u8], field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(bytes).map_err(|_| self.error(field, Problem::NotUtf8))
    }

    /// All that is left.
    #[inline]
    pub(crate) fn take(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// How many bytes are left.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether nothing is left.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(self.error("end", Problem::Trailing(bytes))),
        }
    }
}
