//! Truncate: tables emptied at once.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use super::cursor::{Cursor, DecodeError, Problem};

const CASCADE: u8 = 1;
const RESTART_IDENTITY: u8 = 2;

/// Tables were truncated, all by one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// OIDs of the tables.
    pub relations: Vec<u32>,
    /// Whether `CASCADE` was said; the tables it reached are among `relations`.
    pub cascade: bool,
    /// Whether `RESTART IDENTITY` was said.
    pub restart_identity: bool,
}

impl Truncate {
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let count = cursor.u32("number of relations")?;
        let options = cursor.u8("options")?;
        if options & !(CASCADE | RESTART_IDENTITY) != 0 {
            return Err(cursor.error("options", Problem::Unknown(options)));
        }
        // Before any room is made for them: the count is only a claim.
        if cursor.len() / size_of::<u32>() < count as usize {
            return Err(cursor.error("relations", Problem::Short));
        }
        let relations = (0..count).map(|_| cursor.u32("relation")).collect::<Result<_, _>>()?;
        Ok(Self {
            relations,
            cascade: options & CASCADE != 0,
            restart_identity: options & RESTART_IDENTITY != 0,
        })
    }
}
