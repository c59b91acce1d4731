//! Writes values as JSON, from the bytes of a row image ([`Kind`]) and from the text of a query ([`FromText`]).
//!
//! Pure, and without an allocation for any value but compressed ones. Both writers give the same bytes for the same value, so
//! that it does not matter whether a snapshot or the log brought it. A value that is not as its type has it cannot be
//! written ([`Unwritable`]): no value is bent, dropped or turned into null.
//!
//! The formats: <https://dev.mysql.com/doc/dev/mysql-server/latest/field_8h.html> (`pack`), and what the servers write.

mod charset;
mod decimal;
mod float;
mod from_text;
mod labels;
mod network;
mod number;
pub(crate) mod old_time;
mod spatial;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub(crate) mod time;

pub use charset::Charset;
pub(crate) use decimal::write_decimal;
pub(crate) use float::{write_f32, write_f64};
pub use from_text::FromText;
pub use labels::Labels;

use crate::{event::inflate_column, json};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use headgate_sdk::{Unwritable, WriteValue};

/// A column's type, as far as it matters for its values; as a [`WriteValue`] it writes what a row image holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TINYINT to BIGINT: a number.
    Integer {
        /// Bytes in a row image: 1, 2, 3, 4 or 8.
        bytes: u8,
        /// Whether there are no negative numbers.
        unsigned: bool,
    },
    /// FLOAT: a number, the shortest that reads back the same.
    Float,
    /// DOUBLE: likewise.
    Double,
    /// DECIMAL: a string with every digit.
    Decimal {
        /// All digits.
        precision: u8,
        /// Those after the point.
        scale: u8,
    },
    /// BIT: a string of 0 and 1.
    Bit {
        /// How many.
        bits: u8,
    },
    /// YEAR: a number, 0 or 1901 to 2155.
    Year,
    /// DATE: a string.
    Date,
    /// TIME: a string, negative and beyond 24 hours too.
    Time {
        /// Digits after the second.
        digits: u8,
    },
    /// DATETIME: a string without a zone.
    DateTime {
        /// Digits after the second.
        digits: u8,
    },
    /// TIMESTAMP: a string in UTC with `Z`.
    Timestamp {
        /// Digits after the second.
        digits: u8,
    },
    /// TIME as servers before 5.6 stored it; a column keeps its form until it is altered.
    OldTime {
        /// Digits after the second, which only MariaDB had then.
        digits: u8,
    },
    /// DATETIME of that time.
    OldDateTime {
        /// Digits after the second.
        digits: u8,
    },
    /// TIMESTAMP of that time.
    OldTimestamp {
        /// Digits after the second.
        digits: u8,
    },
    /// CHAR, VARCHAR and TEXT: a string.
    Text(Charset),
    /// BINARY: base64, with the zeros that the log leaves out.
    Binary {
        /// Bytes of every value.
        length: u16,
    },
    /// VARBINARY and BLOB: base64.
    Blob,
    /// ENUM: its label.
    Enum(Labels),
    /// SET: an array of labels.
    Set(Labels),
    /// MySQL's JSON: itself.
    Json,
    /// MariaDB's JSON, which is a text: itself.
    JsonText(Charset),
    /// Geometry: an object of WKB in base64 and SRID.
    Geometry,
    /// VECTOR: an array of numbers.
    Vector,
    /// MariaDB's UUID: a string.
    Uuid,
    /// MariaDB's INET4: a string.
    Inet4,
    /// MariaDB's INET6: a string.
    Inet6,
    /// A text that MariaDB keeps compressed.
    CompressedText(Charset),
    /// Bytes that MariaDB keeps compressed.
    CompressedBlob,
}

/// Why a value of the wrong length cannot be written.
const LENGTH: Unwritable = Unwritable { reason: "the value does not have the length of its type" };

