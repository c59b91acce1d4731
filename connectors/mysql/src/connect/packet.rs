//! Packets of the protocol: cut out of what arrives, put around what is sent.
//!
//! A driver's connection hands out each packet in a buffer of its own and cannot be told to wait; a log of single-row
//! transactions is millions of small packets. So a dump has its packets from here: they share the buffer that they arrived
//! in, and bytes may gather before they are read.
//!
//! # Memory
//! A packet's length is known from its first four bytes and checked against a limit before room is made. The buffer grows
//! for a large packet, and is left behind after it. Packets of 16 MiB and more come in parts, which are joined.
//!
//! # Pace
//! While much comes in, the reader lets bytes gather for some milliseconds: it, the encoder and the publisher then work in
//! long runs instead of waking each other for a few rows. While little comes it wakes at once.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html>

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::future::poll_immediate;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::Instant,
};

/// The largest content of a packet: `max_allowed_packet` cannot be larger.
pub(super) const LARGEST: usize = 1 << 30;
/// What the buffer holds normally.
const NORMAL: usize = 512 << 10;
/// Less room than this is not read into.
const ROOM: usize = 32 << 10;
/// A part of this length is followed by another one.
const PART: usize = 0xff_ffff;
/// Length and number.
const HEADER: usize = 4;
/// Bytes a second from which on they are left to gather…
const MUCH: f64 = 8e6;
/// … for so long…
const GATHER: Duration = Duration::from_millis(8);
/// … as counted over at least so long.
const PERIOD: Duration = Duration::from_millis(4);

/// A connection in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The packets of one connection.
pub(crate) struct Packets {
    stream: Box<dyn Duplex>,
    buffer: BytesMut,
    /// The buffer is larger than normal.
    grown: bool,
    /// The parts so far of a packet in parts.
    parts: BytesMut,
    /// The number that the next packet has to have, in either direction.
    number: u8,
    pace: Pace,
}

/// Decides whether to let bytes gather before they are read.
#[derive(Debug)]
struct Pace {
    since: Instant,
    bytes: usize,
    much: bool,
    /// The last gulp filled the buffer: more is there, nothing to wait for.
    filled: bool,
}

impl Pace {
    fn gathers(&self) -> bool {
        self.much && !self.filled
    }

    /// Takes note of a gulp.
    fn gulped(&mut self, now: Instant, bytes: usize, filled: bool) {
        self.filled = filled;
        self.bytes += bytes;
        let since = now.duration_since(self.since);
        if since >= PERIOD {
            self.much = self.bytes as f64 > MUCH * since.as_secs_f64();
            (self.since, self.bytes) = (now, 0);
        }
    }
}

