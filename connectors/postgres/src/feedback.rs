//! What we tell the server: that we are here, how far we have read, and from where it may forget.
//!
//! A task of its own owns the writing half of the connection, and waits for nobody: not for the decoder, the outlet or
//! the broker. A reader that stands still for an hour keeps its connection.
//!
//! # Durability
//! `flush` is what was released, but never beyond what this connection received: the server believes any number, and a
//! number from another history makes it drop all changes until its log has passed it. It never falls.

use bytes::BytesMut;
use headgate_sdk::{Fault, Progress, Vitals, clock::now};
use postgres_protocol::message::frontend;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// How long a rise of the released position may wait for company.
const GATHER: Duration = Duration::from_millis(100);
/// The longest silence.
const LONGEST: Duration = Duration::from_secs(10);
/// PostgreSQL counts microseconds from 2000-01-01.
pub(crate) const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// How often to speak, given the server's `wal_sender_timeout` (zero: none).
pub(crate) fn interval(wal_sender_timeout: Duration) -> Duration {
    if wal_sender_timeout.is_zero() { LONGEST } else { LONGEST.min(wal_sender_timeout / 3) }
}

/// The handle of the task.
pub(crate) struct Feedback {
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

struct Shared {
    received: AtomicU64,
    answer: Notify,
}

impl Drop for Feedback {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feedback {
    /// Starts the task. Positions of `released` count only in `epoch`.
    pub(crate) fn start<W>(
        writer: W,
        released: watch::Receiver<Progress>,
        epoch: u16,
        interval: Duration,
        vitals: Arc<Vitals>,
    ) -> Self
    where
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Arc::new(Shared { received: AtomicU64::new(0), answer: Notify::new() });
        let stop = CancellationToken::new();
        let speaker = Speaker {
            writer,
            released,
            epoch,
            vitals,
            shared: Arc::clone(&shared),
            flushed: 0,
            packet: BytesMut::new(),
        };
        let task = tokio::spawn(speaker.run(interval, stop.clone()));
        Self { shared, stop, task }
    }

    /// Everything before `log` has been received.
    pub(crate) fn received(&self, log: u64) {
        self.shared.received.fetch_max(log, Relaxed);
    }

    /// The server wants to hear of us now.
    pub(crate) fn answer(&self) {
        self.shared.answer.notify_one();
    }

    /// Waits until the task ends, which it does only when the connection is lost.
    pub(crate) async fn failed(&mut self) -> Fault {
        match (&mut self.task).await {
            Ok(Err(error)) => crate::replication::lost(error),
            Ok(Ok(())) | Err(_) => Fault::transient("the feedback to the database has ended"),
        }
    }

    /// Confirms once more and says goodbye.
    pub(crate) async fn finish(mut self) {
        self.stop.cancel();
        // The connection may be gone by now; nothing is lost with it.
        let _ = tokio::time::timeout(Duration::from_secs(2), &mut self.task).await;
    }
}

struct Speaker<W> {
    writer: W,
    released: watch::Receiver<Progress>,
    epoch: u16,
    vitals: Arc<Vitals>,
    shared: Arc<Shared>,
    /// The flush position last sent.
    flushed: u64,
    packet: BytesMut,
}

impl<W: AsyncWrite + Unpin> Speaker<W> {
    async fn run(mut self, interval: Duration, stop: CancellationToken) -> io::Result<()> {
        let mut releasing = true;
        loop {
            self.speak(true).await?;
            let spoken = Instant::now();
            loop {
                let due = spoken + if self.flush() > self.flushed { GATHER.min(interval) } else { interval };
                tokio::select! {
                    () = stop.cancelled() => return self.say_goodbye().await,
                    () = self.shared.answer.notified() => {
                        self.speak(false).await?;
                        continue;
                    }
                    changed = self.released.changed(), if releasing => {
                        releasing = changed.is_ok();
                        continue;
                    }
                    () = sleep_until(due) => break,
                }
            }
        }
    }

