//! How a column's values lie in a row image.

use crate::{
    event::{ColumnType, Cursor, DecodeError, code},
    value::old_time,
};

/// Where a value ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// After so many bytes.
    Fixed(u16),
    /// Its length stands before it, in so many bytes, 1 to 4.
    Prefixed(u8),
}

impl Layout {
    /// The layout of a type, with the digits after the second that a time of old has; `None` where the metadata is none that a
    /// server writes.
    pub(super) fn of(column: ColumnType, old: u8) -> Option<Self> {
        let meta = column.meta;
        let fraction = || (meta <= 6).then(|| meta.div_ceil(2));
        let text = || Self::Prefixed(if meta < 256 { 1 } else { 2 });
        Some(match column.code {
            code::TINY | code::YEAR => Self::Fixed(1),
            code::SHORT => Self::Fixed(2),
            code::INT24 | code::DATE | code::NEWDATE => Self::Fixed(3),
            code::LONG => Self::Fixed(4),
            code::LONGLONG => Self::Fixed(8),
            code::TIME => Self::Fixed(old_time::time_length(old)?),
            code::DATETIME => Self::Fixed(old_time::datetime_length(old)?),
            code::TIMESTAMP => Self::Fixed(old_time::timestamp_length(old)?),
            code::FLOAT => Self::Fixed(4),
            code::DOUBLE => Self::Fixed(8),
            code::TIMESTAMP2 => Self::Fixed(4 + fraction()?),
            code::DATETIME2 => Self::Fixed(5 + fraction()?),
            code::TIME2 => Self::Fixed(3 + fraction()?),
            code::NEWDECIMAL => {
                let [precision, scale] = meta.to_be_bytes();
                Self::Fixed(decimal(precision, scale)?)
            }
            // The low byte counts the bits beyond whole bytes.
            code::BIT => {
                let [bits, bytes] = meta.to_le_bytes();
                let len = u16::from(bytes) + u16::from(bits > 0);
                (bits < 8 && (1..=8).contains(&len)).then_some(Self::Fixed(len))?
            }
            code::ENUM => (1..=2).contains(&meta).then_some(Self::Fixed(meta))?,
            code::SET => (1..=8).contains(&meta).then_some(Self::Fixed(meta))?,
            code::STRING | code::VAR_STRING | code::VARCHAR | code::VARCHAR_COMPRESSED => text(),
            code::TINY_BLOB => Self::Prefixed(1),
            code::MEDIUM_BLOB => Self::Prefixed(3),
            code::LONG_BLOB => Self::Prefixed(4),
            // Partial updates are rewritten with lengths of four bytes.
            code::JSON => (meta == 4).then_some(Self::Prefixed(4))?,
            code::BLOB | code::BLOB_COMPRESSED | code::GEOMETRY | code::VECTOR => {
                let len = u8::try_from(meta).ok()?;
                (1..=4).contains(&len).then_some(Self::Prefixed(len))?
            }
            _ => return None,
        })
    }

    /// Reads a value.
    #[inline]
    pub(crate) fn read<'a>(self, cursor: &mut Cursor<'a>) -> Result<&'a [u8], DecodeError> {
        let len = match self {
            Self::Fixed(len) => len.into(),
            Self::Prefixed(1) => cursor.u8("length of a value")?.into(),
            Self::Prefixed(2) => cursor.u16("length of a value")?.into(),
            Self::Prefixed(3) => {
                let [a, b, c] = cursor.array("length of a value")?;
                u32::from_le_bytes([a, b, c, 0]).into()
            }
            Self::Prefixed(_) => cursor.u32("length of a value")?.into(),
        };
        cursor.bytes(len, "value")
    }
}

/// Bytes of a DECIMAL: nine digits in four bytes, fewer in as many as they need.
fn decimal(precision: u8, scale: u8) -> Option<u16> {
    const DIGITS: [u16; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
    let whole = precision.checked_sub(scale)?;
    if precision > 65 {
        return None;
    }
    let bytes = |digits: u8| u16::from(digits / 9) * 4 + DIGITS[usize::from(digits % 9)];
    Some(bytes(whole) + bytes(scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_beyond_whole_bytes_are_fewer_than_eight() {
        let bit = |bits: u8, bytes: u8| {
            Layout::of(ColumnType { code: code::BIT, meta: u16::from_le_bytes([bits, bytes]) }, 0)
        };
        assert!(matches!(bit(0, 8), Some(Layout::Fixed(8))));
        assert!(matches!(bit(7, 7), Some(Layout::Fixed(8))));
        for (bits, bytes) in [(0, 0), (1, 8), (8, 0), (249, 2), (255, 255)] {
            assert!(bit(bits, bytes).is_none(), "{bits} {bytes}");
        }
    }
}
