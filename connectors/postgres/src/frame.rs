//! Backend messages, cut out of one reusable buffer and borrowed from it.
//!
//! # Memory
//! A message's length is known from its first five bytes and judged before anything is made room for. A message over
//! the limit is read past without being kept, except for its first [`HEAD`] bytes. The buffer grows for a large message
//! and shrinks again after it.
//!
//! # Pace
//! An eager reader makes the walsender pay a system call and a wake-up for each small message. So while much is coming
//! in, the reader lets bytes gather for a moment before it reads again, and nobody is woken meanwhile; while little comes,
//! it wakes at once. What is much is counted in messages over a stretch of time, and not seen in how reads follow each other:
//! where database, broker and gateway share few processors, each of them is often kept waiting.

use crate::connect::Unwatch;
use futures_util::future::poll_immediate;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, sleep_until},
};

/// What the buffer holds normally.
const NORMAL: usize = 512 << 10;
/// How much of a message over the limit is kept.
pub(crate) const HEAD: usize = 4 << 10;
/// Over how long messages are counted: longer than a busy server is kept from sending by others on its machine.
const STRETCH: Duration = Duration::from_millis(10);
/// If more messages than this arrive in a second, bytes gather; a row in a transaction of its own is three…
const MUCH: f64 = 15_000.0;
/// … for so long,
const GATHER: Duration = Duration::from_millis(1);
/// and if more than this arrive…
const MANY: f64 = 50_000.0;
/// … for so long: everybody works best in long runs, and nobody waits for a single row then.
const GATHER_MANY: Duration = Duration::from_millis(4);
/// Messages other than rows (errors, notices, parameters) are never longer.
const LONGEST_OTHER: u64 = 1 << 20;
/// Tag, length.
const HEADER: usize = 5;

/// A message of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A whole message.
    Whole { tag: u8, body: &'a [u8] },
    /// A CopyData over the limit: its beginning, and the size of its whole body.
    Oversized { head: &'a [u8], size: u64 },
}

/// The stream is not the protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Less than the length field itself.
    #[error("a message with tag {tag:?} says that it is {length} bytes long")]
    Length { tag: char, length: u32 },
    /// A message that is never this long.
    #[error("a message with tag {tag:?} is {size} bytes long")]
    TooLong { tag: char, size: u64 },
}

/// Reads messages from `stream`.
pub(crate) struct Reader<R> {
    stream: R,
    buffer: Vec<u8>,
    /// The bytes not yet handed out are `buffer[start..end]`.
    start: usize,
    end: usize,
    limit: u64,
    passing: Option<Passing>,
    head: Vec<u8>,
    pace: Pace,
    /// When enough has gathered; kept where whoever waits for that is called away.
    until: Option<Instant>,
    unwatcher: Option<Arc<dyn Unwatch>>,
}

/// Decides whether to let bytes gather before the next gulp.
#[derive(Debug, Default)]
struct Pace {
    /// When counting began.
    since: Option<Instant>,
    /// Messages cut out since.
    messages: u32,
    /// How long to let bytes gather, by what the last stretch brought.
    long: Option<Duration>,
    /// The last gulp filled the buffer: more is there, nothing to wait for.
    filled: bool,
}

impl Pace {
    /// How long to let bytes gather before the next gulp.
    fn gathering(&self) -> Option<Duration> {
        self.long.filter(|_| !self.filled)
    }

    /// Takes note of a gulp.
    fn gulped(&mut self, now: Instant, filled: bool) {
        self.filled = filled;
        let stretch = self.since.map_or(Duration::MAX, |since| now.duration_since(since));
        if stretch < STRETCH {
            return;
        }
        let rate = f64::from(std::mem::take(&mut self.messages)) / stretch.as_secs_f64();
        self.long = match rate {
            _ if rate > MANY => Some(GATHER_MANY),
            _ if rate > MUCH => Some(GATHER),
            _ => None,
        };
        self.since = Some(now);
    }
}

/// A message over the limit that is being read past.
struct Passing {
    size: u64,
    left: u64,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Messages whose body is longer than `limit` are not kept.
    pub(crate) fn new(stream: R, limit: u64) -> Self {
        Self {
            stream,
            buffer: vec![0; NORMAL],
            start: 0,
            end: 0,
            limit,
            passing: None,
            head: Vec::new(),
            pace: Pace::default(),
            until: None,
            unwatcher: None,
        }
    }

    /// The bytes from the next message on, as far as they are here.
    pub(crate) fn at_hand(&self) -> &[u8] {
        let end = if self.passing.is_some() { self.start } else { self.end };
        self.buffer.get(self.start..end).unwrap_or_default()
    }

