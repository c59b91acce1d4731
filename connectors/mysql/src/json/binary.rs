//! Reads the binary form, value by value, borrowing it.

use super::DAMAGED;
use headgate_sdk::Unwritable;

/// How much more may be read of a document.
///
/// Offsets of hostile bytes may make many members share one value, so that a short document would be an endless text. In
/// a real one no two members share a byte: what is read of it is never more than its length.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn new(len: usize) -> Self {
        Self(len)
    }

    /// Takes so many bytes.
    #[inline]
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Unwritable> {
        self.0 = self.0.checked_sub(bytes).ok_or(DAMAGED)?;
        Ok(())
    }
}

/// Type codes of values.
mod kind {
    pub(super) const SMALL_OBJECT: u8 = 0x00;
    pub(super) const LARGE_OBJECT: u8 = 0x01;
    pub(super) const SMALL_ARRAY: u8 = 0x02;
    pub(super) const LARGE_ARRAY: u8 = 0x03;
    pub(super) const LITERAL: u8 = 0x04;
    pub(super) const INT16: u8 = 0x05;
    pub(super) const UINT16: u8 = 0x06;
    pub(super) const INT32: u8 = 0x07;
    pub(super) const UINT32: u8 = 0x08;
    pub(super) const INT64: u8 = 0x09;
    pub(super) const UINT64: u8 = 0x0a;
    pub(super) const DOUBLE: u8 = 0x0b;
    pub(super) const STRING: u8 = 0x0c;
    pub(super) const OPAQUE: u8 = 0x0f;
}

/// A value of a document.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Object(Container<'a>),
    Array(Container<'a>),
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Double(f64),
    String(&'a [u8]),
    /// A value of an SQL type, by the type's code.
    Opaque(u8, &'a [u8]),
}

/// An object or an array: a table of entries, and what they point to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Container<'a> {
    /// All of it; offsets count from its start.
    bytes: &'a [u8],
    count: usize,
    /// Whether offsets and counts have four bytes, not two.
    large: bool,
    keys: bool,
}

impl<'a> Value<'a> {
    /// Reads a value by its type and what follows it.
    pub(super) fn read(kind: u8, body: &'a [u8]) -> Result<Self, Unwritable> {
        Ok(match kind {
            kind::SMALL_OBJECT => Self::Object(Container::read(body, false, true)?),
            kind::LARGE_OBJECT => Self::Object(Container::read(body, true, true)?),
            kind::SMALL_ARRAY => Self::Array(Container::read(body, false, false)?),
            kind::LARGE_ARRAY => Self::Array(Container::read(body, true, false)?),
            kind::LITERAL => match body.first() {
                Some(0) => Self::Null,
                Some(1) => Self::Bool(true),
                Some(2) => Self::Bool(false),
                _ => return Err(DAMAGED),
            },
            kind::INT16 => Self::Signed(i16::from_le_bytes(head(body)?).into()),
            kind::UINT16 => Self::Unsigned(u16::from_le_bytes(head(body)?).into()),
            kind::INT32 => Self::Signed(i32::from_le_bytes(head(body)?).into()),
            kind::UINT32 => Self::Unsigned(u32::from_le_bytes(head(body)?).into()),
            kind::INT64 => Self::Signed(i64::from_le_bytes(head(body)?)),
            kind::UINT64 => Self::Unsigned(u64::from_le_bytes(head(body)?)),
            kind::DOUBLE => Self::Double(f64::from_le_bytes(head(body)?)),
            kind::STRING => Self::String(sized(body)?),
            kind::OPAQUE => {
                let (&kind, body) = body.split_first().ok_or(DAMAGED)?;
                Self::Opaque(kind, sized(body)?)
            }
            _ => return Err(DAMAGED),
        })
    }
}

/// The first bytes of a value.
#[inline]
fn head<const N: usize>(body: &[u8]) -> Result<[u8; N], Unwritable> {
    body.first_chunk().copied().ok_or(DAMAGED)
}

/// Bytes with their length before them, seven bits in each byte, the lowest first, at most five of them.
fn sized(body: &[u8]) -> Result<&[u8], Unwritable> {
    let mut len = 0_u64;
    for (nth, byte) in body.iter().take(5).enumerate() {
        len |= u64::from(byte & 0x7f) << (7 * nth);
        if byte & 0x80 == 0 {
            let start = nth + 1;
            let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len)).ok_or(DAMAGED)?;
            return body.get(start..end).ok_or(DAMAGED);
        }
    }
    Err(DAMAGED)
}

impl<'a> Container<'a> {
    fn read(body: &'a [u8], large: bool, keys: bool) -> Result<Self, Unwritable> {
        let mut container = Self { bytes: body, count: 0, large, keys };
        let size = container.offset(container.width())?;
        container.bytes = body.get(..size).ok_or(DAMAGED)?;
        container.count = container.offset(0)?;
        Ok(container)
    }

    /// How many members it has.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Bytes of a count or an offset.
    fn width(&self) -> usize {
        if self.large { 4 } else { 2 }
    }

    /// The count or offset that is stored at some place.
    #[inline]
    fn offset(&self, at: usize) -> Result<usize, Unwritable> {
        let bytes = self.bytes.get(at..).ok_or(DAMAGED)?;
        if self.large {
            usize::try_from(u32::from_le_bytes(head(bytes)?)).map_err(|_| DAMAGED)
        } else {
            Ok(u16::from_le_bytes(head(bytes)?).into())
        }
    }

    /// The name of the `nth` member.
    pub(super) fn key(&self, nth: usize) -> Result<&'a [u8], Unwritable> {
        let entry = 2 * self.width() + nth * (self.width() + 2);
        let start = self.offset(entry)?;
        let len = self.bytes.get(entry + self.width()..).ok_or(DAMAGED)?;
        let len = usize::from(u16::from_le_bytes(head(len)?));
        self.bytes.get(start..start + len).ok_or(DAMAGED)
    }

    /// The `nth` member's value.
    pub(super) fn value(&self, nth: usize) -> Result<Value<'a>, Unwritable> {
        let keys = if self.keys { self.count * (self.width() + 2) } else { 0 };
        let entry = 2 * self.width() + keys + nth * (self.width() + 1);
        let (&kind, inlined) = self.bytes.get(entry..).and_then(<[u8]>::split_first).ok_or(DAMAGED)?;
        let fits = match kind {
            kind::LITERAL | kind::INT16 | kind::UINT16 => true,
            kind::INT32 | kind::UINT32 => self.large,
            _ => false,
        };
        if fits {
            return Value::read(kind, inlined);
        }
        let start = self.offset(entry + 1)?;
        Value::read(kind, self.bytes.get(start..).ok_or(DAMAGED)?)
    }
}
