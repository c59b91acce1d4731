//! DECIMAL: nine digits in four bytes, big-endian, all bits inverted where negative, the sign inverted.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/decimal_8cc.html> (`decimal2bin`)

use super::LENGTH;
use headgate_sdk::Unwritable;

/// Digits in four bytes.
const GROUP: usize = 9;

/// Bytes of fewer digits.
const BYTES: [usize; GROUP + 1] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// Most digits of a DECIMAL.
const MAX_DIGITS: usize = 65;

/// Writes a DECIMAL as a string.
#[inline]
pub(super) fn write(raw: &[u8], precision: u8, scale: u8, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    out.push(b'"');
    write_decimal(raw, precision, scale, out)?;
    out.push(b'"');
    Ok(())
}

/// Writes the digits of a DECIMAL: all after the point, no zeros before the first.
pub(crate) fn write_decimal(
    raw: &[u8],
    precision: u8,
    scale: u8,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    let scale_digits = usize::from(scale);
    let whole_digits = usize::from(precision).checked_sub(scale_digits).ok_or(LENGTH)?;
    if whole_digits + scale_digits > MAX_DIGITS {
        return Err(LENGTH);
    }
    let whole_len = whole_digits / GROUP * 4 + BYTES[whole_digits % GROUP];
    let scale_len = scale_digits / GROUP * 4 + BYTES[scale_digits % GROUP];
    if raw.len() != whole_len + scale_len {
        return Err(LENGTH);
    }
    let negative = raw.first().is_some_and(|byte| byte & 0x80 == 0);
    let flip = if negative { 0xff } else { 0 };
    let mut bytes =
        raw.iter().enumerate().map(|(at, byte)| if at == 0 { byte ^ flip ^ 0x80 } else { byte ^ flip });
    let mut group =
        |len: usize| bytes.by_ref().take(len).fold(0_u32, |value, byte| value << 8 | u32::from(byte));
    if negative {
        out.push(b'-');
    }
    let start = out.len();
    // Before the point the short group comes first, after it last.
    let head = whole_digits % GROUP;
    if head > 0 {
        digits(group(BYTES[head]), head, out)?;
    }
    for _ in 0..whole_digits / GROUP {
        digits(group(4), GROUP, out)?;
    }
    let zeros = out.iter().skip(start).take_while(|digit| **digit == b'0').count();
    out.drain(start..start + zeros);
    if out.len() == start {
        out.push(b'0');
    }
    if scale_digits > 0 {
        out.push(b'.');
        for _ in 0..scale_digits / GROUP {
            digits(group(4), GROUP, out)?;
        }
        let tail = scale_digits % GROUP;
        if tail > 0 {
            digits(group(BYTES[tail]), tail, out)?;
        }
    }
    Ok(())
}

/// Writes a group with all of its digits.
#[inline]
fn digits(value: u32, count: usize, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let mut text = [b'0'; GROUP];
    let mut rest = value;
    for digit in text.iter_mut().take(count).rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    if rest != 0 {
        return Err(Unwritable { reason: "the digits of the value are more than its group holds" });
    }
    out.extend_from_slice(text.get(..count).unwrap_or_default());
    Ok(())
}
