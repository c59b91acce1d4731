//! A column of a TABLE_MAP: what its values are, and what its type is called.

use super::{Layout, declared::Declared};
use crate::{
    event::{ColumnType, code},
    value::{Charset, Kind, Labels},
};

/// Everything that the log, and where it leaves something out the catalog, tells of a column.
#[derive(Debug)]
pub(super) struct Facts<'f> {
    pub(super) wire: ColumnType,
    pub(super) unsigned: bool,
    /// The collation of its text or its labels.
    pub(super) collation: Option<u64>,
    /// Its labels, in its character set.
    pub(super) labels: Option<&'f [&'f [u8]]>,
    /// What the catalog says of it, if its name is there.
    pub(super) declared: Option<&'f Declared>,
}

/// Why a column cannot be prepared.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// A type that is not known, or with metadata that no server writes.
    Type(u8),
    /// A character set that is not supported, by its name or by its collation's number.
    Charset(String),
    /// A type of the catalog that is not known.
    Declared(String),
    /// Neither the log nor the catalog has the labels.
    Labels,
    /// The labels are not text.
    LabelText,
    /// Neither the log nor the catalog has the character set.
    NoCharset,
}

/// The collation of bytes that are not text.
const BINARY: u64 = 63;

/// How a column's values lie in an image, how they become JSON, and its type's name as `SHOW COLUMNS` has it, without what does not
/// change the values.
pub(super) fn prepare(facts: &Facts<'_>) -> Result<(Layout, Kind, String), Problem> {
    let ColumnType { code, meta } = facts.wire;
    let old = match (code, facts.declared.map(|declared| &declared.kind)) {
        (code::TIME, Some(Kind::Time { digits }))
        | (code::DATETIME, Some(Kind::DateTime { digits }))
        | (code::TIMESTAMP, Some(Kind::Timestamp { digits })) => *digits,
        _ => 0,
    };
    let layout = Layout::of(facts.wire, old).ok_or(Problem::Type(code))?;
    let sign = if facts.unsigned { " unsigned" } else { "" };
    let integer =
        |bytes, name: &str| (Kind::Integer { bytes, unsigned: facts.unsigned }, format!("{name}{sign}"));
    let digits = u8::try_from(meta).unwrap_or_default();
    let (kind, name) = match code {
        code::TINY => integer(1, "tinyint"),
        code::SHORT => integer(2, "smallint"),
        code::INT24 => integer(3, "mediumint"),
        code::LONG => integer(4, "int"),
        code::LONGLONG => integer(8, "bigint"),
        code::FLOAT => (Kind::Float, format!("float{sign}")),
        code::DOUBLE => (Kind::Double, format!("double{sign}")),
        code::NEWDECIMAL => {
            let [precision, scale] = meta.to_be_bytes();
            (Kind::Decimal { precision, scale }, format!("decimal({precision},{scale}){sign}"))
        }
        code::BIT => {
            let [bits, bytes] = meta.to_le_bytes();
            // The layout has no more than eight bytes.
            let bits = bytes * 8 + bits;
            (Kind::Bit { bits }, format!("bit({bits})"))
        }
        code::YEAR => (Kind::Year, "year".to_owned()),
        code::DATE | code::NEWDATE => (Kind::Date, "date".to_owned()),
        code::TIME => (Kind::OldTime { digits: old }, with_digits("time", old)),
        code::DATETIME => (Kind::OldDateTime { digits: old }, with_digits("datetime", old)),
        code::TIMESTAMP => (Kind::OldTimestamp { digits: old }, with_digits("timestamp", old)),
        code::TIME2 => (Kind::Time { digits }, with_digits("time", digits)),
        code::DATETIME2 => (Kind::DateTime { digits }, with_digits("datetime", digits)),
        code::TIMESTAMP2 => (Kind::Timestamp { digits }, with_digits("timestamp", digits)),
        code::JSON => (Kind::Json, "json".to_owned()),
        code::GEOMETRY => (Kind::Geometry, "geometry".to_owned()),
        code::VECTOR => (Kind::Vector, "vector".to_owned()),
        code::ENUM | code::SET => return labelled(facts).map(|(kind, name)| (layout, kind, name)),
        _ => return text(facts).map(|(kind, name)| (layout, kind, name)),
    };
    Ok((layout, kind, name))
}

/// `time`, or `time(3)`.
pub(super) fn with_digits(name: &str, digits: u8) -> String {
    if digits == 0 { name.to_owned() } else { format!("{name}({digits})") }
}

