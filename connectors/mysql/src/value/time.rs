//! Dates and times. Those that have no place in a calendar (a month or a day of zero) are written as the servers do.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/my__time_8cc.html> (`my_datetime_packed_to_binary` and its kin)

use super::{LENGTH, array};
use headgate_sdk::Unwritable;

/// A point in time as its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) year: u32,
    pub(crate) month: u32,
    pub(crate) day: u32,
    pub(crate) hour: u32,
    pub(crate) minute: u32,
    pub(crate) second: u32,
    pub(crate) micros: u32,
}

const SECONDS_PER_DAY: u32 = 86_400;

/// Why fields that no calendar or clock has cannot be written.
pub(super) const RANGE: Unwritable = Unwritable { reason: "the value is not a date or time" };

/// Writes a DATE of three bytes.
pub(super) fn write_date(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let [a, b, c] = array(raw)?;
    let value = u32::from_le_bytes([a, b, c, 0]);
    let fields = Fields { year: value >> 9, month: value >> 5 & 15, day: value & 31, ..Fields::default() };
    out.push(b'"');
    date(&fields, out)?;
    out.push(b'"');
    Ok(())
}

/// Writes a DATETIME(n): five bytes of fields, up to three of a fraction.
pub(super) fn write_datetime(raw: &[u8], digits: u8, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let (head, tail) = raw.split_first_chunk::<5>().ok_or(LENGTH)?;
    let [a, b, c, d, e] = *head;
    // The highest bit is set in all that are not negative, and no server stores negative ones.
    let value = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]).checked_sub(1 << 39).ok_or(RANGE)?;
    let bits = |shift: u32, mask: u64| (value >> shift & mask) as u32;
    let months = bits(22, 0x1_ffff);
    let fields = Fields {
        year: months / 13,
        month: months % 13,
        day: bits(17, 31),
        hour: bits(12, 31),
        minute: bits(6, 63),
        second: bits(0, 63),
        micros: fraction(tail, digits)?,
    };
    write_fields(&fields, digits, b"", out)
}

/// Writes a TIMESTAMP(n): seconds since 1970, up to three bytes of a fraction.
pub(super) fn write_timestamp(raw: &[u8], digits: u8, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let (seconds, tail) = raw.split_first_chunk().ok_or(LENGTH)?;
    instant(u32::from_be_bytes(*seconds), fraction(tail, digits)?, digits, out)
}

/// Writes a TIME(n): three bytes of fields and up to three of a fraction, as one number with an offset for its sign.
pub(super) fn write_time(raw: &[u8], digits: u8, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let tail =
        raw.len().checked_sub(3).filter(|tail| *tail == usize::from(digits.div_ceil(2))).ok_or(LENGTH)?;
    let value = raw.iter().fold(0_i64, |value, &byte| value << 8 | i64::from(byte));
    let value = value - (0x80_0000 << (8 * tail));
    let (negative, value) = (value < 0, value.unsigned_abs());
    let micros = (value & ((1 << (8 * tail)) - 1)) as u32 * UNIT[tail.min(3)];
    let value = (value >> (8 * tail)) as u32;
    let fields = Fields {
        hour: value >> 12 & 0x3ff,
        minute: value >> 6 & 63,
        second: value & 63,
        micros,
        ..Fields::default()
    };
    write_duration(negative, &fields, digits, out)
}

/// Microseconds in a unit of a fraction of so many bytes.
const UNIT: [u32; 4] = [0, 10_000, 100, 1];

/// The fraction of a second as microseconds.
fn fraction(raw: &[u8], digits: u8) -> Result<u32, Unwritable> {
    if raw.len() != usize::from(digits.div_ceil(2)) {
        return Err(LENGTH);
    }
    let value = raw.iter().fold(0_u32, |value, &byte| value << 8 | u32::from(byte));
    value.checked_mul(UNIT[raw.len().min(3)]).ok_or(RANGE)
}

/// Writes an instant in UTC. No second and no fraction at all is the servers' zero.
pub(super) fn instant(seconds: u32, micros: u32, digits: u8, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    if seconds == 0 && micros == 0 {
        return write_fields(&Fields::default(), digits, b"Z", out);
    }
    let (year, month, day) = civil(seconds / SECONDS_PER_DAY);
    let second = seconds % SECONDS_PER_DAY;
    let fields = Fields {
        year,
        month,
        day,
        hour: second / 3600,
        minute: second / 60 % 60,
        second: second % 60,
        micros,
    };
    write_fields(&fields, digits, b"Z", out)
}

/// The date of a day since 1970-01-01, by eras of 400 years that begin in March.
fn civil(days: u32) -> (u32, u32, u32) {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

/// Writes a date and a time: in the form of RFC 3339 with `zone`, or as the server prints it where no calendar has the day.
pub(super) fn write_fields(
    fields: &Fields,
    digits: u8,
    zone: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    let real = fields.month > 0 && fields.day > 0;
    out.push(b'"');
    date(fields, out)?;
    out.push(if real { b'T' } else { b' ' });
    clock(fields, digits, out)?;
    if real {
        out.extend_from_slice(zone);
    }
    out.push(b'"');
    Ok(())
}

/// Writes a length of time.
pub(super) fn write_duration(
    negative: bool,
    fields: &Fields,
    digits: u8,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    out.push(b'"');
    duration(negative, fields, digits, out)?;
    out.push(b'"');
    Ok(())
}

/// Appends a length of time as the servers print it.
pub(crate) fn duration(
    negative: bool,
    fields: &Fields,
    digits: u8,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    if negative {
        out.push(b'-');
    }
    if fields.hour > 99 {
        out.extend_from_slice(itoa::Buffer::new().format(fields.hour).as_bytes());
        out.push(b':');
        sixties(fields, digits, out)
    } else {
        clock(fields, digits, out)
    }
}

/// Appends `2026-11-22`.
pub(crate) fn date(fields: &Fields, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    if fields.year > 9999 || fields.month > 12 || fields.day > 31 {
        return Err(RANGE);
    }
    let ([a, b], [c, d]) = (pair(fields.year / 100), pair(fields.year % 100));
    let ([e, f], [g, h]) = (pair(fields.month), pair(fields.day));
    out.extend_from_slice(&[a, b, c, d, b'-', e, f, b'-', g, h]);
    Ok(())
}

/// Appends `14:06:07.123456`, with so many digits after the second.
pub(crate) fn clock(fields: &Fields, digits: u8, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    if fields.hour > 99 {
        return Err(RANGE);
    }
    let [a, b] = pair(fields.hour);
    out.extend_from_slice(&[a, b, b':']);
    sixties(fields, digits, out)
}

/// Appends minutes, seconds and the fraction.
fn sixties(fields: &Fields, digits: u8, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    if fields.minute > 59 || fields.second > 59 || fields.micros > 999_999 {
        return Err(RANGE);
    }
    let ([a, b], [c, d]) = (pair(fields.minute), pair(fields.second));
    out.extend_from_slice(&[a, b, b':', c, d]);
    if digits > 0 {
        let ([e, f], [g, h]) = (pair(fields.micros / 10_000), pair(fields.micros / 100 % 100));
        let [i, j] = pair(fields.micros % 100);
        let all = [b'.', e, f, g, h, i, j];
        out.extend_from_slice(all.get(..=usize::from(digits)).unwrap_or(&all));
    }
    Ok(())
}

/// Two digits of a number below 100.
#[inline]
fn pair(number: u32) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}
