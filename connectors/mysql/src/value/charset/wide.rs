//! Character sets of more than one byte a character, and the one of seven bits.

use encoding_rs::Encoding;

/// A text in an encoding that `encoding_rs` has.
pub(super) fn multi(_name: &str, encoding: &'static Encoding, raw: &[u8]) -> Option<String> {
    encoding.decode_without_bom_handling_and_without_replacement(raw).map(Into::into)
}

/// A character of swe7.
pub(super) fn swe7(byte: u8) -> Option<char> {
    Some(match byte {
        0x40 => 'É',
        0x5b => 'Ä',
        0x5c => 'Ö',
        0x5d => 'Å',
        0x5e => 'Ü',
        0x60 => 'é',
        0x7b => 'ä',
        0x7c => 'ö',
        0x7d => 'å',
        0x7e => 'ü',
        0x7f.. => return None,
        byte => char::from(byte),
    })
}

/// A text of two bytes a unit.
pub(super) fn utf16(raw: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (units, rest) = raw.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    char::decode_utf16(units.iter().map(|bytes| unit(*bytes))).collect::<Result<_, _>>().ok()
}

/// A text of four bytes a character.
pub(super) fn utf32(raw: &[u8]) -> Option<String> {
    let (units, rest) = raw.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    units.iter().map(|bytes| char::from_u32(u32::from_be_bytes(*bytes))).collect()
}
