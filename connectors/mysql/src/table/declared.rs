//! A column of the catalog: what `COLUMN_TYPE` says.

use super::{
    column::{Problem, label_type, with_digits},
    describe::DescribedColumn,
};
use crate::value::{Charset, Kind, Labels};

/// What the catalog says of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) kind: Kind,
    /// The type's name, as the log's columns get it too.
    pub(super) name: String,
    /// Labels of an ENUM or a SET.
    pub(super) labels: Option<Vec<String>>,
}

impl Declared {
    /// Reads a column's type.
    pub(super) fn read(column: &DescribedColumn) -> Result<Self, Problem> {
        let whole = column.column_type.trim();
        // Comments tell of compression and of versions of old.
        let compressed = whole.contains("COMPRESSED");
        let plain = whole.split("/*").next().unwrap_or_default().trim();
        let word_end = plain.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(plain.len());
        let (word, rest) = plain.split_at(word_end);
        let word = word.to_ascii_lowercase();
        let (arguments, attributes) = arguments(rest);
        let unsigned = attributes.split_whitespace().any(|word| word.eq_ignore_ascii_case("unsigned"));
        let sign = if unsigned { " unsigned" } else { "" };
        let number =
            |nth: usize| arguments.split(',').nth(nth).and_then(|text| text.trim().parse::<u16>().ok());
        let small = |nth| number(nth).and_then(|number| u8::try_from(number).ok());
        let digits = small(0).unwrap_or(0);
        let integer = |bytes| (Kind::Integer { bytes, unsigned }, format!("{word}{sign}"));
        let text = |name: String| -> Result<(Kind, String), Problem> {
            let charset = column.character_set.as_deref().ok_or(Problem::NoCharset)?;
            let charset = Charset::by_name(charset).ok_or_else(|| Problem::Charset(charset.to_owned()))?;
            Ok(match (compressed, column.json) {
                (true, _) => (Kind::CompressedText(charset), name),
                (false, true) => (Kind::JsonText(charset), "json".to_owned()),
                (false, false) => (Kind::Text(charset), name),
            })
        };
        let blob = if compressed { Kind::CompressedBlob } else { Kind::Blob };
        let length = number(0).unwrap_or(1);
        let mut labels = None;
        let (kind, name) = match word.as_str() {
            "tinyint" => integer(1),
            "smallint" => integer(2),
            "mediumint" => integer(3),
            "int" => integer(4),
            "bigint" => integer(8),
            "float" => (Kind::Float, format!("float{sign}")),
            "double" => (Kind::Double, format!("double{sign}")),
            "decimal" => {
                let (precision, scale) = (small(0).unwrap_or(10), small(1).unwrap_or(0));
                (Kind::Decimal { precision, scale }, format!("decimal({precision},{scale}){sign}"))
            }
            "bit" => {
                let bits = small(0).unwrap_or(1);
                (Kind::Bit { bits }, format!("bit({bits})"))
            }
            "year" => (Kind::Year, word.clone()),
            "date" => (Kind::Date, word.clone()),
            "time" => (Kind::Time { digits }, with_digits("time", digits)),
            "datetime" => (Kind::DateTime { digits }, with_digits("datetime", digits)),
            "timestamp" => (Kind::Timestamp { digits }, with_digits("timestamp", digits)),
            "char" | "varchar" => text(format!("{word}({length})"))?,
            "tinytext" | "text" | "mediumtext" | "longtext" => text(word.clone())?,
            "binary" => (Kind::Binary { length }, format!("binary({length})")),
            "varbinary" => (blob, format!("varbinary({length})")),
            "tinyblob" | "blob" | "mediumblob" | "longblob" => (blob, word.clone()),
            "enum" | "set" => {
                let texts = quoted(arguments).ok_or(Problem::LabelText)?;
                let spelled = Labels::new(texts.iter().map(String::as_str));
                let name = label_type(&word, &texts);
                labels = Some(texts);
                (if word == "enum" { Kind::Enum(spelled) } else { Kind::Set(spelled) }, name)
            }
            "json" => (Kind::Json, word.clone()),
            "vector" => (Kind::Vector, word.clone()),
            "uuid" => (Kind::Uuid, word.clone()),
            "inet4" => (Kind::Inet4, word.clone()),
            "inet6" => (Kind::Inet6, word.clone()),
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" | "geomcollection" => {
                (Kind::Geometry, "geometry".to_owned())
            }
            _ => return Err(Problem::Declared(column.column_type.clone())),
        };
        Ok(Self { kind, name, labels })
    }
}

/// What is between the parentheses after a type's name, and what follows them. Labels may hold parentheses themselves.
fn arguments(rest: &str) -> (&str, &str) {
    let Some(inner) = rest.trim_start().strip_prefix('(') else { return ("", rest) };
    let mut in_label = false;
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_label => escaped = true,
            // A doubled quote leaves a label and enters it again.
            '\'' => in_label = !in_label,
            ')' if !in_label => return (&inner[..at], &inner[at + 1..]),
            _ => {}
        }
    }
    (inner, "")
}

/// Labels as the servers print them: `'a','it''s'`, with backslashes before what does not print.
fn quoted(arguments: &str) -> Option<Vec<String>> {
    let mut labels = Vec::new();
    let mut rest = arguments.chars().peekable();
    loop {
        if rest.next()? != '\'' {
            return None;
        }
        let mut label = String::new();
        loop {
            match rest.next()? {
                '\'' if rest.peek() == Some(&'\'') => {
                    rest.next();
                    label.push('\'');
                }
                '\'' => break,
                '\\' => label.push(match rest.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    '0' => '\0',
                    other => other,
                }),
                other => label.push(other),
            }
        }
        labels.push(label);
        match rest.next() {
            None => return Some(labels),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}
