//! The values of a document that hold no others, as the server prints them.

use super::{
    DAMAGED,
    binary::{Budget, Value},
};
use crate::{
    event::code,
    value::{
        text,
        time::{self, Fields},
        write_decimal, write_f64,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use headgate_sdk::Unwritable;
use std::io::Write as _;

/// Digits of a second inside documents.
const DIGITS: u8 = 6;

/// Writes a scalar.
pub(super) fn write(value: &Value<'_>, budget: &mut Budget, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    match *value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Signed(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::Unsigned(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::Double(number) => {
            let start = out.len();
            write_f64(number, out)?;
            // So that it is not taken for an integer.
            if memchr::memchr2(b'.', b'e', out.get(start..).unwrap_or_default()).is_none() {
                out.extend_from_slice(b".0");
            }
        }
        Value::String(string) => {
            budget.spend(string.len())?;
            write_string(string, out)?;
        }
        Value::Opaque(kind, bytes) => {
            budget.spend(bytes.len())?;
            write_opaque(kind, bytes, out)?;
        }
        Value::Object(_) | Value::Array(_) => return Err(DAMAGED),
    }
    Ok(())
}

/// Writes a string, which the server keeps as UTF-8.
pub(super) fn write_string(string: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    text::write(string, out)
}

/// Writes a value of an SQL type.
fn write_opaque(kind: u8, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    match kind {
        code::NEWDECIMAL => {
            let ([precision, scale], digits) = bytes.split_first_chunk().ok_or(DAMAGED)?;
            return write_decimal(digits, *precision, *scale, out);
        }
        code::DATE | code::DATETIME | code::TIMESTAMP | code::TIME => {
            let packed = i64::from_le_bytes(bytes.try_into().map_err(|_| DAMAGED)?);
            out.push(b'"');
            write_packed(kind, packed, out)?;
        }
        kind => {
            // Writing to a vector cannot fail.
            let _ = write!(out, "\"base64:type{kind}:");
            out.extend_from_slice(BASE64.encode(bytes).as_bytes());
        }
    }
    out.push(b'"');
    Ok(())
}

/// Appends a date or time: the fields above 24 bits of microseconds, negative as a whole.
fn write_packed(kind: u8, packed: i64, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let value = packed.unsigned_abs();
    let bits = |shift: u32, mask: u64| (value >> shift & mask) as u32;
    let mut fields = Fields {
        minute: bits(30, 63),
        second: bits(24, 63),
        micros: bits(0, 0xff_ffff),
        ..Fields::default()
    };
    if kind == code::TIME {
        fields.hour = bits(36, 0x3ff);
        return time::duration(packed < 0, &fields, DIGITS, out);
    }
    if packed < 0 {
        return Err(DAMAGED);
    }
    let months = bits(46, 0x3_ffff);
    (fields.year, fields.month) = (months / 13, months % 13);
    (fields.day, fields.hour) = (bits(41, 31), bits(36, 31));
    time::date(&fields, out)?;
    if kind == code::DATE {
        return Ok(());
    }
    out.push(b' ');
    time::clock(&fields, DIGITS, out)
}
