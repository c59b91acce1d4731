//! ENUM and SET: the labels of a column, spelled as JSON once.

use super::LENGTH;
use headgate_sdk::Unwritable;
use std::sync::Arc;

/// The labels of a column in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Each as a JSON string.
    spelled: Arc<[Box<[u8]>]>,
}

impl Labels {
    /// Labels by their texts.
    #[must_use]
    pub fn new<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        let spell = |text: &str| {
            let mut spelled = Vec::with_capacity(text.len() + 2);
            spelled.push(b'"');
            headgate_sdk::json::escape(text, &mut spelled);
            spelled.push(b'"');
            spelled.into_boxed_slice()
        };
        Self { spelled: texts.into_iter().map(spell).collect() }
    }

    /// Whether a catalog may have put `?` for a character that it cannot show.
    pub(super) fn may_be_replaced(&self) -> bool {
        self.spelled.iter().any(|label| label.contains(&b'?'))
    }

    /// Writes the label of an ENUM's number, of one or two bytes.
    pub(super) fn write_enum(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
        self.label(number(raw, 2)?, out)
    }

    /// Writes the labels of a SET's bits, of one to eight bytes.
    pub(super) fn write_set(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
        self.set(number(raw, 8)?, out)
    }

    /// Writes the label of a number. Zero is what a server stores for a label that it does not have: the empty text.
    pub(super) fn label(&self, number: u64, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let Some(at) = number.checked_sub(1) else {
            out.extend_from_slice(b"\"\"");
            return Ok(());
        };
        let label = usize::try_from(at).ok().and_then(|at| self.spelled.get(at));
        out.extend_from_slice(label.ok_or(Unwritable { reason: "the column has no label of this number" })?);
        Ok(())
    }

    /// The number of a label, which is a JSON string as [`label`](Self::label) writes it; zero for the empty text, where no label is.
    pub(crate) fn number_of(&self, json: &str) -> Option<usize> {
        let found = self.spelled.iter().position(|label| **label == *json.as_bytes());
        found.map(|at| at + 1).or_else(|| (json == "\"\"").then_some(0))
    }

    /// Writes an array of the labels of some bits, the lowest first.
    pub(super) fn set(&self, bits: u64, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let mut separator = b'[';
        let mut rest = bits;
        while rest != 0 {
            out.push(separator);
            separator = b',';
            self.label(u64::from(rest.trailing_zeros()) + 1, out)?;
            rest &= rest - 1;
        }
        if separator == b'[' {
            out.push(b'[');
        }
        out.push(b']');
        Ok(())
    }
}

/// A little-endian number of 1 to `most` bytes.
fn number(raw: &[u8], most: usize) -> Result<u64, Unwritable> {
    if raw.is_empty() || raw.len() > most {
        return Err(LENGTH);
    }
    Ok(raw.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}
