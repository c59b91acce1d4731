//! Dates and times as they were stored before MySQL 5.6; a column keeps its form until it is altered.
//!
//! Without a fraction they are numbers of decimal digits. MariaDB 5.3 to 10.0 (and later ones with
//! `mysql56_temporal_format = OFF`) had fractions before MySQL did, in a form of its own: one number of the column's smallest unit,
//! with its highest byte first. How many digits such a column has stands in the catalog alone.
//!
//! <https://github.com/MariaDB/server/blob/10.11/sql/field.cc> (`Field_time_hires` and its kin),
//! <https://github.com/MariaDB/server/blob/10.11/sql-common/my_time.c> (`pack_time`)

use super::{
    LENGTH, array,
    time::{Fields, RANGE, instant, write_duration, write_fields},
};
use headgate_sdk::Unwritable;

/// Bytes of a TIME by its digits.
const TIME: [u16; 7] = [3, 4, 4, 5, 5, 5, 6];
/// Bytes of a DATETIME.
const DATETIME: [u16; 7] = [8, 6, 6, 7, 7, 7, 8];
/// Bytes of a TIMESTAMP.
const TIMESTAMP: [u16; 7] = [4, 5, 5, 6, 6, 7, 7];
/// A second more than the longest TIME: what is added so that no stored one is negative.
const LONGEST: i64 = 838 * 3600 + 59 * 60 + 60;

/// Bytes of a TIME; `None` where no column has so many digits.
pub(crate) fn time_length(digits: u8) -> Option<u16> {
    TIME.get(usize::from(digits)).copied()
}

/// Bytes of a DATETIME.
pub(crate) fn datetime_length(digits: u8) -> Option<u16> {
    DATETIME.get(usize::from(digits)).copied()
}

/// Bytes of a TIMESTAMP.
pub(crate) fn timestamp_length(digits: u8) -> Option<u16> {
    TIMESTAMP.get(usize::from(digits)).copied()
}

/// Writes a TIME: without a fraction a number of the form hhmmss.
pub(super) fn write_time(raw: &[u8], digits: u8, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    if digits == 0 {
        let [a, b, c] = array(raw)?;
        let value = i32::from_le_bytes([0, a, b, c]) >> 8;
        let (negative, value) = (value < 0, value.unsigned_abs());
        let (hour, minute, second) = (value / 10_000, value / 100 % 100, value % 100);
        return write_duration(negative, &Fields { hour, minute, second, ..Fields::default() }, 0, out);
    }
    let stored = i64::try_from(number(raw, time_length(digits))?).map_err(|_| RANGE)?;
    let value = stored - LONGEST * i64::try_from(units(digits)).map_err(|_| RANGE)?;
    let (seconds, micros) = split(value.unsigned_abs(), digits);
    let fields = Fields {
        hour: u32::try_from(seconds / 3600).map_err(|_| RANGE)?,
        minute: (seconds / 60 % 60) as u32,
        second: (seconds % 60) as u32,
        micros,
        ..Fields::default()
    };
    write_duration(value < 0, &fields, digits, out)
}

/// Writes a DATETIME: without a fraction a number of the form yyyymmddhhmmss.
pub(super) fn write_datetime(raw: &[u8], digits: u8, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    if digits == 0 {
        let value = u64::from_le_bytes(array(raw)?);
        let (date, time) = (value / 1_000_000, value % 1_000_000);
        let pair = |number: u64, below: u64| (number / below % 100) as u32;
        let fields = Fields {
            year: u32::try_from(date / 10_000).map_err(|_| RANGE)?,
            month: pair(date, 100),
            day: pair(date, 1),
            hour: pair(time, 10_000),
            minute: pair(time, 100),
            second: pair(time, 1),
            micros: 0,
        };
        return write_fields(&fields, 0, b"", out);
    }
    let (seconds, micros) = split(number(raw, datetime_length(digits))?, digits);
    let days = seconds / 86_400;
    let fields = Fields {
        year: u32::try_from(days / (13 * 32)).map_err(|_| RANGE)?,
        month: (days / 32 % 13) as u32,
        day: (days % 32) as u32,
        hour: (seconds / 3600 % 24) as u32,
        minute: (seconds / 60 % 60) as u32,
        second: (seconds % 60) as u32,
        micros,
    };
    write_fields(&fields, digits, b"", out)
}

/// Writes a TIMESTAMP: seconds since 1970, and with a fraction that behind them.
pub(super) fn write_timestamp(raw: &[u8], digits: u8, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    if digits == 0 {
        return instant(u32::from_le_bytes(array(raw)?), 0, 0, out);
    }
    let (seconds, fraction) = raw.split_first_chunk().ok_or(LENGTH)?;
    let fraction = number(fraction, timestamp_length(digits).map(|length| length - 4))?;
    let (more, micros) = split(fraction, digits);
    if more > 0 {
        return Err(RANGE);
    }
    instant(u32::from_be_bytes(*seconds), micros, digits, out)
}

/// A number of `length` bytes, its highest byte first.
fn number(raw: &[u8], length: Option<u16>) -> Result<u64, Unwritable> {
    if length.is_none_or(|length| raw.len() != usize::from(length)) {
        return Err(LENGTH);
    }
    Ok(raw.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// How many of a column's smallest unit are a second.
fn units(digits: u8) -> u64 {
    10_u64.pow(u32::from(digits.min(6)))
}

/// Seconds, and microseconds beyond them.
fn split(value: u64, digits: u8) -> (u64, u32) {
    let units = units(digits);
    (value / units, (value % units * (1_000_000 / units)) as u32)
}