    /// While bytes gather, the socket that they come from is left unwatched.
    pub(crate) fn leaving_unwatched(self, socket: Arc<dyn Unwatch>) -> Self {
        Self { unwatcher: Some(socket), ..self }
    }

    /// The next message, if the buffer holds all of it.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        if self.passing.is_none() {
            let Some(&[tag, length @ ..]) =
                self.buffer.get(self.start..self.end).and_then(|rest| rest.first_chunk::<HEADER>())
            else {
                return Ok(None);
            };
            let length = u32::from_be_bytes(length);
            let Some(size) = length.checked_sub(4).map(u64::from) else {
                return Err(FrameError::Length { tag: tag.into(), length });
            };
            if size <= self.limit || (tag != b'd' && size <= LONGEST_OTHER) {
                // Fits: the limit is a setting that fits into memory.
                let whole = HEADER + size as usize;
                if self.end - self.start < whole {
                    return Ok(None);
                }
                let from = self.start + HEADER;
                self.start += whole;
                self.pace.messages += 1;
                return Ok(self.buffer.get(from..self.start).map(|body| Frame::Whole { tag, body }));
            }
            if tag != b'd' {
                return Err(FrameError::TooLong { tag: tag.into(), size });
            }
            self.start += HEADER;
            self.head.clear();
            self.passing = Some(Passing { size, left: size });
        }
        let Some(passing) = &mut self.passing else { return Ok(None) };
        let at_hand = self.buffer.get(self.start..self.end).unwrap_or_default();
        let taken = at_hand.len().min(usize::try_from(passing.left).unwrap_or(usize::MAX));
        let kept = taken.min(HEAD - self.head.len());
        self.head.extend_from_slice(at_hand.get(..kept).unwrap_or_default());
        self.start += taken;
        passing.left -= taken as u64;
        if passing.left > 0 {
            return Ok(None);
        }
        let size = passing.size;
        self.passing = None;
        Ok(Some(Frame::Oversized { head: &self.head, size }))
    }

    /// Reads more. To be called when [`next`](Self::next) has nothing; may be cancelled without loss.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        self.make_room();
        let begin = self.end;
        if let Some(long) = self.pace.gathering() {
            if let Some(socket) = &self.unwatcher {
                socket.unwatch();
            }
            sleep_until(*self.until.get_or_insert_with(|| Instant::now() + long)).await;
            self.drain().await;
        }
        self.until = None;
        if self.end == begin {
            if let Some(socket) = &self.unwatcher {
                socket.watch();
            }
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            let read = self.stream.read(room).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.end += read;
            self.drain().await;
        }
        self.pace.gulped(Instant::now(), self.end == self.buffer.len());
        Ok(self.end - begin)
    }

    /// Takes what is there, without waiting for more: TLS gives a record at a time, TCP no more than its window.
    async fn drain(&mut self) {
        while self.end < self.buffer.len() {
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match poll_immediate(self.stream.read(room)).await {
                // The end, or an error, shows again on the next read.
                None | Some(Ok(0) | Err(_)) => break,
                Some(Ok(read)) => self.end += read,
            }
        }
    }

    /// How many bytes of the message at hand may be needed at once.
    fn wanted(&self) -> usize {
        let length = self
            .buffer
            .get(self.start..self.end)
            .and_then(|rest| rest.first_chunk::<HEADER>())
            .map(|&[_, length @ ..]| u32::from_be_bytes(length));
        match (&self.passing, length) {
            // The length was judged by `next`, which found the message incomplete.
            (None, Some(length)) => length as usize + 1,
            _ => HEADER,
        }
    }

    fn make_room(&mut self) {
        let wanted = self.wanted();
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        } else if self.buffer.len() > NORMAL && wanted <= NORMAL && self.end < NORMAL {
            self.buffer.truncate(NORMAL);
            self.buffer.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend((u32::try_from(body.len()).unwrap() + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// Everything that comes out of `bytes`, as (tag or '!', body or head, size).
    async fn read(bytes: &[u8], limit: u64) -> Vec<(char, Vec<u8>, u64)> {
        let mut reader = Reader::new(bytes, limit);
        let mut seen = Vec::new();
        loop {
            while let Some(frame) = reader.next().unwrap() {
                seen.push(match frame {
                    Frame::Whole { tag, body } => (tag.into(), body.to_vec(), body.len() as u64),
                    Frame::Oversized { head, size } => ('!', head.to_vec(), size),
                });
            }
            if reader.fill().await.is_err() {
                return seen;
            }
        }
    }

    #[test]
    fn gathers_while_many_messages_come_however_they_come() {
        let start = Instant::now();
        let mut pace = Pace::default();
        // So many messages a second, in gulps so many microseconds apart, for a second.
        let mut at = start;
        let mut second = |pace: &mut Pace, messages: u64, apart: u64| {
            for nth in 1..=1_000_000 / apart {
                at += Duration::from_micros(apart);
                let sent = |nth| messages * apart * nth / 1_000_000;
                pace.messages += u32::try_from(sent(nth) - sent(nth - 1)).unwrap();
                pace.gulped(at, false);
            }
            pace.gathering()
        };
        // A thousand commits a second are no reason to wait.
        assert_eq!(second(&mut pace, 3_000, 1_000), None);
        for apart in [20, 300, 4_000, 20_000] {
            assert_eq!(second(&mut pace, 30_000, apart), Some(GATHER), "{apart}");
            assert_eq!(second(&mut pace, 100_000, apart), Some(GATHER_MANY), "{apart}");
            assert_eq!(second(&mut pace, 10, 100_000), None);
        }
        assert_eq!(second(&mut pace, 100_000, 300), Some(GATHER_MANY));
        pace.gulped(at + Duration::from_micros(1), true);
        assert!(pace.gathering().is_none(), "more is there already");
        pace.gulped(at + Duration::from_micros(2), false);
        assert_eq!(pace.gathering(), Some(GATHER_MANY));
    }

    #[tokio::test]
    async fn cuts_messages_and_passes_over_large_ones() {
        let large: Vec<u8> = (0..2_000_000u32).map(|n| n as u8).collect();
        let fitting = vec![7; 1_500_000];
        let bytes = [
            message(b'd', b"a"),
            message(b'd', &large),
            message(b'k', b""),
            message(b'd', &fitting),
            message(b'd', b"z"),
        ]
        .concat();
        let seen = read(&bytes, 1_600_000).await;
        assert_eq!(seen.len(), 5);
        assert_eq!(seen[0], ('d', b"a".to_vec(), 1));
        assert_eq!(seen[1], ('!', large[..HEAD].to_vec(), 2_000_000));
        assert_eq!(seen[2], ('k', vec![], 0));
        assert_eq!(seen[3], ('d', fitting, 1_500_000));
        assert_eq!(seen[4], ('d', b"z".to_vec(), 1));
    }

    #[tokio::test]
    async fn buffer_grows_and_shrinks_and_never_holds_what_is_over_the_limit() {
        let bytes = [
            message(b'd', &vec![1; 3 << 20]),
            vec![message(b'd', &[2; 1000]); 2000].concat(),
            message(b'd', &vec![3; 64 << 20]),
        ]
        .concat();
        let mut reader = Reader::new(&bytes[..], 4 << 20);
        let mut sizes = Vec::new();
        loop {
            let mut oversized = false;
            while let Some(frame) = reader.next().unwrap() {
                oversized |= matches!(frame, Frame::Oversized { .. });
            }
            sizes.push(reader.buffer.len());
            if oversized || reader.fill().await.is_err() {
                break;
            }
        }
        assert!(*sizes.iter().max().unwrap() < (3 << 20) + 16, "{sizes:?}");
        assert_eq!(*sizes.last().unwrap(), NORMAL);
    }

    #[tokio::test]
    async fn any_cut_gives_the_same_messages() {
        let bytes = [message(b'd', &[9; 300]), message(b'E', b"x"), message(b'd', &[8; 5000])].concat();
        for size in [1, 2, 5, 7, 64, 301] {
            let mut builder = tokio::io::duplex(size);
            let sent = bytes.clone();
            let writer = tokio::spawn(async move {
                tokio::io::AsyncWriteExt::write_all(&mut builder.0, &sent).await.unwrap();
            });
            let mut reader = Reader::new(builder.1, 100);
            let mut seen = Vec::new();
            while seen.len() < 3 {
                match reader.next().unwrap() {
                    Some(Frame::Whole { tag, body }) => seen.push((tag, body.len() as u64)),
                    Some(Frame::Oversized { head, size }) => seen.push((head.len().min(255) as u8, size)),
                    None => {
                        reader.fill().await.unwrap();
                    }
                }
            }
            assert_eq!(seen, [(255, 300), (b'E', 1), (255, 5000)]);
            writer.await.unwrap();
        }
    }

    #[tokio::test]
    async fn nonsense_is_an_error_and_not_an_allocation() {
        for (bytes, error) in [
            (vec![b'd', 0, 0, 0, 3, 0], FrameError::Length { tag: 'd', length: 3 }),
            (vec![b'E', 0xff, 0xff, 0xff, 0xff, 0], FrameError::TooLong { tag: 'E', size: 0xffff_fffb }),
        ] {
            let mut reader = Reader::new(&bytes[..], 1 << 20);
            reader.fill().await.unwrap();
            assert_eq!(reader.next(), Err(error));
            assert_eq!(reader.buffer.len(), NORMAL);
        }
    }
}
