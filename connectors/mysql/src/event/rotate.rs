//! ROTATE: the log goes on in another file. A dump begins with one that was never written to a file.

use super::cursor::{Cursor, DecodeError};

/// Where the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate<'a> {
    /// Offset in the file; 4 at its beginning.
    pub position: u64,
    /// The file's name.
    ///
    /// In the first one of a dump from MariaDB, mysql_async leaves the checksum's four bytes at the end of the name, as it does not
    /// know yet that there are any: cut them off before decoding, or take the name that was asked for.
    pub file: &'a [u8],
}

impl<'a> Rotate<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "ROTATE");
        Ok(Self { position: cursor.u64("position")?, file: cursor.take() })
    }
}
