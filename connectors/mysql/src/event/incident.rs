//! INCIDENT: the server lost changes before it could log them.

use super::cursor::{Cursor, DecodeError};

/// What the server says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident<'a> {
    /// Its number; 1 is lost events, the only one that servers write.
    pub number: u16,
    /// Its text, for people.
    pub message: &'a [u8],
}

impl<'a> Incident<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "INCIDENT");
        let number = cursor.u16("number")?;
        let len = cursor.u8("length of message")?;
        Ok(Self { number, message: cursor.bytes(len.into(), "message")? })
    }
}