impl WriteValue for Kind {
    fn paths<'r>(&self, raw: &'r [u8]) -> Option<&'r str> {
        match self {
            Self::Json => json::paths(raw),
            _ => None,
        }
    }

    #[inline]
    fn write(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
        match self {
            Self::Integer { bytes, unsigned } => number::write_integer(raw, *bytes, *unsigned, out),
            Self::Text(charset) => charset.write(raw, out),
            Self::Decimal { precision, scale } => decimal::write(raw, *precision, *scale, out),
            Self::DateTime { digits } => time::write_datetime(raw, *digits, out),
            Self::Timestamp { digits } => time::write_timestamp(raw, *digits, out),
            Self::Float => write_f32(f32::from_le_bytes(array(raw)?), out),
            Self::Double => write_f64(f64::from_le_bytes(array(raw)?), out),
            Self::Bit { bits } => number::write_bit(raw, *bits, out),
            Self::Year => number::write_year(raw, out),
            Self::Date => time::write_date(raw, out),
            Self::Time { digits } => time::write_time(raw, *digits, out),
            Self::OldTime { digits } => old_time::write_time(raw, *digits, out),
            Self::OldDateTime { digits } => old_time::write_datetime(raw, *digits, out),
            Self::OldTimestamp { digits } => old_time::write_timestamp(raw, *digits, out),
            Self::Binary { length } => {
                write_padded(raw, *length, out);
                Ok(())
            }
            Self::Blob => {
                write_base64(raw, out);
                Ok(())
            }
            Self::Enum(labels) => labels.write_enum(raw, out),
            Self::Set(labels) => labels.write_set(raw, out),
            Self::Json => json::write(raw, out),
            Self::JsonText(charset) => json::text::write(*charset, raw, out),
            Self::Geometry => spatial::write_geometry(raw, out),
            Self::Vector => spatial::write_vector(raw, out),
            Self::Uuid => network::write_uuid(raw, out),
            Self::Inet4 => network::write_inet4(raw, out),
            Self::Inet6 => network::write_inet6(raw, out),
            Self::CompressedText(charset) => charset.write(&inflate(raw)?, out),
            Self::CompressedBlob => {
                write_base64(&inflate(raw)?, out);
                Ok(())
            }
        }
    }
}

/// A value of a compressed column, inflated.
fn inflate(raw: &[u8]) -> Result<Vec<u8>, Unwritable> {
    inflate_column(raw).ok_or(Unwritable { reason: "the compressed value does not decompress" })
}

/// A value of a fixed length.
#[inline]
fn array<const N: usize>(raw: &[u8]) -> Result<[u8; N], Unwritable> {
    raw.try_into().map_err(|_| LENGTH)
}

/// Up to `N` bytes, with the zeros at the end that the servers leave out of BINARY and what is stored like it.
#[inline]
fn padded<const N: usize>(raw: &[u8]) -> Result<[u8; N], Unwritable> {
    let mut bytes = [0; N];
    bytes.get_mut(..raw.len()).ok_or(LENGTH)?.copy_from_slice(raw);
    Ok(bytes)
}

/// Writes bytes as a base64 string (standard alphabet, padded).
pub(crate) fn write_base64(raw: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + raw.len().div_ceil(3) * 4, 0);
    // The room is exactly what is needed, so this cannot fail.
    let written = BASE64.encode_slice(raw, out.get_mut(start..).unwrap_or_default()).unwrap_or_default();
    out.truncate(start + written);
    out.push(b'"');
}

/// Writes bytes as base64, with zeros up to `length`.
fn write_padded(raw: &[u8], length: u16, out: &mut Vec<u8>) {
    if raw.len() >= length.into() {
        write_base64(raw, out);
    } else {
        let mut padded = [0; u8::MAX as usize];
        match padded.get_mut(..length.into()) {
            // BINARY has at most 255 bytes.
            Some(padded) => {
                let (value, _) = padded.split_at_mut(raw.len());
                value.copy_from_slice(raw);
                write_base64(padded, out);
            }
            None => write_base64(raw, out),
        }
    }
}