/// The character set of a collation.
fn charset(collation: u64) -> Result<(Charset, &'static str), Problem> {
    let unsupported = || match Charset::name_of_collation(collation) {
        Some(name) => Problem::Charset(name.to_owned()),
        None => Problem::Charset(format!("of collation {collation}")),
    };
    let charset = Charset::of_collation(collation).ok_or_else(unsupported)?;
    Ok((charset, Charset::name_of_collation(collation).unwrap_or_default()))
}

/// ENUM and SET. The log's labels are in the column's character set, the catalog's are text.
fn labelled(facts: &Facts<'_>) -> Result<(Kind, String), Problem> {
    let texts = match (facts.labels, facts.declared.and_then(|declared| declared.labels.clone())) {
        (Some(labels), _) => {
            let collation = facts.collation.ok_or(Problem::NoCharset)?;
            // Labels have to be text in an event; those that are bytes mostly are.
            let charset = if collation == BINARY { Charset::Utf8 } else { charset(collation)?.0 };
            let decode = |label: &&[u8]| charset.decode(label).map_err(|_| Problem::LabelText);
            labels.iter().map(decode).collect::<Result<Vec<_>, _>>()?
        }
        (None, Some(texts)) => texts,
        (None, None) => return Err(Problem::Labels),
    };
    let is_enum = facts.wire.code == code::ENUM;
    let name = label_type(if is_enum { "enum" } else { "set" }, &texts);
    let labels = Labels::new(texts.iter().map(String::as_str));
    Ok((if is_enum { Kind::Enum(labels) } else { Kind::Set(labels) }, name))
}

/// `enum('a','b')`.
pub(super) fn label_type(name: &str, texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("'{}'", text.replace('\'', "''"))).collect();
    format!("{name}({})", quoted.join(","))
}

/// CHAR, VARCHAR, TEXT, BINARY, VARBINARY and BLOB, and what MariaDB keeps in them.
fn text(facts: &Facts<'_>) -> Result<(Kind, String), Problem> {
    let ColumnType { code, meta } = facts.wire;
    // Without a collation a byte string could be a text and the other way round: only the catalog can tell.
    let Some(collation) = facts.collation else {
        return Err(Problem::NoCharset);
    };
    if let Some(inner) = facts.declared.and_then(|declared| inner(declared, facts.wire, collation)) {
        return Ok(inner);
    }
    let compressed = matches!(code, code::BLOB_COMPRESSED | code::VARCHAR_COMPRESSED);
    let size = match code {
        code::TINY_BLOB => "tiny",
        code::MEDIUM_BLOB => "medium",
        code::LONG_BLOB => "long",
        code::BLOB | code::BLOB_COMPRESSED => ["", "tiny", "", "medium", "long"][usize::from(meta.min(4))],
        _ => "",
    };
    let is_blob = matches!(code, code::TINY_BLOB..=code::BLOB | code::BLOB_COMPRESSED);
    // A compressed VARCHAR has a byte more than it is declared with.
    let length = if code == code::VARCHAR_COMPRESSED { meta.saturating_sub(1) } else { meta };
    if collation == BINARY {
        let name = match code {
            _ if is_blob => format!("{size}blob"),
            code::STRING => format!("binary({length})"),
            _ => format!("varbinary({length})"),
        };
        let kind = match code {
            _ if compressed => Kind::CompressedBlob,
            code::STRING => Kind::Binary { length },
            _ => Kind::Blob,
        };
        return Ok((kind, name));
    }
    let (charset, charset_name) = charset(collation)?;
    let characters = length / Charset::max_len(charset_name);
    let name = match code {
        _ if is_blob => format!("{size}text"),
        code::STRING => format!("char({characters})"),
        _ => format!("varchar({characters})"),
    };
    Ok((if compressed { Kind::CompressedText(charset) } else { Kind::Text(charset) }, name))
}

/// A type of MariaDB's own that the log shows as a byte string or a text, if what the log shows is what the type is kept in.
fn inner(declared: &Declared, wire: ColumnType, collation: u64) -> Option<(Kind, String)> {
    let ColumnType { code, meta } = wire;
    let fits = match declared.kind {
        Kind::Uuid | Kind::Inet6 => code == code::STRING && collation == BINARY && meta == 16,
        Kind::Inet4 => code == code::STRING && collation == BINARY && meta == 4,
        Kind::Vector => code == code::VARCHAR && collation == BINARY,
        Kind::JsonText(_) => collation != BINARY && wire.is_character(),
        _ => false,
    };
    if !fits {
        return None;
    }
    let kind = match declared.kind {
        // The character set of the log counts, not the one of now.
        Kind::JsonText(_) => Kind::JsonText(Charset::of_collation(collation)?),
        ref kind => kind.clone(),
    };
    Some((kind, declared.name.clone()))
}
