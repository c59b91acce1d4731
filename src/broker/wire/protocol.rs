//! What a NATS server sends, cut out of a buffer. Pure, with every length capped: the peer may be anybody.
//!
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol>

use super::{ASKED, Answer, HELD};
use async_nats::StatusCode;
use bytes::{Buf as _, Bytes, BytesMut};
use serde::Deserialize;

/// The longest line: an INFO that names a large cluster is some kilobytes.
const MAX_LINE: usize = 256 * 1024;
/// The largest message: answers to publishes are small.
const MAX_MESSAGE: usize = 1024 * 1024;

/// What a server says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    /// The largest message that it takes, in bytes.
    pub max_payload: usize,
    /// Whether it takes headers.
    pub headers: bool,
    /// Whether it insists on TLS.
    pub tls_required: bool,
    /// Whether it can do TLS.
    pub tls_available: bool,
    /// To be signed by whoever proves a key.
    pub nonce: Option<String>,
}

/// One thing that a server sent.
#[derive(Debug)]
pub(super) enum Op {
    Info(Box<Info>),
    Message(Answer),
    /// Somebody published on the subject that the wire holds.
    Held(Bytes),
    /// What came back to a question on that subject.
    Asked(Answer),
    Ping,
    Pong,
    Ok,
    Error(String),
}

/// Takes the next whole operation out of `input`; `None` where more has to come first.
pub(super) fn next(input: &mut BytesMut) -> Result<Option<Op>, String> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return if input.len() > MAX_LINE {
            Err("the server sends a line without an end".to_owned())
        } else {
            Ok(None)
        };
    };
    if end > MAX_LINE {
        return Err("the server sends too long a line".to_owned());
    }
    let line = input[..end].trim_ascii_end();
    let (verb, rest) = match line.iter().position(|byte| byte.is_ascii_whitespace()) {
        Some(space) => (&line[..space], line[space..].trim_ascii_start()),
        None => (line, &b""[..]),
    };
    let op = match verb {
        b"MSG" | b"HMSG" => return message(input, end),
        b"PING" => Op::Ping,
        b"PONG" => Op::Pong,
        b"+OK" => Op::Ok,
        b"-ERR" => Op::Error(String::from_utf8_lossy(rest).trim_matches('\'').to_owned()),
        b"INFO" => Op::Info(Box::new(
            serde_json::from_slice(rest)
                .map_err(|error| format!("the server's INFO cannot be read: {error}"))?,
        )),
        _ => return Err("this is not a nats server".to_owned()),
    };
    input.advance(end + 1);
    Ok(Some(op))
}

/// `MSG subject sid [reply] size` or `HMSG subject sid [reply] head size`, the bytes, and a line's end.
fn message(input: &mut BytesMut, end: usize) -> Result<Option<Op>, String> {
    const UNREADABLE: &str = "the server sends a message that cannot be read";
    let line = std::str::from_utf8(&input[..end]).map_err(|_| UNREADABLE)?;
    let mut fields = line.split_ascii_whitespace();
    let with_headers = fields.next() == Some("HMSG");
    let subscription = fields.nth(1).unwrap_or_default();
    let mut sizes = fields.clone().rev();
    let mut size = || sizes.next().and_then(|digits| digits.parse::<usize>().ok()).ok_or(UNREADABLE);
    let whole = size()?;
    let head = if with_headers { size()? } else { 0 };
    if head > whole || whole > MAX_MESSAGE {
        return Err(UNREADABLE.to_owned());
    }
    let op = match subscription {
        HELD => |Answer { payload, .. }| Op::Held(payload),
        ASKED => Op::Asked,
        _ => Op::Message,
    };
    let body = end + 1;
    if input.len() < body + whole + 2 {
        return Ok(None);
    }
    let status = status(&input[body..body + head]);
    input.advance(body + head);
    let payload: Bytes = input.split_to(whole - head).freeze();
    input.advance(2);
    Ok(Some(op(Answer { status, payload })))
}

/// The status of `NATS/1.0 503 …`.
fn status(head: &[u8]) -> Option<StatusCode> {
    let code = head.strip_prefix(b"NATS/1.0 ")?.get(..3)?;
    StatusCode::from_u16(std::str::from_utf8(code).ok()?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn all(text: &[u8]) -> Result<Vec<Op>, String> {
        let mut input = BytesMut::from(text);
        let mut ops = Vec::new();
        while let Some(op) = next(&mut input)? {
            ops.push(op);
        }
        Ok(ops)
    }

    #[test]
    fn operations_are_cut_at_every_boundary() {
        let text = b"INFO {\"max_payload\":1048576,\"headers\":true,\"later\":[1]}\r\nPING\r\nPONG\r\n+OK\r\n-ERR 'Stale Connection'\r\n\
            MSG _INBOX.a 1 11\r\n{\"seq\":512}\r\nHMSG _INBOX.a 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
        let mut input = BytesMut::new();
        let mut ops = Vec::new();
        for byte in text {
            input.extend_from_slice(&[*byte]);
            while let Some(op) = next(&mut input).unwrap() {
                ops.push(op);
            }
        }
        assert!(input.is_empty());
        let [
            Op::Info(info),
            Op::Ping,
            Op::Pong,
            Op::Ok,
            Op::Error(error),
            Op::Message(ack),
            Op::Message(none),
        ] = &ops[..]
        else {
            panic!("{ops:?}")
        };
        assert_eq!((info.max_payload, info.headers, info.tls_required), (1_048_576, true, false));
        assert_eq!(error, "Stale Connection");
        assert_eq!((ack.status, &ack.payload[..]), (None, &b"{\"seq\":512}"[..]));
        assert_eq!((none.status, none.payload.is_empty()), (Some(StatusCode::NO_RESPONDERS), true));
    }

    #[test]
    fn a_reply_subject_is_passed_over() {
        let ops =
            all(b"MSG a 1 reply.to 2\r\nhi\r\nHMSG a 1 reply.to 12 14\r\nNATS/1.0\r\n\r\nyo\r\n").unwrap();
        let payloads: Vec<&[u8]> = ops
            .iter()
            .map(|op| match op {
                Op::Message(answer) => &answer.payload[..],
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(payloads, [b"hi", b"yo"]);
    }

    #[test]
    fn a_message_on_the_held_subject_is_told_from_an_answer() {
        let text = b"MSG headgate.writing.EVENTS_shop 2 _INBOX.b.1 5\r\nbegin\r\nMSG 2 1 5\r\nbegin\r\n\
            HMSG _INBOX.a.asked 3 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
        let ops = all(text).unwrap();
        let [Op::Held(payload), Op::Message(_), Op::Asked(_)] = &ops[..] else { panic!("{ops:?}") };
        assert_eq!(&payload[..], b"begin");
    }

    #[test]
    fn hostile_bytes_are_refused() {
        for hostile in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"MSG a 1 99999999999999999999999\r\n",
            b"MSG a 1 2000000\r\n",
            b"HMSG a 1 9 3\r\n",
            b"MSG\r\n",
            b"MSG \xff 1 2\r\nhi\r\n",
            b"INFO [\r\n",
        ] {
            assert!(all(hostile).is_err(), "{}", String::from_utf8_lossy(hostile));
        }
        assert!(all(&vec![b'x'; MAX_LINE + 1]).is_err());
        assert!(all(b"MSG a 1 5\r\nhi").unwrap().is_empty());
    }
}