    /// What may be confirmed now.
    fn flush(&self) -> u64 {
        let released = *self.released.borrow();
        let released = if released.epoch == self.epoch { released.log } else { 0 };
        released.min(self.shared.received.load(Relaxed)).max(self.flushed)
    }

    /// A standby status update. With `ask` the server answers, so that a dead connection shows.
    async fn speak(&mut self, ask: bool) -> io::Result<()> {
        let (written, flush) = (self.shared.received.load(Relaxed), self.flush());
        let mut status = [0; 34];
        status[0] = b'r';
        status[1..9].copy_from_slice(&written.to_be_bytes());
        status[9..17].copy_from_slice(&flush.to_be_bytes());
        status[17..25].copy_from_slice(&flush.to_be_bytes());
        status[25..33].copy_from_slice(&(now() - POSTGRES_EPOCH).to_be_bytes());
        status[33] = u8::from(ask);
        self.packet.clear();
        frontend::CopyData::new(&status[..])?.write(&mut self.packet);
        self.writer.write_all(&self.packet).await?;
        self.writer.flush().await?;
        self.flushed = flush;
        self.vitals.confirmed_log.fetch_max(flush, Relaxed);
        Ok(())
    }

    async fn say_goodbye(mut self) -> io::Result<()> {
        self.speak(false).await?;
        self.packet.clear();
        frontend::copy_done(&mut self.packet);
        frontend::terminate(&mut self.packet);
        self.writer.write_all(&self.packet).await?;
        self.writer.flush().await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, DuplexStream};

    /// (write, flush, apply, reply) of the next status update.
    async fn heard(server: &mut DuplexStream) -> (u64, u64, u64, u8) {
        let mut message = [0; 39];
        server.read_exact(&mut message).await.unwrap();
        assert_eq!((message[0], &message[1..5], message[5]), (b'd', &38u32.to_be_bytes()[..], b'r'));
        let number = |at: usize| u64::from_be_bytes(message[at..at + 8].try_into().unwrap());
        (number(6), number(14), number(22), message[38])
    }

    #[tokio::test]
    async fn confirms_what_is_released_but_never_beyond_what_was_received() {
        let (ours, mut server) = tokio::io::duplex(4096);
        let (release, released) = watch::channel(Progress::default());
        let feedback = Feedback::start(ours, released, 2, Duration::from_secs(10), Arc::default());
        assert_eq!(heard(&mut server).await, (0, 0, 0, 1));
        feedback.received(500);
        release.send_replace(Progress { epoch: 1, log: 400 });
        feedback.answer();
        assert_eq!(heard(&mut server).await, (500, 0, 0, 0), "another epoch's position means nothing here");
        let before = Instant::now();
        release.send_replace(Progress { epoch: 2, log: 300 });
        assert_eq!(heard(&mut server).await, (500, 300, 300, 1));
        assert!(before.elapsed() < GATHER * 5);
        release.send_replace(Progress { epoch: 2, log: 900 });
        assert_eq!(heard(&mut server).await, (500, 500, 500, 1));
        release.send_replace(Progress { epoch: 2, log: 100 });
        feedback.answer();
        assert_eq!(heard(&mut server).await, (500, 500, 500, 0), "never falls");
        feedback.finish().await;
        assert_eq!(heard(&mut server).await, (500, 500, 500, 0));
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [b'c', 0, 0, 0, 4, b'X', 0, 0, 0, 4]);
    }

    #[tokio::test]
    async fn speaks_at_its_interval_even_when_nothing_happens() {
        let (ours, mut server) = tokio::io::duplex(4096);
        let (release, released) = watch::channel(Progress::default());
        drop(release);
        let _feedback =
            Feedback::start(ours, released, 1, interval(Duration::from_millis(300)), Arc::default());
        heard(&mut server).await;
        for _ in 0..5 {
            let before = Instant::now();
            heard(&mut server).await;
            assert!((80..1000).contains(&before.elapsed().as_millis()));
        }
    }
}
