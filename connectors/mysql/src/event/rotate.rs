//! ROTATE: the log goes on in another file. A dump begins with one that was never written to a file.

use super::cursor::{Cursor, DecodeError};

/// Where the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate<'a> {
    /// Offset in the file; 4 at its beginning.
    pub position: u64,
    /// The file's name.
    ///
    /// In the first one of a dump from MariaDB a checksum's four bytes are at the end of the name, before anything says that
    /// there are checksums: cut them off before decoding.
    pub file: &'a [u8],
}

impl<'a> Rotate<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "ROTATE");
        Ok(Self { position: cursor.u64("position")?, file: cursor.take() })
    }
}
