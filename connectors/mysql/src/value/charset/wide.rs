//! Character sets of more than one byte a character, and the one of seven bits.

use super::exceptions::{self, Exceptions};
use encoding_rs::Encoding;

/// A text in an encoding that `encoding_rs` has, but for the characters that the servers read otherwise.
pub(super) fn multi(name: &str, encoding: &'static Encoding, raw: &[u8]) -> Option<String> {
    let exceptions: Exceptions = match name {
        "big5" => exceptions::BIG5,
        "eucjpms" => exceptions::EUCJPMS,
        "gb18030" => exceptions::GB18030,
        "gb2312" => exceptions::GB2312,
        "sjis" => exceptions::SJIS,
        "ujis" => exceptions::UJIS,
        _ => &[],
    };
    let japanese = matches!(name, "ujis" | "eucjpms");
    let decode = |part| encoding.decode_without_bom_handling_and_without_replacement(part);
    if exceptions.is_empty() {
        return decode(raw).map(Into::into);
    }
    let mut text = String::with_capacity(raw.len() * 2);
    // What is read as everybody does is decoded in one piece.
    let (mut rest, mut plain) = (raw, 0);
    while let Some(tail) = rest.get(plain..).filter(|tail| !tail.is_empty()) {
        let len = length(name, tail);
        let character = tail.get(..len)?;
        let code = character.iter().fold(0, |code, &byte| code << 8 | u32::from(byte));
        let special = exceptions.binary_search_by_key(&code, |(code, _)| *code).ok();
        let special = special.and_then(|at| exceptions.get(at)).map(|(_, character)| *character);
        match special.or_else(|| if japanese { own_character(character) } else { None }) {
            None => plain += len,
            Some(special) => {
                text.push_str(&decode(rest.get(..plain)?)?);
                text.push(special);
                (rest, plain) = (rest.get(plain + len..)?, 0);
            }
        }
    }
    text.push_str(&decode(rest)?);
    Some(text)
}

/// Bytes of the first character.
fn length(name: &str, text: &[u8]) -> usize {
    match (name, text.first(), text.get(1)) {
        (_, None | Some(0..=0x7f), _) => 1,
        ("sjis", Some(0xa1..=0xdf), _) => 1,
        ("ujis" | "eucjpms", Some(0x8f), _) => 3,
        ("gb18030", _, Some(b'0'..=b'9')) => 4,
        _ => 2,
    }
}

/// A character of one's own in EUC-JP: the last ten rows of both planes are those that Unicode leaves to everybody.
fn own_character(bytes: &[u8]) -> Option<char> {
    let (start, row, column) = match *bytes {
        [row @ 0xf5..=0xfe, column @ 0xa1..=0xfe] => (0xe000, row, column),
        [0x8f, row @ 0xf5..=0xfe, column @ 0xa1..=0xfe] => (0xe3ac, row, column),
        _ => return None,
    };
    char::from_u32(start + u32::from(row - 0xf5) * 94 + u32::from(column - 0xa1))
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