impl Packets {
    pub(super) fn new(stream: Box<dyn Duplex>) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            grown: false,
            parts: BytesMut::new(),
            number: 0,
            pace: Pace { since: Instant::now(), bytes: 0, much: false, filled: false },
        }
    }

    /// The connection itself, to be wrapped into another one; `None` where bytes were sent to us that belong to neither.
    pub(super) fn into_stream(self) -> Option<Box<dyn Duplex>> {
        self.buffer.is_empty().then_some(self.stream)
    }

    /// Goes on counting packets where another one left off.
    pub(super) fn numbered_like(self, number: u8) -> Self {
        Self { number, ..self }
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// The next packet's content, if all of it has been read.
    pub(crate) fn cut(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(&[a, b, c, number]) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
            let length = u32::from_le_bytes([a, b, c, 0]) as usize;
            if self.parts.len() + length > LARGEST {
                return Err(invalid("a packet is larger than the protocol allows"));
            }
            let whole = HEADER + length;
            if self.buffer.len() < whole {
                if whole > NORMAL {
                    self.buffer.reserve(whole - self.buffer.len());
                    self.grown = true;
                }
                return Ok(None);
            }
            if number != self.number {
                return Err(invalid("packets come out of order"));
            }
            self.number = number.wrapping_add(1);
            self.buffer.advance(HEADER);
            let part = self.buffer.split_to(length);
            if length == PART {
                self.parts.unsplit(part);
                continue;
            }
            if self.parts.is_empty() {
                return Ok(Some(part.freeze()));
            }
            let mut packet = std::mem::take(&mut self.parts);
            packet.extend_from_slice(&part);
            return Ok(Some(packet.freeze()));
        }
    }

    /// Reads what is there, without waiting. `false`: nothing is, or it is left to gather; the next thing to do is to wait.
    pub(crate) async fn fill_now(&mut self) -> io::Result<bool> {
        if self.pace.gathers() {
            return Ok(false);
        }
        self.make_room();
        let Some(read) = poll_immediate(self.stream.read_buf(&mut self.buffer)).await else {
            return Ok(false);
        };
        self.gulp(read?).await?;
        Ok(true)
    }

    /// Waits for more, and reads it. May be dropped while it waits.
    pub(crate) async fn fill(&mut self) -> io::Result<()> {
        if self.pace.gathers() {
            tokio::time::sleep(GATHER).await;
        }
        self.make_room();
        let read = self.stream.read_buf(&mut self.buffer).await?;
        self.gulp(read).await
    }

    /// After a first read: takes what else is there. A TLS connection gives no more than a record at a time.
    async fn gulp(&mut self, first: usize) -> io::Result<()> {
        if first == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = first;
        let filled = loop {
            if self.buffer.capacity() - self.buffer.len() < ROOM {
                break true;
            }
            match poll_immediate(self.stream.read_buf(&mut self.buffer)).await {
                // An end or an error is there the next time, too, when all before it has been looked at.
                None | Some(Ok(0) | Err(_)) => break false,
                Some(Ok(read)) => bytes += read,
            }
        };
        self.pace.gulped(Instant::now(), bytes, filled);
        Ok(())
    }

    fn make_room(&mut self) {
        if self.grown && self.buffer.len() < NORMAL / 2 && !self.wants_more_than_normal() {
            let rest = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(NORMAL));
            self.buffer.extend_from_slice(&rest);
            self.grown = false;
        }
        if self.buffer.capacity() - self.buffer.len() < ROOM {
            // Where nobody holds packets of it any more, the buffer is used again.
            self.buffer.reserve(NORMAL.saturating_sub(self.buffer.len()).max(ROOM));
        }
    }

    fn wants_more_than_normal(&self) -> bool {
        self.buffer
            .first_chunk::<3>()
            .is_some_and(|&[a, b, c]| u32::from_le_bytes([a, b, c, 0]) as usize + HEADER > NORMAL)
    }

    /// Waits for the next packet.
    pub(super) async fn next(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(packet) = self.cut()? {
                return Ok(packet);
            }
            self.fill().await?;
        }
    }

    /// Sends a packet as the answer to the last one.
    pub(super) async fn send(&mut self, content: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER + content.len());
        let mut parts = content.chunks(PART);
        loop {
            let part = parts.next().unwrap_or_default();
            // A part is at most three bytes long in its length.
            let [a, b, c, ..] = (part.len() as u32).to_le_bytes();
            bytes.extend_from_slice(&[a, b, c, self.number]);
            bytes.extend_from_slice(part);
            self.number = self.number.wrapping_add(1);
            if part.len() < PART {
                break;
            }
        }
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await
    }

    /// Sends a packet that begins a new exchange.
    pub(super) async fn command(&mut self, content: &[u8]) -> io::Result<()> {
        self.number = 0;
        self.send(content).await
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Sends packets, and reads them again through a pipe that holds `pipe` bytes.
    async fn round_trip(contents: &[Vec<u8>], pipe: usize) -> Vec<Bytes> {
        let (ours, theirs) = tokio::io::duplex(pipe);
        let (mut reader, mut writer) = (Packets::new(Box::new(ours)), Packets::new(Box::new(theirs)));
        let write = async {
            for content in contents {
                writer.send(content).await.unwrap();
            }
        };
        let read = async {
            let mut read = Vec::new();
            while read.len() < contents.len() {
                read.push(reader.next().await.unwrap());
            }
            assert!(reader.buffer.capacity() < 4 * NORMAL, "{}", reader.buffer.capacity());
            read
        };
        tokio::join!(write, read).1
    }

    #[tokio::test]
    async fn packets_are_cut_wherever_the_bytes_break() {
        let contents: Vec<Vec<u8>> = (0..600).map(|n| vec![n as u8; n]).collect();
        for pipe in [1, 7, 4096] {
            assert_eq!(round_trip(&contents, pipe).await, contents);
        }
    }

    #[tokio::test]
    async fn packets_in_parts_are_joined_and_leave_no_large_buffer() {
        let small = vec![1; 10];
        let contents =
            [small.clone(), vec![2; PART - 1], vec![3; PART], vec![4; 2 * PART + 5], small.clone(), small];
        assert_eq!(round_trip(&contents, 1 << 20).await, contents);
    }

    #[tokio::test]
    async fn what_is_out_of_order_or_cut_off_is_refused() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut packets = Packets::new(Box::new(ours));
        theirs.write_all(&[1, 0, 0, 0, 9, 1, 0, 0, 2, 9]).await.unwrap();
        assert_eq!(&packets.next().await.unwrap()[..], [9]);
        assert_eq!(packets.next().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut packets = Packets::new(Box::new(ours));
        theirs.write_all(&[5, 0, 0, 0, 9]).await.unwrap();
        drop(theirs);
        assert_eq!(packets.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn bytes_gather_while_much_comes_in() {
        let start = Instant::now();
        let mut pace = Pace { since: start, bytes: 0, much: false, filled: false };
        let mut at = |millis, bytes, filled| {
            pace.gulped(start + Duration::from_millis(millis), bytes, filled);
            pace.gathers()
        };
        // A burst is not much until it lasts.
        assert!(!at(1, 30_000, false));
        assert!(at(5, 30_000, false));
        assert!(at(14, 90_000, false));
        assert!(!at(23, NORMAL, true), "more is there already");
        assert!(!at(200, 50_000, false));
    }
}
