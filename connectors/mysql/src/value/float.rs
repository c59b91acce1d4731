//! Floating-point numbers: the shortest digits that read back the same, in the servers' own notation.
//!
//! `my_gcvt` of both servers writes them plainly from 1e-15 to below 1e15, and with an exponent (`1e15`, `1.5e-16`) beyond. Inside
//! JSON documents they are written so by the server, hence here everywhere.

use headgate_sdk::Unwritable;
use std::fmt::{self, LowerExp, Write as _};

/// Digits in front of or behind the point up to which there is no exponent (`MAX_DECPT_FOR_F_FORMAT`).
const PLAIN: i32 = 15;

/// Writes a DOUBLE. What is not finite no server stores; it is a string.
#[inline]
pub(crate) fn write_f64(value: f64, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    if value.is_finite() {
        write_digits(value, out);
        Ok(())
    } else {
        Err(NOT_FINITE)
    }
}

/// Writes a FLOAT.
#[inline]
pub(crate) fn write_f32(value: f32, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    if value.is_finite() {
        write_digits(value, out);
        Ok(())
    } else {
        Err(NOT_FINITE)
    }
}

/// Why a number that no server stores cannot be written.
const NOT_FINITE: Unwritable = Unwritable { reason: "the number is not finite" };

/// Room for `-1.7976931348623157e-308`.
#[derive(Default)]
struct Shortest {
    text: [u8; 32],
    len: usize,
}

impl fmt::Write for Shortest {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.text.get_mut(self.len..self.len + part.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(part.as_bytes());
        self.len += part.len();
        Ok(())
    }
}

fn write_digits(value: impl LowerExp, out: &mut Vec<u8>) {
    // The standard library finds the shortest digits; only the notation is another.
    let mut shortest = Shortest::default();
    let _ = write!(shortest, "{value:e}");
    let mut text = shortest.text.get(..shortest.len).unwrap_or_default();
    if let Some(rest) = text.strip_prefix(b"-") {
        out.push(b'-');
        text = rest;
    }
    let at = memchr::memchr(b'e', text).unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(at);
    let exponent = std::str::from_utf8(exponent.get(1..).unwrap_or_default()).unwrap_or_default();
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (first, rest) = mantissa.split_at(1.min(mantissa.len()));
    let rest = rest.get(1..).unwrap_or_default();
    let digits = i32::try_from(1 + rest.len()).unwrap_or(1);
    // Where the point is, counted from the first digit.
    let point = exponent + 1;
    if point < 1 - PLAIN || (point > PLAIN && digits <= point) {
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        out.push(b'e');
        out.extend_from_slice(itoa::Buffer::new().format(exponent).as_bytes());
    } else if point <= 0 {
        out.extend_from_slice(b"0.");
        out.extend((point..0).map(|_| b'0'));
        out.extend_from_slice(first);
        out.extend_from_slice(rest);
    } else {
        let whole = usize::try_from(point - 1).unwrap_or_default();
        out.extend_from_slice(first);
        if rest.len() > whole {
            let (whole, fraction) = rest.split_at(whole);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        } else {
            out.extend_from_slice(rest);
            out.extend((rest.len()..whole).map(|_| b'0'));
        }
    }
}
