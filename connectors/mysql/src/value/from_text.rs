//! Values as a query prints them: the text protocol, for snapshots.
//!
//! The session runs in UTC and in utf8mb4, and selects what [`Kind::select`] says: some types lose digits or characters as plain text.

use super::{Charset, Kind, number, spatial, text, write_base64, write_f32, write_f64};
use crate::json::text as json;
use headgate_sdk::{Unwritable, WriteValue};

/// How a type's values become JSON where a query printed them. Gives the same bytes as [`Kind`] does for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromText(pub Kind);

/// Why a text cannot be written.
const FORM: Unwritable = Unwritable { reason: "the text is not of the form of its type" };

impl Kind {
    /// What a query has to select for [`FromText`], given the column's name in backticks.
    ///
    /// A FLOAT alone is printed with six digits; a text is converted by the server, which puts `?` where it cannot; a label
    /// likewise, and in the catalog for every character beyond the Basic Multilingual Plane: there the text says which it is.
    #[must_use]
    pub fn select(&self, column: &str) -> String {
        match self {
            Self::Float => format!("({column} + 0e0)"),
            Self::Enum(labels) | Self::Set(labels) if labels.may_be_replaced() => {
                format!("CONCAT(CAST({column} AS UNSIGNED), ' ', CONVERT({column} USING utf8mb4))")
            }
            Self::Enum(_) | Self::Set(_) => format!("CAST({column} AS UNSIGNED)"),
            Self::Text(charset) | Self::CompressedText(charset) | Self::JsonText(charset)
                if *charset != Charset::Utf8 =>
            {
                format!("CAST({column} AS BINARY)")
            }
            _ => column.to_owned(),
        }
    }
}

impl WriteValue for FromText {
    #[inline]
    fn write(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
        match &self.0 {
            Kind::Integer { .. } | Kind::Year => {
                out.extend_from_slice(integer(raw).ok_or(FORM)?.as_bytes());
                Ok(())
            }
            Kind::Text(charset) | Kind::CompressedText(charset) => charset.write(raw, out),
            Kind::Float => {
                // The nearest double has more digits than the float needs; it is exactly the float.
                #[allow(clippy::cast_possible_truncation, reason = "the double was a float")]
                write_f32(parse::<f64>(raw)? as f32, out)
            }
            Kind::Double => write_f64(parse(raw)?, out),
            Kind::Decimal { .. } => decimal(raw, out),
            Kind::Bit { bits } => number::write_bit(raw, *bits, out),
            Kind::DateTime { .. } | Kind::OldDateTime { .. } => timestamp(raw, b"", out),
            Kind::Timestamp { .. } | Kind::OldTimestamp { .. } => timestamp(raw, b"Z", out),
            Kind::Date
            | Kind::Time { .. }
            | Kind::OldTime { .. }
            | Kind::Uuid
            | Kind::Inet4
            | Kind::Inet6 => text::write(raw, out),
            Kind::Binary { .. } | Kind::Blob | Kind::CompressedBlob => {
                write_base64(raw, out);
                Ok(())
            }
            Kind::Enum(labels) if labels.may_be_replaced() => text::write(labelled(raw)?.1, out),
            Kind::Set(labels) if labels.may_be_replaced() => {
                let (bits, texts) = labelled(raw)?;
                set(bits, texts, out)
            }
            Kind::Enum(labels) => labels.label(parse(raw)?, out),
            Kind::Set(labels) => labels.set(parse(raw)?, out),
            Kind::Json => json::write(Charset::Utf8, raw, out),
            Kind::JsonText(charset) => json::write(*charset, raw, out),
            Kind::Geometry => spatial::write_geometry(raw, out),
            Kind::Vector => spatial::write_vector(raw, out),
        }
    }
}

/// A number of any kind.
fn parse<T: std::str::FromStr>(raw: &[u8]) -> Result<T, Unwritable> {
    std::str::from_utf8(raw).ok().and_then(|text| text.parse().ok()).ok_or(FORM)
}

/// The number of a label, or the bits of several, and their text.
fn labelled(raw: &[u8]) -> Result<(u64, &[u8]), Unwritable> {
    let space = raw.iter().position(|byte| *byte == b' ').ok_or(FORM)?;
    let (number, text) = raw.split_at(space);
    Ok((parse(number)?, text.get(1..).unwrap_or_default()))
}

/// Writes the labels of a SET, which are between commas: no label has one.
fn set(bits: u64, texts: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let mut left = bits.count_ones();
    out.push(b'[');
    for label in texts.split(|byte| *byte == b',').take_while(|_| bits != 0) {
        left = left.checked_sub(1).ok_or(FORM)?;
        text::write(label, out)?;
        if left > 0 {
            out.push(b',');
        }
    }
    out.push(b']');
    if left == 0 { Ok(()) } else { Err(FORM) }
}

/// An integer without the zeros that ZEROFILL puts before it.
fn integer(raw: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(raw).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if !digits.starts_with('0') {
        return Some(text);
    }
    // Only numbers without a sign are filled with zeros.
    let plain = digits.trim_start_matches('0');
    Some(if plain.is_empty() { "0" } else { plain })
}

/// Writes a DECIMAL without the zeros that ZEROFILL puts before it.
fn decimal(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let text = std::str::from_utf8(raw).map_err(|_| FORM)?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let (whole, fraction) =
        digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !fraction.is_none_or(|fraction| !fraction.is_empty() && all_digits(fraction)) {
        return Err(FORM);
    }
    let whole = whole.trim_start_matches('0');
    out.push(b'"');
    out.extend_from_slice(sign.as_bytes());
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole.as_bytes() });
    if let Some(fraction) = fraction {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
    out.push(b'"');
    Ok(())
}

/// Writes a date and a time with a `T` and a zone; as it is where no calendar has the day.
fn timestamp(raw: &[u8], zone: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    const SHAPE: &[u8; 19] = b"0000-00-00 00:00:00";
    let (head, fraction) = raw.split_first_chunk::<{ SHAPE.len() }>().ok_or(FORM)?;
    let shaped = head.iter().zip(SHAPE).all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        shape => byte == shape,
    });
    let fraction_fits = match fraction {
        [] => true,
        [b'.', digits @ ..] => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !shaped || !fraction_fits {
        return Err(FORM);
    }
    let real = &head[5..7] != b"00" && &head[8..10] != b"00";
    let mut head = *head;
    if real {
        head[10] = b'T';
    }
    out.push(b'"');
    out.extend_from_slice(&head);
    out.extend_from_slice(fraction);
    if real {
        out.extend_from_slice(zone);
    }
    out.push(b'"');
    Ok(())
}
