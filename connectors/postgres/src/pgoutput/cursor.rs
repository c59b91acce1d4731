//! Checked reads over one message's body.

use std::fmt;

/// Why a payload is not a message: which message, which field of it, what is wrong there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} message, {field}: {problem}")]
pub struct DecodeError {
    /// The message being read.
    pub message: &'static str,
    /// The field being read.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The payload ends before the field does.
    Short,
    /// This many bytes are left after the last field.
    Trailing(usize),
    /// A tag, kind or flag that protocol version 1 does not have.
    Unknown(u8),
    /// A count above what the server can have.
    TooMany(u32),
    /// A name that is not UTF-8.
    NotUtf8,
    /// A value in binary format.
    Binary,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the payload ends too early"),
            Self::Trailing(bytes) => write!(f, "{bytes} bytes too many"),
            Self::Unknown(byte) => write!(f, "unknown value 0x{byte:02x}"),
            Self::TooMany(count) => write!(f, "{count} is more than the server can have"),
            Self::NotUtf8 => f.write_str("not UTF-8; a SQL_ASCII database may hold such names"),
            Self::Binary => f.write_str("binary format, which was not asked for"),
        }
    }
}

/// A reader that never goes past the end of one message's body.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) fn new(body: &'a [u8], message: &'static str) -> Self {
        Self { rest: body, message }
    }

    #[cold]
    pub(super) fn error(&self, field: &'static str, problem: Problem) -> DecodeError {
        DecodeError { message: self.message, field, problem }
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk() else {
            return Err(self.error(field, Problem::Short));
        };
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    #[inline]
    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    #[inline]
    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(i64::from_be_bytes)
    }

    /// The next `len` bytes. A length that is negative on the wire is above any payload, and so too long as well.
    #[inline]
    pub(super) fn bytes(&mut self, len: u32, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len))
        else {
            return Err(self.error(field, Problem::Short));
        };
        self.rest = rest;
        Ok(head)
    }

    /// A string that ends with a zero byte.
    pub(super) fn name(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let Some(end) = memchr::memchr(0, self.rest) else {
            return Err(self.error(field, Problem::Short));
        };
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        std::str::from_utf8(name).map_err(|_| self.error(field, Problem::NotUtf8))
    }

    /// How many bytes are left.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(self.error("end", Problem::Trailing(bytes))),
        }
    }
}
