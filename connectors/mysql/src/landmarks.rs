//! Places that a later run can begin at: which transactions are before them, by name.
//!
//! A landmark is kept in the checkpoint only when everything before it is released, so that it never says more than the
//! stream proves, also after a power cut of the broker. Between two landmarks lie seconds, not transactions: a run reads again
//! what was told since the last one.

use crate::{apply::Apply, history::Identity, place::Place};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How far landmarks are apart at least.
const SPACING: Duration = Duration::from_secs(1);
/// How often one is kept.
const KEEPING: Duration = Duration::from_secs(5);
/// Landmarks that wait for their release; when there are more, every second one is given up.
const MOST: usize = 256;

/// The landmarks of one run.
#[derive(Debug)]
pub(crate) struct Landmarks {
    /// The one that is kept.
    kept: Identity,
    /// Oldest first.
    waiting: VecDeque<Identity>,
    noted: Option<Instant>,
    kept_at: Instant,
    /// See [`Identity::confirmed_at`].
    confirmed_at: Arc<AtomicI64>,
}

impl Landmarks {
    pub(crate) fn new(kept: Identity, confirmed_at: Arc<AtomicI64>) -> Self {
        Self { kept, waiting: VecDeque::new(), noted: None, kept_at: Instant::now(), confirmed_at }
    }

    /// What a landmark here would say.
    pub(crate) fn identity(&self, apply: &Apply, log: &str) -> Identity {
        let done = apply.done();
        Identity {
            server: self.kept.server.clone(),
            log: log.to_owned(),
            place: done.0,
            born: if done.file() == apply.place().file() { apply.born() } else { 0 },
            confirmed_at: apply.last_commit().max(self.confirmed_at.load(Relaxed)),
            executed: apply.executed().map(ToString::to_string),
            prepared: apply.prepared().clone(),
            partial: apply.partial().cloned(),
            // Once events of this epoch are released, the stream holds them behind all that came before.
            relies_on: None,
        }
    }

    /// Notes where the log stands, if that is news, and time.
    pub(crate) fn note(&mut self, apply: &Apply, log: &str) {
        let newest = self.waiting.back().map_or(self.kept.place, |newest| newest.place);
        if apply.in_transaction()
            || apply.done() <= Place(newest)
            || self.noted.is_some_and(|noted| noted.elapsed() < SPACING)
        {
            return;
        }
        self.noted = Some(Instant::now());
        if self.waiting.len() >= MOST {
            let mut nth = 0;
            self.waiting.retain(|_| {
                nth += 1;
                nth % 2 == 0
            });
        }
        let identity = self.identity(apply, log);
        self.waiting.push_back(identity);
    }

    /// The newest landmark that is released and not kept yet, if it is time to keep one.
    pub(crate) fn reached(&mut self, released: u64, last: bool) -> Option<Identity> {
        if !last && self.kept_at.elapsed() < KEEPING {
            return None;
        }
        let mut newest = None;
        while self.waiting.front().is_some_and(|landmark| landmark.place <= released) {
            newest = self.waiting.pop_front();
        }
        let identity = newest?;
        self.kept_at = Instant::now();
        self.kept = identity.clone();
        self.confirmed_at.fetch_max(identity.confirmed_at, Relaxed);
        Some(identity)
    }
}
