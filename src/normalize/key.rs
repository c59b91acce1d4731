//! The key of a row: as text for `subject` and `partitionkey`, as JSON for `data.key`.

use headgate_sdk::{Cell, Relation, Unwritable, percent};
use std::borrow::Cow;

/// The key of one row, in buffers that are used again for the next.
#[derive(Debug, Default)]
pub(super) struct Key {
    /// Key columns in key order, percent-encoded and joined by `,`. ASCII only. Empty where there is no key.
    pub text: Vec<u8>,
    /// The key as a JSON object, or `null` where there is none.
    pub json: Vec<u8>,
    value: Vec<u8>,
}

impl Key {
    /// Takes the key from `row`, and from `other` what `row` does not carry.
    pub(super) fn read(
        &mut self,
        relation: &Relation,
        names: &[Vec<u8>],
        row: &[Cell<'_>],
        other: Option<&[Cell<'_>]>,
    ) -> Result<(), Unwritable> {
        self.read_columns(relation, names, &relation.key, row, other)
    }

    /// The same of other columns than the relation's key.
    pub(super) fn read_columns(
        &mut self,
        relation: &Relation,
        names: &[Vec<u8>],
        columns: &[usize],
        row: &[Cell<'_>],
        other: Option<&[Cell<'_>]>,
    ) -> Result<(), Unwritable> {
        self.text.clear();
        self.json.clear();
        for &index in columns {
            let cell = match row.get(index) {
                Some(Cell::Unavailable) | None => other.and_then(|row| row.get(index)),
                cell => cell,
            };
            self.value.clear();
            match cell {
                Some(Cell::Value(raw)) => relation.columns[index].writer.write(raw, &mut self.value)?,
                Some(Cell::Null) => self.value.extend_from_slice(b"null"),
                Some(Cell::Unavailable) | None => continue,
            }
            if self.json.is_empty() {
                self.json.push(b'{');
            } else {
                self.json.push(b',');
                self.text.push(b',');
            }
            self.json.extend_from_slice(&names[index]);
            self.json.extend_from_slice(&self.value);
            percent::encode(plain(&self.value).as_bytes(), &mut self.text);
        }
        self.json.extend_from_slice(if self.json.is_empty() { b"null" } else { b"}" });
        Ok(())
    }

    /// The key text as a string.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}

/// The text that a JSON value stands for: a string's content, anything else as written.
pub(super) fn plain(json: &[u8]) -> Cow<'_, str> {
    match json {
        [b'"', content @ .., b'"'] if !content.contains(&b'\\') => String::from_utf8_lossy(content),
        [b'"', ..] => {
            serde_json::from_slice::<String>(json).map_or_else(|_| String::from_utf8_lossy(json), Cow::Owned)
        }
        _ => String::from_utf8_lossy(json),
    }
}
