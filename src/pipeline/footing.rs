//! Where a source stands: what its stream and its checkpoint prove together. No I/O but for who only wants to know.
//!
//! * **Durability**: what the stream holds counts most. The checkpoint adds what the stream cannot say, and is brought down to
//!   what the stream proves where that lost its end.

use crate::{
    config::OnGap,
    publish::{CheckpointStore, End, Landmark, SourceStream, StoredCheckpoint},
};
use async_nats::jetstream;
use headgate_sdk::{Checkpoint, Fault, LastEvent, Position, Progress, Resume};

/// Brings the checkpoint down to what the stream proves, and up to a gap that the stream ends with.
pub(super) fn reconciled(mut stored: StoredCheckpoint, end: End, on_gap: OnGap) -> StoredCheckpoint {
    if stored.reached.sequence > end.sequence {
        let progress = stored.proven_at(end.sequence);
        stored.reached = Landmark { progress, sequence: end.sequence };
        stored.released = stored.reached;
    }
    // The gateway died between telling of a gap and keeping what begins behind it, which is all that the stream has of it.
    let Some(LastEvent { position, transaction_end: Some(log), .. }) = end.last else { return stored };
    if position.epoch <= stored.epoch || position.commit != log {
        return stored;
    }
    let announced = stored
        .announced
        .take()
        .filter(|announced| (announced.epoch, announced.log) == (position.epoch, position.commit));
    let stop = on_gap == OnGap::Stop;
    let (identity, reason) = match announced {
        Some(announced) => (announced.identity, announced.reason),
        // It was told by a version that announced nothing.
        None if stop => (String::new(), "see the last event of the stream".to_owned()),
        None => return stored,
    };
    let progress = Progress { epoch: position.epoch, log };
    StoredCheckpoint {
        epoch: position.epoch,
        identity,
        reached: Landmark { progress, sequence: end.sequence },
        released: Landmark::default(),
        gap: stop.then_some(reason),
        announced: None,
    }
}

/// Where a source stands while it does not run, for whoever only wants to know.
#[derive(Debug)]
pub(crate) struct Footing {
    /// Where a run would go on.
    pub(crate) resume: Resume,
    /// Why history was lost, where that waits to be accepted.
    pub(crate) gap: Option<String>,
    /// Whether the checkpoint has that gap, so that it can be accepted. The next run sees to it where it does not.
    pub(crate) is_kept: bool,
}

impl Footing {
    /// Reads it, and makes and changes nothing. `None`: the source never ran.
    ///
    /// # Errors
    /// The broker does not answer, or holds what cannot be read.
    pub(crate) async fn read(
        context: &jetstream::Context,
        source: &str,
        on_gap: OnGap,
    ) -> Result<Option<Self>, Fault> {
        // In the order in which a run reads them, for the same reason.
        let stored = match CheckpointStore::find(context, source).await? {
            Some(checkpoints) => checkpoints.stored().await,
            None => None,
        };
        let end = match SourceStream::find(context, source).await? {
            Some(stream) => stream.end().await?,
            None => None,
        };
        // A stream that is gone is made anew, and is empty then.
        let end = end.unwrap_or(End { sequence: 0, last: None, last_sequence: 0 });
        if stored.is_none() && end.last.is_none() {
            return Ok(None);
        }
        let is_kept = stored.as_ref().is_some_and(|stored| stored.gap.is_some());
        let mut stored = stored.map(|stored| reconciled(stored, end, on_gap));
        let gap = stored.as_mut().and_then(|stored| stored.gap.take());
        Ok(Some(Self { resume: resume(end, stored), gap, is_kept }))
    }
}

/// Joins the two witnesses of where the source stands.
pub(super) fn resume(end: End, stored: Option<StoredCheckpoint>) -> Resume {
    // The first epoch is 1: before that the checkpoint holds an announcement and nothing else.
    let checkpoint = stored.filter(|stored| stored.epoch > 0).map(|stored| Checkpoint {
        epoch: stored.epoch,
        identity: stored.identity,
        progress: stored.reached.progress,
    });
    Resume { last: end.last, checkpoint }
}

/// The last position that need not be published again. The checkpoint counts too: where all events have aged out of the
/// stream, it alone knows.
pub(super) fn held_by_stream(resume: &Resume) -> Option<Position> {
    let kept =
        resume.checkpoint.as_ref().filter(|checkpoint| checkpoint.progress.log > 0).map(|checkpoint| {
            let Progress { epoch, log } = checkpoint.progress;
            Position { epoch, commit: log - 1, index: u32::MAX }
        });
    // A transaction that has ended in the stream is done with, its dead letters too, whatever indexes they have.
    let told = resume.last.map(|last| match last.transaction_end {
        Some(_) => Position { index: u32::MAX, ..last.position },
        None => last.position,
    });
    told.max(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::Announced;

    /// A stream that ends with the word of a gap, whose epoch begins at `log`.
    fn told(epoch: u16, log: u64) -> End {
        let last = LastEvent {
            position: Position { epoch, commit: log, index: 0 },
            transaction_end: Some(log),
            committed_at: None,
        };
        End { sequence: 51, last: Some(last), last_sequence: 51 }
    }

    fn announced(epoch: u16, log: u64) -> StoredCheckpoint {
        let at = |log, sequence| Landmark { progress: Progress { epoch: 2, log }, sequence };
        StoredCheckpoint {
            epoch: 2,
            identity: "old".to_owned(),
            reached: at(900, 50),
            released: at(700, 30),
            gap: None,
            announced: Some(Announced {
                epoch,
                identity: "new".to_owned(),
                log,
                reason: "purged".to_owned(),
            }),
        }
    }

    #[test]
    fn what_was_announced_holds_once_the_gap_is_told() {
        for (on_gap, gap) in [(OnGap::Stop, Some("purged".to_owned())), (OnGap::Snapshot, None)] {
            let found = reconciled(announced(3, 120), told(3, 120), on_gap);
            let progress = Progress { epoch: 3, log: 120 };
            let expected = StoredCheckpoint {
                epoch: 3,
                identity: "new".to_owned(),
                reached: Landmark { progress, sequence: 51 },
                gap,
                ..StoredCheckpoint::default()
            };
            assert_eq!(found, expected);
            // Kept, it stays what it is.
            assert_eq!(reconciled(found.clone(), told(3, 120), on_gap), found);
        }
    }

    #[test]
    fn what_was_announced_and_not_told_does_not_hold() {
        let silent = End { sequence: 50, last: None, last_sequence: 50 };
        for end in [told(2, 890), silent] {
            let stored = announced(3, 120);
            assert_eq!(reconciled(stored.clone(), end, OnGap::Stop), stored);
        }
        // An earlier run told of a gap that ends elsewhere.
        let found = reconciled(announced(3, 120), told(3, 110), OnGap::Stop);
        assert_eq!((found.identity.as_str(), found.gap.is_some()), ("", true));
    }

    #[test]
    fn an_announcement_alone_is_no_checkpoint() {
        let stored = StoredCheckpoint { epoch: 0, reached: Landmark::default(), ..announced(1, 120) };
        let nothing = End { sequence: 0, last: None, last_sequence: 0 };
        assert_eq!(resume(nothing, Some(stored)), Resume::default());
    }
}
