//! Where rows of a snapshot stand, and how far the snapshots are.

use super::{Encoder, transaction::OpenTransaction};
use bytes::Bytes;
use headgate_sdk::{Position, SnapshotPlace, SnapshotPoint};
use std::fmt::Write as _;

impl Encoder {
    /// Begins to tell rows of a snapshot.
    ///
    /// They stand on the last byte before the point, which no transaction commits at: everything told lies at or before it,
    /// everything to come behind it. A message that stands alone may have it too, with index 0, as may rows told there before.
    pub fn begin_snapshot(&mut self, point: SnapshotPoint) {
        let commit = point.log.saturating_sub(1);
        let before = self.last.filter(|last| (last.epoch, last.commit) == (self.epoch, commit));
        self.transaction = OpenTransaction {
            commit,
            committed_at: point.read_at,
            next_index: before.map_or(1, |last| last.index / 2 + 1),
            ..OpenTransaction::default()
        };
        self.snapshot = Some(point);
    }

    /// Ends that; gives the position of the last event that the stream will hold.
    pub fn end_snapshot(&mut self) -> Option<Position> {
        self.snapshot = None;
        self.streamed
    }

    /// How far the snapshots are, with the next event.
    pub fn places(&mut self, places: &[SnapshotPlace]) {
        let mut text = String::with_capacity(32 * places.len());
        for (nth, place) in places.iter().enumerate() {
            let separator = if nth == 0 { "" } else { " " };
            // Writing to a string does not fail.
            let _ = write!(text, "{separator}{place}");
        }
        self.places_before = std::mem::replace(&mut self.places, Bytes::from(text));
    }
}
