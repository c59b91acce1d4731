//! Integers, bits and years.

use super::{LENGTH, array};
use headgate_sdk::Unwritable;

/// Writes a little-endian integer.
#[inline]
pub(super) fn write_integer(
    raw: &[u8],
    bytes: u8,
    unsigned: bool,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    if raw.len() != usize::from(bytes) {
        return Err(LENGTH);
    }
    let mut wide = [0; 8];
    for (to, from) in wide.iter_mut().zip(raw) {
        *to = *from;
    }
    let value = u64::from_le_bytes(wide);
    let mut buffer = itoa::Buffer::new();
    let text = if unsigned {
        buffer.format(value)
    } else {
        // Shifting the sign to the top and back extends it, for 24 bits too.
        let shift = 64 - 8 * u32::from(bytes.clamp(1, 8));
        buffer.format((value << shift).cast_signed() >> shift)
    };
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Writes the lowest `bits` of big-endian bytes.
pub(super) fn write_bit(raw: &[u8], bits: u8, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    if raw.len() != usize::from(bits.div_ceil(8)) {
        return Err(LENGTH);
    }
    let value = raw.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
    out.push(b'"');
    out.extend((0..bits).rev().map(|bit| if value >> bit & 1 == 0 { b'0' } else { b'1' }));
    out.push(b'"');
    Ok(())
}

/// Writes a year: 0, or so many after 1900.
pub(super) fn write_year(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let [year] = array(raw)?;
    let year = if year == 0 { 0 } else { 1900 + u16::from(year) };
    out.extend_from_slice(itoa::Buffer::new().format(year).as_bytes());
    Ok(())
}
