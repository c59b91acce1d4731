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
//! it wakes at once.

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
/// Gulps that follow each other closer than this are small bites of a stream that does not pause…
const CLOSE: Duration = Duration::from_micros(200);
/// … if so many of them come in a row.
const STREAK: u32 = 8;
/// How long to let bytes gather then…
const GATHER: Duration = Duration::from_millis(1);
/// … and how long if more messages than [`MANY`] arrive in a second: everybody works best in long runs, and nobody waits
/// for a single row then.
const GATHER_MANY: Duration = Duration::from_millis(8);
/// Messages a second; a row in a transaction of its own is three.
const MANY: f64 = 50_000.0;
/// Gathering that brings less than this is not worth its delay.
const WORTH: usize = 4 << 10;
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
///
/// A reader that keeps up never sees a large gulp, so what tells that much is coming in is how closely small ones follow
/// each other.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Instant>,
    streak: u32,
    /// The last gulp filled the buffer: more is there, nothing to wait for.
    filled: bool,
    /// Messages cut out since the last gulp.
    messages: u32,
    many: bool,
}

impl Pace {
    /// How long to let bytes gather before the next gulp.
    fn gathering(&self) -> Option<Duration> {
        let long = if self.many { GATHER_MANY } else { GATHER };
        (self.streak >= STREAK && !self.filled).then_some(long)
    }

    /// Takes note of a gulp.
    fn gulped(&mut self, now: Instant, bytes: usize, filled: bool) {
        let since = self.last.map_or(Duration::MAX, |last| now.duration_since(last));
        let close = since < CLOSE;
        self.many = f64::from(std::mem::take(&mut self.messages)) > MANY * since.as_secs_f64();
        let worth = self.streak >= STREAK && bytes >= WORTH;
        self.streak = if filled || worth || (close && self.streak < STREAK) {
            (self.streak + 1).min(STREAK)
        } else {
            0
        };
        self.filled = filled;
        self.last = Some(now);
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
        if let Some(long) = self.pace.gathering() {
            if let Some(socket) = &self.unwatcher {
                socket.unwatch();
            }
            sleep_until(*self.until.get_or_insert_with(|| Instant::now() + long)).await;
        }
        self.until = None;
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let read = self.stream.read(room).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.end += read;
        let mut gulp = read;
        // TLS gives a record at a time: take what else is there already.
        while self.end < self.buffer.len() {
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match poll_immediate(self.stream.read(room)).await {
                // The end, or an error, shows again on the next read.
                None | Some(Ok(0) | Err(_)) => break,
                Some(Ok(read)) => {
                    self.end += read;
                    gulp += read;
                }
            }
        }
        self.pace.gulped(Instant::now(), gulp, self.end == self.buffer.len());
        Ok(gulp)
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
    fn gathers_while_small_bites_follow_closely_and_stops_when_it_brings_little() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let at = |pace: &mut Pace, micros: u64, bytes| {
            pace.gulped(start + Duration::from_micros(micros), bytes, false);
        };
        // A thousand commits a second are no reason to wait.
        for n in 0..100 {
            at(&mut pace, n * 1000, 300);
            assert!(pace.gathering().is_none());
        }
        for n in 0..=u64::from(STREAK) {
            at(&mut pace, 100_000 + n * 20, 300);
        }
        assert!(pace.gathering().is_some());
        // Gathered gulps are far apart, and large.
        at(&mut pace, 102_000, 90_000);
        assert!(pace.gathering().is_some());
        pace.gulped(start + Duration::from_millis(103), NORMAL, true);
        assert!(pace.gathering().is_none(), "more is there already");
        at(&mut pace, 104_000, 90_000);
        assert!(pace.gathering().is_some());
        // Few large messages need no long runs, many small ones do.
        assert_eq!(pace.gathering(), Some(GATHER));
        pace.messages = 200;
        at(&mut pace, 106_000, 90_000);
        assert_eq!(pace.gathering(), Some(GATHER_MANY));
        at(&mut pace, 114_000, 90_000);
        assert_eq!(pace.gathering(), Some(GATHER));
        at(&mut pace, 115_200, 2_000);
        assert!(pace.gathering().is_none());
    }

    #[tokio::test]
    async fn gathering_ends_even_if_its_wait_is_cut_short_again_and_again() {
        let bytes = message(b'd', b"a");
        let mut reader = Reader::new(&bytes[..], 100);
        reader.pace = Pace { streak: STREAK, many: true, ..Pace::default() };
        for _ in 0..1000 {
            if tokio::time::timeout(GATHER_MANY / 4, reader.fill()).await.is_ok() {
                return;
            }
        }
        panic!("nothing was read");
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
