//! bytea: hexadecimal digits become base64.

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of each hexadecimal digit; a set high nibble marks what is none.
const NIBBLE: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        table[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

/// Writes `\x…` as a base64 string (standard alphabet, padded).
pub(super) fn write(raw: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(hex) = raw.strip_prefix(b"\\x") else { return false };
    let (pairs, odd) = hex.as_chunks::<2>();
    if !odd.is_empty() {
        return false;
    }
    out.reserve(pairs.len().div_ceil(3) * 4 + 2);
    out.push(b'"');
    let (groups, tail) = pairs.as_chunks::<3>();
    // Bad digits are gathered rather than branched on: a value is written whole before it is found to be none.
    let mut bad = 0;
    for [a, b, c] in groups {
        out.extend_from_slice(&group(byte(*a, &mut bad), byte(*b, &mut bad), byte(*c, &mut bad)));
    }
    match tail {
        [a] => {
            let [first, second, ..] = group(byte(*a, &mut bad), 0, 0);
            out.extend_from_slice(&[first, second, b'=', b'=']);
        }
        [a, b] => {
            let [first, second, third, _] = group(byte(*a, &mut bad), byte(*b, &mut bad), 0);
            out.extend_from_slice(&[first, second, third, b'=']);
        }
        _ => {}
    }
    out.push(b'"');
    bad & 0xf0 == 0
}

/// The byte that two digits stand for.
#[inline]
fn byte([high, low]: [u8; 2], bad: &mut u8) -> u8 {
    let (high, low) = (NIBBLE[usize::from(high)], NIBBLE[usize::from(low)]);
    *bad |= high | low;
    high << 4 | low & 0xf
}

/// Three bytes as four characters.
#[inline]
fn group(a: u8, b: u8, c: u8) -> [u8; 4] {
    let bits = u32::from_be_bytes([0, a, b, c]);
    [18, 12, 6, 0].map(|shift| BASE64[(bits >> shift & 0x3f) as usize])
}
