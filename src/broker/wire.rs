//! A connection to the broker for publishing alone, by the NATS client protocol
//! (<https://docs.nats.io/reference/reference-protocols/nats-protocol>).
//!
//! The general client is made for everything; this does one thing with less work: messages are written into one buffer,
//! in order, and go to the socket in large pieces; answers to them come back to whoever published, without a task or a
//! channel in between.
//!
//! * **Order**: messages leave in the order they were written, on one connection. It is never made anew behind the
//!   publisher's back: when it is lost, [`Wire::next`] says so, and whatever was in it may or may not have arrived.
//! * **Memory**: [`Wire::is_full`] says when to stop writing; what is over that is at most one message.
//! * **Life**: a server that is silent for two pings is a lost connection.

mod ack;
mod connect;
mod protocol;
mod tls;

pub use ack::{Ack, Refusal, Unstored};
use async_nats::StatusCode;
use bytes::{Bytes, BytesMut};
use protocol::Op;
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Interval, MissedTickBehavior, interval_at},
};
use tokio_util::io::poll_read_buf;

/// How much may wait for the socket before the publisher should stop writing, in bytes.
const FULL: usize = 256 * 1024;
/// How much is read at one time: acknowledgements are small.
const READ: usize = 16 * 1024;
/// A server is asked this often whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The subscription of the inbox, as a wire names it to the server.
const INBOX: &str = "1";
/// That of the subject that a wire holds.
const HELD: &str = "2";
/// That of what comes back to a question on it.
const ASKED: &str = "3";
/// That of the inbox for answers with a tag.
const TAGGED: &str = "4";
/// Questions without an answer that mean a lost connection.
const MAX_UNANSWERED: u8 = 2;

/// What carries the bytes: a socket, with or without TLS.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// The connection.
pub struct Wire {
    transport: Box<dyn Transport>,
    /// Written by the publisher, not yet by the socket; before `sent` it is.
    out: Vec<u8>,
    sent: usize,
    /// The headers of the message being written.
    headers: Vec<u8>,
    input: BytesMut,
    pings: Interval,
    unanswered: u8,
    inbox: String,
    held: Option<String>,
    /// The PINGs that no answer has come to, oldest first: whether each stands behind a question that has none either.
    awaited: VecDeque<bool>,
    max_payload: usize,
}

/// What came from the broker.
#[derive(Debug)]
pub enum Arrival {
    /// An answer to a message that asked for one.
    Answer(Answer),
    /// The wire was full and is not any more.
    Room,
    /// Somebody asked on the subject that this wire holds; what he sent.
    Asked(Bytes),
    /// Nobody else is subscribed to the subject that this wire asked on.
    Alone,
    /// The server has passed the question on: another connection is subscribed to the subject.
    Heard,
    /// The server does not let us hold a subject, or ask on it; what it says.
    Forbidden(String),
}

/// An answer to a message that asked for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which message it is for, where that was published with a tag.
    pub tag: Option<u64>,
    /// What the server itself says, where it answers instead of a stream.
    pub status: Option<StatusCode>,
    /// What the stream says.
    pub payload: Bytes,
}

/// The connection is lost, with whatever was in it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Lost(String);

impl Lost {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl From<std::io::Error> for Lost {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("waiting", &(self.out.len() - self.sent)).finish_non_exhaustive()
    }
}

impl Wire {
    /// A wire on a transport that has been greeted.
    fn new(transport: Box<dyn Transport>, input: BytesMut, inbox: String, max_payload: usize) -> Self {
        let mut pings = interval_at(tokio::time::Instant::now() + PING_INTERVAL, PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            transport,
            out: Vec::with_capacity(FULL),
            sent: 0,
            headers: Vec::with_capacity(1024),
            input,
            pings,
            unanswered: 0,
            inbox,
            held: None,
            awaited: VecDeque::new(),
            max_payload,
        }
    }

    /// Holds `subject` for as long as the connection lasts: subscribes to it, before anything that is written later. What
    /// this wire asks there itself does not come back to it.
    pub fn hold(&mut self, subject: &str) {
        let inbox = self.asking_inbox();
        self.out.extend_from_slice(format!("SUB {inbox} {ASKED}\r\nSUB {subject} {HELD}\r\n").as_bytes());
        self.held = Some(subject.to_owned());
    }

    /// Asks on `subject`: [`Arrival::Alone`] comes back where no other connection is subscribed to it, else
    /// [`Arrival::Heard`], unless the server stands still. Each question has one answer, in their order.
    pub fn ask(&mut self, subject: &str, question: &str) {
        let question =
            format!("PUB {subject} {} {}\r\n{question}\r\nPING\r\n", self.asking_inbox(), question.len());
        self.out.extend_from_slice(question.as_bytes());
        self.awaited.push_back(true);
    }

    /// Not the inbox of publishing: an answer that comes late must not pass for one of the stream's.
    fn asking_inbox(&self) -> String {
        format!("{}.asked", self.inbox)
    }

    /// The largest message, headers included, that the server takes.
    pub fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// Whether to stop writing until [`Wire::next`] returns [`Arrival::Room`].
    pub fn is_full(&self) -> bool {
        self.out.len() - self.sent >= FULL
    }

    /// Writes a message. `headers` appends whole lines, `Name: value\r\n`, to what it is given; with `ask` the stream
    /// answers.
    pub fn publish(&mut self, subject: &str, ask: bool, payload: &[u8], headers: impl FnOnce(&mut Vec<u8>)) {
        self.write(subject, ask, None, payload, headers);
    }

    /// Writes a message that the stream answers with this tag in its [`Answer`]: for messages that do not depend on one
    /// another, so that one answer says nothing about the others.
    pub fn publish_tagged(
        &mut self,
        subject: &str,
        tag: u64,
        payload: &[u8],
        headers: impl FnOnce(&mut Vec<u8>),
    ) {
        self.write(subject, true, Some(tag), payload, headers);
    }

