//! How attributes are spelled: as members of one JSON object, or as `ce-` headers.
//!
//! Both spell an event as the same sequence of attributes, so that the normalizer has one path for both: pieces that
//! never change are spelled once for each table and transaction, what is left is copied between them.

use super::encode;
use crate::config::Mode;

/// The fixed parts of a spelling.
#[derive(Debug)]
pub struct Form {
    mode: Mode,
    /// What an event begins with, up to the value of `id`.
    pub open: &'static [u8],
    /// What ends a value that was begun by [`Form::begin`].
    pub close: &'static [u8],
    /// Between the key of `partitionkey` and the value of `sequence`.
    pub sequence: &'static [u8],
    /// Between the value of `sequence` and that of `txindex`.
    pub txindex: &'static [u8],
    /// After the value of `txindex`.
    pub number_end: &'static [u8],
}

impl Form {
    /// The spelling of a mode.
    pub const fn new(mode: Mode) -> Self {
        match mode {
            Mode::Structured => Self {
                mode,
                open: b"{\"specversion\":\"1.0\",\"id\":\"",
                close: b"\"",
                sequence: b"\",\"sequence\":\"",
                txindex: b"\",\"txindex\":",
                number_end: b"",
            },
            Mode::Binary => Self {
                mode,
                open: b"ce-specversion: 1.0\r\nce-id: ",
                close: b"\r\n",
                sequence: b"\r\nce-sequence: ",
                txindex: b"\r\nce-txindex: ",
                number_end: b"\r\n",
            },
        }
    }

    /// Whether attributes and data are one JSON object.
    pub fn is_structured(&self) -> bool {
        self.mode == Mode::Structured
    }

    /// Appends an attribute as far as its value's end, without what closes it.
    pub fn begin(&self, name: &str, value: &str, out: &mut Vec<u8>) {
        let (before, after): (&[u8], &[u8]) = match self.mode {
            Mode::Structured => (b",\"", b"\":\""),
            Mode::Binary => (b"ce-", b": "),
        };
        out.extend_from_slice(before);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(after);
        self.value(value, out);
    }

    /// Appends an attribute's value alone.
    pub fn value(&self, value: &str, out: &mut Vec<u8>) {
        // Times, traces and transaction ids, which every transaction has, say the same in both forms.
        if value
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b':' | b'.'))
        {
            out.extend_from_slice(value.as_bytes());
            return;
        }
        match self.mode {
            // Nothing of it has to be escaped.
            Mode::Structured if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') => {
                out.extend_from_slice(value.as_bytes());
            }
            Mode::Structured => {
                let quoted = json_string(value);
                out.extend_from_slice(&quoted[1..quoted.len() - 1]);
            }
            Mode::Binary => encode::header_value(value.as_bytes(), out),
        }
    }

    /// Appends a whole attribute.
    pub fn attribute(&self, name: &str, value: &str, out: &mut Vec<u8>) {
        self.begin(name, value, out);
        out.extend_from_slice(self.close);
    }

    /// Appends, after a key, the place in the source's order and in the transaction.
    pub fn order(&self, sequence: &[u8], txindex: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(self.sequence);
        out.extend_from_slice(sequence);
        out.extend_from_slice(self.txindex);
        out.extend_from_slice(itoa::Buffer::new().format(txindex).as_bytes());
        out.extend_from_slice(self.number_end);
    }

    /// Appends `/` and a key text, which is ASCII and percent-encoded.
    pub fn key(&self, key: &[u8], out: &mut Vec<u8>) {
        if key.is_empty() {
            return;
        }
        out.push(b'/');
        match self.mode {
            Mode::Structured => out.extend_from_slice(key),
            Mode::Binary => encode::header_value(key, out),
        }
    }
}

/// `text` as a JSON string, quotes included.
pub fn json_string(text: &str) -> Vec<u8> {
    // A string always serializes.
    serde_json::to_vec(text).unwrap_or_else(|_| b"\"\"".to_vec())
}
