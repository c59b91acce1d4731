//! Decodes the messages of PostgreSQL's `pgoutput` plugin, protocol version 1, values in text format.
//!
//! Pure: bytes in, a [`Message`] that borrows them out. No state, no I/O, no allocation for a row, no panic on any
//! bytes. Whatever is not understood exactly (an unknown tag, flag or kind, a byte too few or too many) is an error:
//! skipping it would lose a change without a word.
//!
//! The format: <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

mod cursor;
mod logical;
mod relation;
mod row;
#[cfg(test)]
mod tests;
mod transaction;
mod truncate;

pub use cursor::{DecodeError, Problem};
pub use logical::{Head, Logical, decode_head};
pub use relation::{Column, Relation, ReplicaIdentity, Type};
pub use row::{Delete, Images, Insert, OldImage, Update};
pub use transaction::{Begin, Commit, Origin};
pub use truncate::Truncate;

use cursor::Cursor;

/// Most columns that a tuple or a relation may have: `MaxTupleAttributeNumber` of the server.
pub const MAX_COLUMNS: u16 = 1664;

/// One message of the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins.
    Begin(Begin),
    /// The transaction ends.
    Commit(Commit),
    /// The transaction came from another replication origin.
    Origin(Origin<'a>),
    /// The shape of a table whose rows follow.
    Relation(Relation<'a>),
    /// The name of a type that is not built in.
    Type(Type<'a>),
    /// A row was inserted.
    Insert(Insert),
    /// A row was updated.
    Update(Update),
    /// A row was deleted.
    Delete(Delete),
    /// Tables were truncated.
    Truncate(Truncate),
    /// An application wrote a message into the log.
    Logical(Logical<'a>),
}

/// Decodes one message. A row's images are left in `images`; what it held before is gone.
///
/// # Errors
/// The payload is not exactly one message of protocol version 1 in text format.
pub fn decode<'a>(payload: &'a [u8], images: &mut Images<'a>) -> Result<Message<'a>, DecodeError> {
    let Some((&tag, body)) = payload.split_first() else {
        return Err(DecodeError { message: "empty", field: "tag", problem: Problem::Short });
    };
    // Rows first: they are nearly all of the traffic.
    match tag {
        b'I' => whole(body, "Insert", |cursor| Insert::decode(cursor, images)).map(Message::Insert),
        b'U' => whole(body, "Update", |cursor| Update::decode(cursor, images)).map(Message::Update),
        b'D' => whole(body, "Delete", |cursor| Delete::decode(cursor, images)).map(Message::Delete),
        b'B' => whole(body, "Begin", Begin::decode).map(Message::Begin),
        b'C' => whole(body, "Commit", Commit::decode).map(Message::Commit),
        b'O' => whole(body, "Origin", Origin::decode).map(Message::Origin),
        b'R' => whole(body, "Relation", Relation::decode).map(Message::Relation),
        b'Y' => whole(body, "Type", Type::decode).map(Message::Type),
        b'T' => whole(body, "Truncate", Truncate::decode).map(Message::Truncate),
        b'M' => whole(body, "Message", Logical::decode).map(Message::Logical),
        tag => Err(DecodeError { message: "unknown", field: "tag", problem: Problem::Unknown(tag) }),
    }
}

/// Decodes a body and checks that nothing is left of it.
#[inline]
fn whole<'a, T>(
    body: &'a [u8],
    message: &'static str,
    decode: impl FnOnce(&mut Cursor<'a>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut cursor = Cursor::new(body, message);
    let decoded = decode(&mut cursor)?;
    cursor.finish()?;
    Ok(decoded)
}
