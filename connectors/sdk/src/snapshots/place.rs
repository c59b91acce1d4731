//! How far the snapshot of a table is, as the text that events carry. Pure.
//!
//! ```text
//! -              nothing is told yet
//! +42,a%20b      everything up to this key is told
//! +42!7;9        the same, but the rows 7 and 9 have to be told again
//! +42@89ab12cd   the same in a table whose keys have that order
//! ```

use crate::{Cell, Relation, fnv1a, percent};
use std::fmt::Write as _;

/// Rows that may wait to be told again; a table that would have more of them is read from its beginning.
const MOST_AGAIN: usize = 32;
/// Their size likewise, in bytes of text.
const MOST_AGAIN_BYTES: usize = 2048;

/// A row's key: its columns' texts, percent-encoded and joined by commas. Never empty: a key may be an empty text, and still
/// names a row.
pub type Key = String;

/// Stands for an empty text in a key.
const EMPTY: &str = "%-";

/// How far the snapshot of a table is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The last key that was told; `None` before the first.
    pub(super) after: Option<Key>,
    /// Rows that moved to another key while the table was read. Their events could not carry every column, and whether anybody
    /// had been told those before is not known.
    pub(super) again: Vec<Key>,
    /// A hash of what the keys are ordered by; `None` where that is not known yet.
    pub(super) order: Option<u32>,
}

impl Place {
    /// Reads the text back. What is not such a text is the beginning.
    pub(super) fn parse(text: &str) -> Self {
        let Some(text) = text.strip_prefix('+') else { return Self::default() };
        let (text, order) = text.split_once('@').unwrap_or((text, ""));
        let (after, again) = text.split_once('!').unwrap_or((text, ""));
        Self {
            after: (!after.is_empty()).then(|| after.to_owned()),
            again: again.split(';').filter(|key| !key.is_empty()).map(str::to_owned).collect(),
            order: u32::from_str_radix(order, 16).ok(),
        }
    }

    /// Writes the text over what `out` holds.
    pub(super) fn write(&self, out: &mut String) {
        out.clear();
        if self.after.is_none() && self.again.is_empty() {
            out.push('-');
            return;
        }
        out.push('+');
        out.push_str(self.after.as_deref().unwrap_or_default());
        for (nth, key) in self.again.iter().enumerate() {
            out.push(if nth == 0 { '!' } else { ';' });
            out.push_str(key);
        }
        if let Some(order) = self.order {
            let _ = write!(out, "@{order:08x}");
        }
    }

    /// Takes note of what the keys are ordered by; `false` where the place means nothing in that order.
    pub(super) fn is_of(&mut self, order: &str) -> bool {
        let order = fnv1a(&[order.as_bytes()]);
        let same = self.order.is_none_or(|known| known == order);
        if !same {
            *self = Self::default();
        }
        self.order = Some(order);
        same
    }

    /// Notes a row that has to be told again; `false` where there are too many of them.
    pub(super) fn repeat(&mut self, key: Key) -> bool {
        if !self.again.contains(&key) {
            self.again.push(key);
        }
        self.again.len() <= MOST_AGAIN
            && self.again.iter().map(String::len).sum::<usize>() <= MOST_AGAIN_BYTES
    }
}

/// The key of a row; from `other` what `row` does not carry. `None` where the table has no key, or the row does not tell all of it.
pub(super) fn key(relation: &Relation, row: &[Cell<'_>], other: Option<&[Cell<'_>]>) -> Option<Key> {
    let mut text = Vec::new();
    for (nth, &column) in relation.key.iter().enumerate() {
        let cell = match row.get(column) {
            Some(Cell::Unavailable) | None => other.and_then(|other| other.get(column)),
            cell => cell,
        };
        let Some(Cell::Value(raw)) = cell else { return None };
        if nth > 0 {
            text.push(b',');
        }
        encode(raw, &mut text);
    }
    if relation.key.is_empty() { None } else { String::from_utf8(text).ok() }
}

/// Appends a key column's text.
fn encode(raw: &[u8], out: &mut Vec<u8>) {
    if raw.is_empty() {
        out.extend_from_slice(EMPTY.as_bytes());
    }
    percent::encode(raw, out);
}

/// The texts of a key's columns, as [`Rows`](super::Rows) has it, in whatever encoding they were read; `None` where it is not a key of
/// `columns` columns.
pub fn columns(key: &str, columns: usize) -> Option<Vec<Vec<u8>>> {
    let decode = |part: &str| if part == EMPTY { Some(Vec::new()) } else { percent::decode_bytes(part) };
    let parts: Vec<Vec<u8>> = key.split(',').map(decode).collect::<Option<_>>()?;
    (parts.len() == columns).then_some(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(place: &Place) -> String {
        let mut text = String::new();
        place.write(&mut text);
        text
    }

    #[test]
    fn places_read_back() {
        let key = |text: &str| {
            let mut key = Vec::new();
            encode(text.as_bytes(), &mut key);
            String::from_utf8(key).unwrap()
        };
        let mut place = Place::default();
        assert_eq!((text(&place).as_str(), Place::parse("-")), ("-", place.clone()));
        place.after = Some(format!("{},{}", key("4,2 !;\u{2603}"), key("x")));
        assert_eq!(text(&place), "+4%2C2%20%21%3B%E2%98%83,x");
        assert_eq!(Place::parse(&text(&place)), place);
        assert!(place.repeat("7".to_owned()) && place.repeat("9".to_owned()) && place.repeat("7".to_owned()));
        assert!(text(&place).ends_with(",x!7;9"));
        assert_eq!(Place::parse(&text(&place)), place);
        place.after = None;
        assert_eq!(Place::parse(&text(&place)), place);
        assert!(place.is_of("id int4,") && place.is_of("id int4,"));
        assert_eq!(Place::parse(&text(&place)), place);
        assert!(!place.is_of("code text,") && place.is_of("code text,"));
        assert_eq!((text(&place).as_str(), place.order), ("-", Some(fnv1a(&[b"code text,"]))));
        assert_eq!(
            columns("4%2C2%20%21%3B%E2%98%83,x%FF", 2).unwrap(),
            ["4,2 !;\u{2603}".as_bytes(), b"x\xff"]
        );
        let empty = Place { after: Some(key("")), again: vec![key("")], order: None };
        assert_eq!(Place::parse(&text(&empty)), empty);
        assert_eq!(columns(&key(""), 1).unwrap(), [b""]);
        assert_eq!(columns(&format!("{},{}", key(""), key("")), 2).unwrap(), [b"", b""]);
    }

    #[test]
    fn hostile_text_is_refused() {
        for text in ["", "%", "%4", "%-%-", "%zz,1", "1,2,3"] {
            assert_eq!(columns(text, 2), None, "{text}");
        }
        for text in ["", "x", "42"] {
            assert_eq!(Place::parse(text), Place::default(), "{text}");
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut place = Place::default();
        assert!((0..MOST_AGAIN).all(|key| place.repeat(key.to_string())));
        assert!(!place.repeat("one more".to_owned()));
        assert!(!Place::default().repeat("x".repeat(MOST_AGAIN_BYTES + 1)));
    }
}
