//! A message as it is published, and as it lies in the spool.

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The first byte of a stored message: how the rest is read.
const VERSION: u8 = 1;

/// A finished message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// `Nats-Msg-Id`: the delivery's id.
    pub(super) id: String,
    /// The gateway's own order of arrival.
    pub(super) sequence: u64,
    /// The subject to publish on.
    pub(super) subject: String,
    /// Headers beside the id, as `Name: value\r\n` lines.
    pub(super) head: Bytes,
    /// The payload.
    pub(super) payload: Bytes,
    /// Where in the payload the data is (in structured mode its whole member, comma included).
    pub(super) data: (usize, usize),
}

impl Message {
    /// Bytes that the broker counts, the id's header included.
    pub(super) fn size(&self) -> usize {
        // "NATS/1.0\r\n", "Nats-Msg-Id: …\r\n", "\r\n".
        self.head.len() + self.payload.len() + self.id.len() + 27
    }

    /// The headers. A name or value that is none is left out: nothing hostile gets this far.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let head = std::str::from_utf8(&self.head).unwrap_or_default();
        for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                headers.append(name, value);
            }
        }
        if let Ok(id) = self.id.parse::<HeaderValue>() {
            headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        }
        headers
    }

    /// Appends the headers' lines as they go over the wire. Nothing in them can end a line: see `event`.
    pub(super) fn write_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"Nats-Msg-Id: ");
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// As it lies in the spool, without its sequence, which is the key there.
    pub(super) fn store(&self) -> Bytes {
        let parts = [self.id.as_bytes(), self.subject.as_bytes(), &self.head, &self.payload];
        let mut out = BytesMut::with_capacity(32 + parts.iter().map(|part| part.len()).sum::<usize>());
        out.put_u8(VERSION);
        out.put_u32(length(self.data.0));
        out.put_u32(length(self.data.1));
        for part in parts {
            out.put_u32(length(part.len()));
            out.put_slice(part);
        }
        out.freeze()
    }

    /// Reads what [`store`](Self::store) wrote; `None` where it is anything else.
    pub(super) fn load(sequence: u64, mut stored: Bytes) -> Option<Self> {
        if stored.try_get_u8().ok()? != VERSION {
            return None;
        }
        let data = (stored.try_get_u32().ok()? as usize, stored.try_get_u32().ok()? as usize);
        let mut part = || {
            let length = stored.try_get_u32().ok()? as usize;
            (length <= stored.remaining()).then(|| stored.split_to(length))
        };
        let (id, subject, head, payload) = (part()?, part()?, part()?, part()?);
        if data.0 > data.1 || data.1 > payload.len() {
            return None;
        }
        Some(Self {
            id: String::from_utf8(id.into()).ok()?,
            sequence,
            subject: String::from_utf8(subject.into()).ok()?,
            head,
            payload,
            data,
        })
    }
}

/// A body is at most as long as `max_body` allows, which is far below 4 GiB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message() -> Message {
        Message {
            id: "72d3162e".to_owned(),
            sequence: 7,
            subject: "events.gh.issues.opened.3".to_owned(),
            head: Bytes::from_static(b"Content-Type: application/json\r\nce-id: x: y\r\nbad name: z\r\n"),
            payload: Bytes::from_static(b"{\"a\":1}"),
            data: (1, 6),
        }
    }

    #[test]
    fn what_was_stored_reads_back() {
        let stored = message().store();
        assert_eq!(Message::load(7, stored.clone()).unwrap(), message());
        for end in 0..stored.len() {
            assert_eq!(Message::load(7, stored.slice(..end)), None, "{end}");
        }
        assert_eq!(Message::load(7, Bytes::from_static(&[0xff; 40])), None);
    }

    #[test]
    fn headers_are_those_of_the_head_and_the_id() {
        let headers = message().headers();
        assert_eq!(headers.get("Nats-Msg-Id").unwrap().as_str(), "72d3162e");
        assert_eq!(headers.get("ce-id").unwrap().as_str(), "x: y");
        assert_eq!(headers.len(), 3);
    }
}
