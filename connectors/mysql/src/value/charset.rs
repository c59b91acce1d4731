//! The servers' character sets, and their texts as JSON strings.
//!
//! A text that is plain ASCII is copied in nearly all of them. The other characters come from `encoding_rs` where that agrees
//! with the servers, else from tables that were taken from the servers themselves.

mod collation;
mod exceptions;
mod single;
mod wide;

use super::text;
use encoding_rs::Encoding;
use headgate_sdk::Unwritable;
use single::Upper;
use std::fmt;

/// The character set of a column.
#[derive(Clone, Copy)]
pub enum Charset {
    /// utf8mb4, utf8mb3 and ascii.
    Utf8,
    /// One byte a character, ASCII below 0x80.
    Single(&'static str, &'static Upper),
    /// One or more bytes a character, ASCII below 0x80.
    Multi(&'static str, &'static Encoding),
    /// swe7: seven bits, of which ten are not as in ASCII.
    Swe7,
    /// utf16, and ucs2, which is a part of it: big-endian.
    Utf16,
    /// utf16le.
    Utf16Le,
    /// utf32: big-endian.
    Utf32,
}

/// Why bytes of another character set cannot be text.
const UNMAPPED: Unwritable =
    Unwritable { reason: "the value has bytes that are no character in the column's character set" };

impl Charset {
    /// The character set of a collation, by its number in either server; `None` where it is not supported.
    #[must_use]
    pub fn of_collation(id: u64) -> Option<Self> {
        Self::by_name(collation::charset(id)?)
    }

    /// A character set by the servers' name; `None` where it is not supported.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let single = |name, upper| Some(Self::Single(name, upper));
        let multi = |name, encoding| Some(Self::Multi(name, encoding));
        match name {
            "utf8mb4" | "utf8mb3" | "utf8" | "ascii" => Some(Self::Utf8),
            "latin1" => single("latin1", &single::LATIN1),
            "latin2" => single("latin2", &single::LATIN2),
            "latin5" => single("latin5", &single::LATIN5),
            "latin7" => single("latin7", &single::LATIN7),
            "cp850" => single("cp850", &single::CP850),
            "cp852" => single("cp852", &single::CP852),
            "cp866" => single("cp866", &single::CP866),
            "cp1250" => single("cp1250", &single::CP1250),
            "cp1251" => single("cp1251", &single::CP1251),
            "cp1256" => single("cp1256", &single::CP1256),
            "cp1257" => single("cp1257", &single::CP1257),
            "dec8" => single("dec8", &single::DEC8),
            "hp8" => single("hp8", &single::HP8),
            "koi8r" => single("koi8r", &single::KOI8R),
            "koi8u" => single("koi8u", &single::KOI8U),
            "greek" => single("greek", &single::GREEK),
            "hebrew" => single("hebrew", &single::HEBREW),
            "tis620" => single("tis620", &single::TIS620),
            "armscii8" => single("armscii8", &single::ARMSCII8),
            "geostd8" => single("geostd8", &single::GEOSTD8),
            "keybcs2" => single("keybcs2", &single::KEYBCS2),
            "macce" => single("macce", &single::MACCE),
            "macroman" => single("macroman", &single::MACROMAN),
            "swe7" => Some(Self::Swe7),
            "sjis" => multi("sjis", encoding_rs::SHIFT_JIS),
            "cp932" => multi("cp932", encoding_rs::SHIFT_JIS),
            "ujis" => multi("ujis", encoding_rs::EUC_JP),
            "eucjpms" => multi("eucjpms", encoding_rs::EUC_JP),
            "gbk" => multi("gbk", encoding_rs::GBK),
            "gb2312" => multi("gb2312", encoding_rs::GBK),
            "gb18030" => multi("gb18030", encoding_rs::GB18030),
            "big5" => multi("big5", encoding_rs::BIG5),
            "euckr" => multi("euckr", encoding_rs::EUC_KR),
            "utf16" | "ucs2" => Some(Self::Utf16),
            "utf16le" => Some(Self::Utf16Le),
            "utf32" => Some(Self::Utf32),
            _ => None,
        }
    }

    /// The servers' name of the character set of a collation, whether it is supported or not.
    #[must_use]
    pub fn name_of_collation(id: u64) -> Option<&'static str> {
        collation::charset(id)
    }

    /// Most bytes of a character, by the servers' name of the character set.
    #[must_use]
    pub fn max_len(name: &str) -> u16 {
        match name {
            "utf8mb4" | "utf16" | "utf16le" | "utf32" | "gb18030" => 4,
            "utf8mb3" | "utf8" | "ujis" | "eucjpms" => 3,
            "ucs2" | "sjis" | "cp932" | "gbk" | "gb2312" | "big5" | "euckr" => 2,
            _ => 1,
        }
    }

    /// Writes a text as a JSON string.
    ///
    /// # Errors
    /// The bytes are not text in this character set.
    #[inline]
    pub fn write(self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
        match self {
            Self::Utf8 => text::write(raw, out),
            Self::Single(..) | Self::Multi(..) if headgate_sdk::json::is_plain(raw) => {
                out.push(b'"');
                out.extend_from_slice(raw);
                out.push(b'"');
                Ok(())
            }
            _ => text::write(self.decode(raw)?.as_bytes(), out),
        }
    }

    /// A text as UTF-8.
    ///
    /// # Errors
    /// The bytes are not text in this character set.
    pub fn decode(self, raw: &[u8]) -> Result<String, Unwritable> {
        match self {
            Self::Utf8 => String::from_utf8(raw.to_vec()).map_err(|_| text::NOT_UTF8),
            Self::Single(_, upper) => raw
                .iter()
                .map(|&byte| match byte.checked_sub(0x80) {
                    None => Some(char::from(byte)),
                    Some(at) => char::from_u32(upper[usize::from(at)].into()).filter(|&c| c != '\0'),
                })
                .collect::<Option<String>>()
                .ok_or(UNMAPPED),
            Self::Multi(name, encoding) => wide::multi(name, encoding, raw).ok_or(UNMAPPED),
            Self::Swe7 => {
                raw.iter().map(|&byte| wide::swe7(byte)).collect::<Option<String>>().ok_or(UNMAPPED)
            }
            Self::Utf16 => wide::utf16(raw, u16::from_be_bytes).ok_or(UNMAPPED),
            Self::Utf16Le => wide::utf16(raw, u16::from_le_bytes).ok_or(UNMAPPED),
            Self::Utf32 => wide::utf32(raw).ok_or(UNMAPPED),
        }
    }

    /// The servers' name; `utf8mb4` for all that are a part of it.
    fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8mb4",
            Self::Single(name, _) | Self::Multi(name, _) => name,
            Self::Swe7 => "swe7",
            Self::Utf16 => "utf16",
            Self::Utf16Le => "utf16le",
            Self::Utf32 => "utf32",
        }
    }
}

impl PartialEq for Charset {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Charset {}

impl fmt::Debug for Charset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
