//! The connections that are open, at most so many. When there is no room for another, the one that has been without a
//! request for longest is cut off: a client that only holds connections open loses them to clients that use theirs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// All open connections. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    most: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    next: u64,
    /// Without a request, by when that began.
    idle: BTreeMap<u64, CancellationToken>,
}

/// One open connection; it leaves the roster when dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    roster: Roster,
    /// Fires when the connection has to make room.
    pub(crate) evicted: CancellationToken,
    idle_since: Mutex<Option<u64>>,
}

/// A request under way; the connection is idle again when dropped.
#[derive(Debug)]
pub(crate) struct Busy<'a>(&'a Visit);

impl Roster {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, state: Arc::default() }
    }

    /// Admits a connection, at the cost of the one that is idle for longest; `None` where all are at work.
    pub(crate) fn admit(&self) -> Option<Visit> {
        let mut state = self.state();
        if state.open >= self.most {
            let (_, idlest) = state.idle.pop_first()?;
            idlest.cancel();
        }
        state.open += 1;
        drop(state);
        let visit =
            Visit { roster: self.clone(), evicted: CancellationToken::new(), idle_since: Mutex::new(None) };
        visit.rest();
        Some(visit)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visit {
    /// A request has come.
    pub(crate) fn work(&self) -> Busy<'_> {
        if let Some(since) = self.idle_since().take() {
            self.roster.state().idle.remove(&since);
        }
        Busy(self)
    }

    fn rest(&self) {
        let mut state = self.roster.state();
        let now = state.next;
        state.next += 1;
        state.idle.insert(now, self.evicted.clone());
        drop(state);
        *self.idle_since() = Some(now);
    }

    fn idle_since(&self) -> MutexGuard<'_, Option<u64>> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.rest();
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let since = self.idle_since().take();
        let mut state = self.roster.state();
        state.open -= 1;
        if let Some(since) = since {
            state.idle.remove(&since);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_idlest_makes_room_and_who_works_does_not() {
        let roster = Roster::new(2);
        let first = roster.admit().unwrap();
        let second = roster.admit().unwrap();
        let busy = first.work();
        let third = roster.admit().unwrap();
        assert!(second.evicted.is_cancelled() && !first.evicted.is_cancelled());
        drop(second);
        let working = third.work();
        assert!(roster.admit().is_none(), "both are at work");
        drop(busy);
        let fourth = roster.admit().unwrap();
        assert!(first.evicted.is_cancelled() && !third.evicted.is_cancelled());
        drop(working);
        drop((first, third, fourth));
        let state = roster.state();
        assert_eq!((state.open, state.idle.len()), (0, 0));
    }
}