    fn write(
        &mut self,
        subject: &str,
        ask: bool,
        tag: Option<u64>,
        payload: &[u8],
        headers: impl FnOnce(&mut Vec<u8>),
    ) {
        self.headers.clear();
        self.headers.extend_from_slice(b"NATS/1.0\r\n");
        headers(&mut self.headers);
        self.headers.extend_from_slice(b"\r\n");
        let out = &mut self.out;
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(b"HPUB ");
        out.extend_from_slice(subject.as_bytes());
        out.push(b' ');
        if ask {
            out.extend_from_slice(self.inbox.as_bytes());
            if let Some(tag) = tag {
                out.extend_from_slice(b".tag.");
                out.extend_from_slice(number.format(tag).as_bytes());
            }
            out.push(b' ');
        }
        out.extend_from_slice(number.format(self.headers.len()).as_bytes());
        out.push(b' ');
        out.extend_from_slice(number.format(self.headers.len() + payload.len()).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.headers);
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    /// Writes to the socket what was published, and waits for something to arrive. Nothing is lost where the future is
    /// dropped early.
    ///
    /// # Errors
    /// The connection is lost, or the server refuses what it was sent.
    pub async fn next(&mut self) -> Result<Arrival, Lost> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Arrival, Lost>> {
        let was_full = self.is_full();
        while self.pings.poll_tick(context).is_ready() {
            if self.unanswered >= MAX_UNANSWERED {
                return Poll::Ready(Err(Lost::new("the server does not answer")));
            }
            self.unanswered += 1;
            self.out.extend_from_slice(b"PING\r\n");
            self.awaited.push_back(false);
        }
        loop {
            self.poll_write(context)?;
            if was_full && !self.is_full() {
                return Poll::Ready(Ok(Arrival::Room));
            }
            let mut pinged = false;
            while let Some(op) = protocol::next(&mut self.input).map_err(Lost)? {
                match op {
                    Op::Message(answer) => return Poll::Ready(Ok(Arrival::Answer(answer))),
                    Op::Ping => {
                        self.out.extend_from_slice(b"PONG\r\n");
                        pinged = true;
                    }
                    Op::Held(question) => return Poll::Ready(Ok(Arrival::Asked(question))),
                    // The server answers in order: this is for the oldest question, and its PONG is still to come.
                    Op::Asked(Answer { status: Some(StatusCode::NO_RESPONDERS), .. }) => {
                        if let Some(question) = self.awaited.iter_mut().find(|question| **question) {
                            *question = false;
                            return Poll::Ready(Ok(Arrival::Alone));
                        }
                    }
                    Op::Pong => {
                        if self.awaited.pop_front() == Some(true) {
                            return Poll::Ready(Ok(Arrival::Heard));
                        }
                    }
                    // Such an error leaves the connection as it is.
                    Op::Error(error) if self.is_about_held(&error) => {
                        return Poll::Ready(Ok(Arrival::Forbidden(error)));
                    }
                    Op::Error(error) => return Poll::Ready(Err(Lost(format!("the server says: {error}")))),
                    Op::Info(info) => self.max_payload = info.max_payload,
                    Op::Ok | Op::Asked(_) => {}
                }
            }
            if pinged {
                continue;
            }
            self.input.reserve(READ);
            let read = ready!(poll_read_buf(Pin::new(&mut self.transport), context, &mut self.input))?;
            if read == 0 {
                return Poll::Ready(Err(Lost::new("the connection was closed")));
            }
            self.unanswered = 0;
        }
    }

    fn is_about_held(&self, error: &str) -> bool {
        error.to_ascii_lowercase().starts_with("permissions violation")
            && self.held.as_ref().is_some_and(|held| error.contains(&format!("\"{held}")))
    }

    /// Writes as much as the socket takes.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<(), Lost> {
        if self.out.is_empty() {
            return Ok(());
        }
        while let Some(waiting @ [_, ..]) = self.out.get(self.sent..) {
            match Pin::new(&mut self.transport).poll_write(context, waiting) {
                Poll::Ready(Ok(0)) => return Err(Lost::new("the connection was closed")),
                Poll::Ready(Ok(written)) => self.sent += written,
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => {
                    // A socket that never takes all of it must not make us keep what it has taken.
                    if self.sent >= FULL {
                        self.out.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
            }
        }
        match Pin::new(&mut self.transport).poll_flush(context) {
            Poll::Ready(Err(error)) => Err(error.into()),
            // TLS holds the rest and writes it when the socket wakes us.
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => {
                self.out.clear();
                self.out.shrink_to(2 * FULL);
                self.sent = 0;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn each_question_has_its_own_answer() {
        let (ours, mut server) = tokio::io::duplex(4096);
        let mut wire = Wire::new(Box::new(ours), BytesMut::new(), "_INBOX.a".to_owned(), 1 << 20);
        // A PING of its own, two questions that nobody hears, and between them one that somebody does.
        wire.awaited.push_back(false);
        for subject in ["a", "b", "c"] {
            wire.ask(subject, "begin");
        }
        const NOBODY: &str = "HMSG _INBOX.a.asked 3 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
        let answers = format!("PONG\r\n{NOBODY}PONG\r\nPONG\r\n{NOBODY}PONG\r\n");
        server.write_all(answers.as_bytes()).await.unwrap();
        let mut arrivals = Vec::new();
        for _ in 0..3 {
            arrivals.push(format!("{:?}", wire.next().await.unwrap()));
        }
        assert_eq!(arrivals, ["Alone", "Heard", "Alone"]);
        drop(server);
        assert!(wire.next().await.is_err(), "nothing more came back");
    }
}
