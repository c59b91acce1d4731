//! What came by webhook already, of providers whose API tells the present state of things and not which deliveries there were.
//!
//! A delivery has an id there that the API does not tell, so what is fetched cannot have it. Instead the things that the stream
//! holds are noted, each with the time of its latest state, and what is fetched is left out where it is no newer than that.
//!
//! # Memory
//! 32 bytes a thing and what a hash table needs beside them, for at most [`THINGS`].

use super::ApiError;
use aws_lc_rs::digest;
use std::collections::HashMap;

/// Most things that are noted.
const THINGS: usize = 1_000_000;

/// One state of a thing: a message as it was edited last, a record as it was saved last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// What it is, in the provider's terms.
    pub(super) thing: String,
    /// When it came to be so, in microseconds since 1970-01-01 UTC.
    pub(super) at: i64,
}

/// The latest states that came.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    latest: HashMap<[u8; 16], i64>,
    /// There were more than could be noted.
    over: bool,
}

impl Arrived {
    /// Notes a state that came.
    pub(super) fn note(&mut self, state: &State) {
        if self.latest.len() == THINGS {
            self.over = true;
            return;
        }
        let latest = self.latest.entry(key(&state.thing)).or_insert(state.at);
        *latest = state.at.max(*latest);
    }

    /// Refuses to judge where not all that came is known.
    pub(super) fn whole(&self) -> Result<(), ApiError> {
        if self.over { Err(ApiError::TooMany(THINGS)) } else { Ok(()) }
    }

    /// Whether this state came, or a later one of the same thing.
    pub(super) fn has(&self, state: &State) -> bool {
        self.latest.get(&key(&state.thing)).is_some_and(|latest| *latest >= state.at)
    }

    /// Whether any state of a thing came.
    pub(super) fn knows(&self, thing: &str) -> bool {
        self.latest.contains_key(&key(thing))
    }
}

fn key(thing: &str) -> [u8; 16] {
    let hash = digest::digest(&digest::SHA256, thing.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hash.as_ref()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_came_if_it_or_a_later_one_did() {
        let state = |at| State { thing: "C1:1.2".to_owned(), at };
        let mut arrived = Arrived::default();
        assert!(!arrived.has(&state(5)) && !arrived.knows("C1:1.2"));
        for at in [5, 3] {
            arrived.note(&state(at));
        }
        assert!(arrived.has(&state(5)) && arrived.has(&state(4)) && arrived.knows("C1:1.2"));
        assert!(!arrived.has(&state(6)) && !arrived.knows("C1:1.3"));
    }
}
