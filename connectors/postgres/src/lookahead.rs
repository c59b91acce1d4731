//! Finds what a writer says of its transaction before the first event of that transaction is told.
//!
//! A [`CONTEXT_PREFIX`] message holds for all events of its transaction, wherever it stands in it. The server sends a
//! transaction as a whole when it is committed, so the end of an ordinary one is at hand with its beginning, or a moment
//! later. A large one is told as it comes: its events are the message's only from the message on, if that stands more
//! than [`LIMIT`] bytes behind the beginning.
//!
//! # Memory
//! What waits stays in the reader's buffer, which is larger than [`LIMIT`].
//!
//! # Cost
//! A look at the head of each message, once for a transaction.

use crate::pgoutput::{self, Images, Logical, Message};
use headgate_sdk::CONTEXT_PREFIX;

/// How far to look, in bytes of the wire.
const LIMIT: usize = 128 << 10;
/// Before the body: tag, length.
const FRAME_HEADER: usize = 5;
/// Before the payload of an XLogData: tag, start, end, time.
const XLOG_HEADER: usize = 25;

/// What the bytes at hand say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ahead<'a> {
    /// A transaction begins, and more has to be read to know.
    Unknown,
    /// There is nothing to know before going on.
    Nothing,
    /// The transaction that begins has this message.
    Context(Logical<'a>),
}

/// Looks ahead where the bytes at hand begin with the beginning of a transaction.
pub(crate) fn look(at_hand: &[u8]) -> Ahead<'_> {
    if at_hand.get(FRAME_HEADER + XLOG_HEADER) != Some(&b'B') || payload_of(at_hand).is_none() {
        return Ahead::Nothing;
    }
    let mut at = 0;
    loop {
        let rest = at_hand.get(at..).unwrap_or_default();
        let Some(&[tag, length @ ..]) = rest.first_chunk::<FRAME_HEADER>() else { break };
        // The length counts itself, not the tag. Whether it is one at all, the reader judges.
        let end = at + 1 + u32::from_be_bytes(length) as usize;
        if tag != b'd' || end > LIMIT || end < at + FRAME_HEADER {
            return Ahead::Nothing;
        }
        let Some(frame) = at_hand.get(at..end) else { break };
        match (frame.get(FRAME_HEADER), payload_of(frame)) {
            (Some(b'k'), _) => {}
            (_, Some([b'C', ..])) => return Ahead::Nothing,
            (_, Some(payload @ [b'M', ..])) => {
                if let Ok(Message::Logical(message)) = pgoutput::decode(payload, &mut Images::default())
                    && message.transactional
                    && message.prefix == CONTEXT_PREFIX
                {
                    return Ahead::Context(message);
                }
            }
            (_, Some(_)) => {}
            (_, None) => return Ahead::Nothing,
        }
        at = end;
    }
    if at_hand.len() < LIMIT { Ahead::Unknown } else { Ahead::Nothing }
}

/// The payload of a CopyData that is an XLogData.
fn payload_of(frame: &[u8]) -> Option<&[u8]> {
    match frame {
        [b'd', _, _, _, _, b'w', ..] => frame.get(FRAME_HEADER + XLOG_HEADER..),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn copy_data(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&b"d"[..], &length, body].concat()
    }

    fn xlog(payload: &[u8]) -> Vec<u8> {
        copy_data(&[&b"w"[..], &[0; 24], payload].concat())
    }

    fn logical(transactional: bool, prefix: &str, content: &str) -> Vec<u8> {
        let mut payload = vec![b'M', u8::from(transactional)];
        payload.extend([0; 8]);
        payload.extend(prefix.as_bytes());
        payload.push(0);
        payload.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
        payload.extend(content.as_bytes());
        xlog(&payload)
    }

    fn begin() -> Vec<u8> {
        xlog(&[&b"B"[..], &[0; 20]].concat())
    }

    fn row(bytes: usize) -> Vec<u8> {
        xlog(&[&b"I"[..], &vec![0; bytes]].concat())
    }

    fn commit() -> Vec<u8> {
        xlog(&[&b"C"[..], &[0; 25]].concat())
    }

    fn content(bytes: &[u8]) -> Option<&str> {
        match look(bytes) {
            Ahead::Context(message) => Some(std::str::from_utf8(message.content).unwrap()),
            Ahead::Nothing | Ahead::Unknown => None,
        }
    }

    #[test]
    fn finds_the_first_context_wherever_it_stands() {
        let keepalive = copy_data(&[b'k'; 18]);
        let bytes = [
            begin(),
            row(100),
            logical(true, "other", "1"),
            logical(false, CONTEXT_PREFIX, "2"),
            keepalive,
            logical(true, CONTEXT_PREFIX, "3"),
            logical(true, CONTEXT_PREFIX, "4"),
            commit(),
        ]
        .concat();
        assert_eq!(content(&bytes), Some("3"));
        // Known only once it is whole; until then nothing is told.
        let whole =
            bytes.windows(CONTEXT_PREFIX.len()).rposition(|w| w == CONTEXT_PREFIX.as_bytes()).unwrap();
        let known =
            (FRAME_HEADER + XLOG_HEADER + 1..bytes.len()).find(|end| look(&bytes[..*end]) != Ahead::Unknown);
        assert!(known.unwrap() < whole, "{known:?} {whole}");
        assert_eq!(content(&bytes[..known.unwrap()]), Some("3"));
    }

    #[test]
    fn looks_no_further_than_the_commit() {
        let bytes = [begin(), row(10), commit(), begin(), logical(true, CONTEXT_PREFIX, "next")].concat();
        assert_eq!(look(&bytes), Ahead::Nothing);
        assert_eq!(look(&[begin(), row(10)].concat()), Ahead::Unknown);
    }

    #[test]
    fn looks_no_further_than_the_limit() {
        let late = [begin(), row(LIMIT), logical(true, CONTEXT_PREFIX, "late"), commit()].concat();
        for end in begin().len() + FRAME_HEADER..late.len() {
            assert_eq!(look(&late[..end]), Ahead::Nothing, "a row over the limit is not waited for");
        }
        let rows = [begin(), row(1000).repeat(LIMIT / 1000), row(1000)].concat();
        assert_eq!(look(&rows[..LIMIT - 2000]), Ahead::Unknown);
        assert_eq!(look(&rows), Ahead::Nothing);
    }

    #[test]
    fn whatever_is_no_transaction_is_left_to_the_reader() {
        for bytes in [
            vec![],
            b"d".to_vec(),
            row(10),
            commit(),
            copy_data(&[b'k'; 40]),
            logical(true, CONTEXT_PREFIX, "in its place"),
            [begin(), b"E\0\0\0\x04".to_vec()].concat(),
            [begin(), b"d\0\0\0\0".to_vec()].concat(),
            [begin(), b"d\xff\xff\xff\xff".to_vec()].concat(),
            [begin(), copy_data(b"w"), commit()].concat(),
        ] {
            assert_eq!(look(&bytes), Ahead::Nothing, "{bytes:?}");
        }
    }
}
