//! The connections that are open, at most so many. When there is no room for another, the one that has been without a
//! request for longest is cut off: a client that only holds connections open loses them to clients that use theirs. Those
//! that have been without one for too long are cut off too.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
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
    /// Without a request, in the order in which that began.
    idle: BTreeMap<u64, (Instant, CancellationToken)>,
}

/// One open connection; it leaves the roster when dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    roster: Roster,
    /// Fires when the connection has to make room, and with the listener's shutdown.
    pub(crate) ended: CancellationToken,
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
    pub(crate) fn admit(&self, shutdown: &CancellationToken) -> Option<Visit> {
        let mut state = self.state();
        if state.open >= self.most {
            let (_, (_, idlest)) = state.idle.pop_first()?;
            idlest.cancel();
        }
        state.open += 1;
        drop(state);
        let visit =
            Visit { roster: self.clone(), ended: shutdown.child_token(), idle_since: Mutex::new(None) };
        visit.rest();
        Some(visit)
    }

    /// Cuts off who has been without a request for this long.
    pub(crate) fn evict(&self, idle: Duration) {
        let now = Instant::now();
        let mut state = self.state();
        while let Some(first) = state.idle.first_entry()
            && now.duration_since(first.get().0) >= idle
        {
            first.remove().1.cancel();
        }
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

    /// Whether no request is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle_since().is_some()
    }

    fn rest(&self) {
        let mut state = self.roster.state();
        let now = state.next;
        state.next += 1;
        state.idle.insert(now, (Instant::now(), self.ended.clone()));
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
        let (roster, shutdown) = (Roster::new(2), CancellationToken::new());
        let first = roster.admit(&shutdown).unwrap();
        let second = roster.admit(&shutdown).unwrap();
        let busy = first.work();
        let third = roster.admit(&shutdown).unwrap();
        assert!(second.ended.is_cancelled() && !first.ended.is_cancelled());
        drop(second);
        let working = third.work();
        assert!(roster.admit(&shutdown).is_none(), "both are at work");
        drop(busy);
        let fourth = roster.admit(&shutdown).unwrap();
        assert!(first.ended.is_cancelled() && !third.ended.is_cancelled());
        drop(working);
        drop((first, third, fourth));
        let state = roster.state();
        assert_eq!((state.open, state.idle.len()), (0, 0));
    }

    #[test]
    fn who_rests_too_long_is_cut_off_and_who_works_is_not() {
        let (roster, shutdown) = (Roster::new(4), CancellationToken::new());
        let [idle, working, ending] = std::array::from_fn(|_| roster.admit(&shutdown).unwrap());
        let busy = working.work();
        roster.evict(Duration::from_secs(3600));
        assert!(!idle.ended.is_cancelled());
        drop(ending);
        roster.evict(Duration::ZERO);
        assert!(idle.ended.is_cancelled() && !working.ended.is_cancelled());
        assert!(idle.is_idle() && !working.is_idle());
        drop(busy);
        shutdown.cancel();
        assert!(working.ended.is_cancelled(), "the shutdown is told to all");
    }
}
