//! A running stream: what the server sends, message by message, to the outlet.
//!
//! # Memory
//! One message at a time, out of the reader's buffer.

use crate::{
    apply::Apply,
    connect::Socket,
    feedback::{self, Feedback},
    frame::{Frame, Reader},
    lookahead::{self, Ahead},
    monitor::{Alarm, Monitor},
    refusal::Refusal,
    replication::{garbled, lost},
    snapshot::Snapshots,
};
use headgate_sdk::{Context, Fault, Outlet, Progress, Vitals, clock};
use std::{sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::{io::ReadHalf, time::sleep};

/// Why a stream ended.
pub(super) enum Ended {
    Fault(Fault),
    HistoryLost(String),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Batches of a snapshot's rows that are told before the log has its turn again.
const SLICES: usize = 8;
/// How long that turn is where the log has nothing to say. A reader that lets bytes gather goes on with that in the next.
const TURN: Duration = Duration::from_millis(2);

/// A running stream.
pub(super) struct Stream {
    pub(super) epoch: u16,
    pub(super) reader: Reader<ReadHalf<Socket>>,
    pub(super) apply: Apply,
    pub(super) snapshots: Snapshots,
    pub(super) feedback: Feedback,
    pub(super) monitor: Monitor,
}

impl Stream {
    /// Reads until the shutdown or a fault; says what was told by then.
    pub(super) async fn run<O: Outlet>(
        mut self,
        outlet: &mut O,
        context: Context,
    ) -> (Result<(), Ended>, Progress) {
        let ended = self.read(outlet, &context).await;
        let told = Progress { epoch: self.epoch, log: self.apply.told() };
        if ended.is_ok() {
            self.feedback.finish().await;
        }
        (ended, told)
    }

    async fn read<O: Outlet>(&mut self, outlet: &mut O, context: &Context) -> Result<(), Ended> {
        loop {
            // While much comes in, nothing below ever waits. The runtime's timers and sockets, and the feedback with
            // them, would wait for us instead.
            tokio::task::yield_now().await;
            loop {
                let attributes = match lookahead::look(self.reader.at_hand()) {
                    Ahead::Unknown => break,
                    Ahead::Nothing => None,
                    Ahead::Context(message) => Some((message.content.to_vec(), message.end_lsn)),
                };
                let Some(frame) = self.reader.next().map_err(garbled)? else { break };
                let outlet = &mut self.snapshots.listen(outlet);
                read(frame, self.epoch, &mut self.apply, &self.feedback, &context.vitals, outlet).await?;
                if let Some((content, position)) = attributes {
                    self.apply.context(&content, position, outlet);
                }
                if outlet.is_full() {
                    flush(outlet, &mut self.feedback, &mut self.monitor).await?;
                }
            }
            flush(outlet, &mut self.feedback, &mut self.monitor).await?;
            for _ in 0..SLICES {
                if !self.snapshots.is_ready() {
                    break;
                }
                self.snapshots.tell(outlet);
                flush(outlet, &mut self.feedback, &mut self.monitor).await?;
            }
            tokio::select! {
                biased;
                () = context.shutdown.cancelled() => return Ok(()),
                ended = trouble(&mut self.feedback, &mut self.monitor) => return Err(ended),
                filled = self.reader.fill() => {
                    filled.map_err(lost)?;
                    context.vitals.last_heard.store(clock::now(), Relaxed);
                }
                // More rows wait: the log has its turn, and they go on.
                () = sleep(TURN), if self.snapshots.is_ready() => {}
                event = self.snapshots.event() => {
                    self.snapshots.handle(event, outlet).await?;
                }
            }
        }
    }
}

/// Waits for the broker, but not when the database is in trouble.
async fn flush<O: Outlet>(
    outlet: &mut O,
    feedback: &mut Feedback,
    monitor: &mut Monitor,
) -> Result<(), Ended> {
    tokio::select! {
        biased;
        flushed = outlet.flush() => Ok(flushed?),
        ended = trouble(feedback, monitor) => Err(ended),
    }
}

async fn trouble(feedback: &mut Feedback, monitor: &mut Monitor) -> Ended {
    tokio::select! {
        fault = feedback.failed() => Ended::Fault(fault),
        alarm = monitor.alarm() => match alarm {
            Alarm::Fault(fault) => Ended::Fault(fault),
            Alarm::HistoryLost(reason) => Ended::HistoryLost(reason),
        },
    }
}

/// The header of an XLogData: tag, start, end, time.
const XLOG_HEADER: usize = 25;

fn malformed() -> Fault {
    Fault::definite("the server sent a replication message that cannot be read")
        .with_fix("connect to the server itself, not to a proxy")
}

/// A big-endian number at `at`.
fn number(body: &[u8], at: usize) -> Result<u64, Fault> {
    body.get(at..)
        .and_then(|rest| rest.first_chunk::<8>())
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or_else(malformed)
}

async fn read<O: Outlet>(
    frame: Frame<'_>,
    epoch: u16,
    apply: &mut Apply,
    feedback: &Feedback,
    vitals: &Vitals,
    outlet: &mut O,
) -> Result<(), Ended> {
    match frame {
        Frame::Whole { tag: b'd', body } => match body.first() {
            Some(b'w') => {
                let start = number(body, 1)?;
                let payload = body.get(XLOG_HEADER..).ok_or_else(malformed)?;
                count(payload.len() as u64, start, feedback, vitals);
                if payload.first() == Some(&b'B') {
                    // Begin: final LSN, commit time.
                    let committed =
                        number(payload, 9)?.cast_signed().saturating_add(feedback::POSTGRES_EPOCH);
                    vitals.last_commit.store(committed, Relaxed);
                }
                apply.message(payload, start, outlet).await?;
            }
            Some(b'k') => {
                let end = number(body, 1)?;
                count(0, end, feedback, vitals);
                vitals.server_log.fetch_max(end, Relaxed);
                if body.get(17) == Some(&1) {
                    feedback.answer();
                }
                // Within a transaction the end is that of what was sent, not of what is whole.
                if !apply.in_transaction() {
                    outlet.progress(Progress { epoch, log: end });
                }
            }
            _ => return Err(malformed().into()),
        },
        Frame::Oversized { head, size } => {
            if head.first() != Some(&b'w') {
                return Err(malformed().into());
            }
            let size = size.saturating_sub(XLOG_HEADER as u64);
            count(size, number(head, 1)?, feedback, vitals);
            apply.oversized(head.get(XLOG_HEADER..).ok_or_else(malformed)?, size, outlet)?;
        }
        Frame::Whole { tag: b'E', body } => return Err(refused(Refusal::parse(body))),
        Frame::Whole { tag: b'N', body } => noticed(&Refusal::parse(body))?,
        Frame::Whole { tag: b'S', .. } => {}
        Frame::Whole { tag: b'c' | b'C' | b'Z', .. } => {
            return Err(
                Fault::transient("the server ended the stream (it shuts down, or was promoted)").into()
            );
        }
        Frame::Whole { .. } => return Err(malformed().into()),
    }
    Ok(())
}

fn count(bytes: u64, log: u64, feedback: &Feedback, vitals: &Vitals) {
    vitals.received_bytes.fetch_add(bytes, Relaxed);
    feedback.received(log);
    vitals.received_log.fetch_max(log, Relaxed);
}

/// An error in the middle of the stream.
fn refused(refusal: Refusal) -> Ended {
    match refusal.code.as_str() {
        // Before PostgreSQL 18: a publication that does not exist at this position of the log.
        "42704" => Ended::HistoryLost(format!("the log cannot be decoded from here on: {refusal}")),
        // Invalidated while it was read: the next run looks at the slot.
        "55000" => {
            Ended::Fault(Fault::transient("the server can no longer read the slot").with_cause(refusal))
        }
        _ if refusal.is_shutdown() => {
            Ended::Fault(Fault::transient("the database is shutting down").with_cause(refusal))
        }
        _ => Ended::Fault(refusal.fault("the server ended the stream")),
    }
}

/// From PostgreSQL 18 on a publication that does not exist at this position of the log is skipped with a warning, and
/// its changes with it.
fn noticed(refusal: &Refusal) -> Result<(), Ended> {
    if refusal.severity == "WARNING" && refusal.code == "55000" {
        return Err(Ended::HistoryLost(format!("changes were skipped: {refusal}")));
    }
    tracing::info!(notice = %refusal, "the server notes");
    Ok(())
}
