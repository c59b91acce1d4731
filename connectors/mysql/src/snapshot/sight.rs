//! Which transactions a read saw. Pure.
//!
//! A server sends a transaction to the readers of its log when it is on disk, and shows it to new reads a moment later (with
//! semi-synchronous replication: perhaps much later). So a transaction that the log has told may be missing in a read that
//! began after it.

use crate::gtid::mysql::GtidSet;
use headgate_sdk::{Transaction, snapshots};
use std::collections::VecDeque;

/// How many of the last transactions are remembered. What is told and not yet visible is at the end of its commit, so there
/// are at most as many as sessions.
const REMEMBERED: usize = 4096;

/// What a read saw.
#[derive(Debug)]
pub(crate) enum Sight {
    /// All of these at least (MySQL: `gtid_executed` before the read).
    Names(GtidSet),
    /// All of the log before this place, and nothing else (MariaDB).
    Place(u64),
    /// Nobody can tell; it began so long after it was asked for that what had been told by then was there.
    Settled,
}

/// The last transactions that were told.
#[derive(Debug)]
pub(crate) struct Told {
    /// Their names, where the server judges by them.
    names: Option<VecDeque<String>>,
    /// Where the last one began, or where the log ended before the first.
    place: u64,
}

/// What had been told.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// The last names: what comes after must not make them forgotten.
    names: Vec<String>,
    place: u64,
}

impl Told {
    /// `begun`: a place in the log before which a read has to see everything.
    pub(crate) fn new(by_name: bool, begun: u64) -> Self {
        Self { names: by_name.then(VecDeque::new), place: begun.saturating_sub(1) }
    }
}

impl snapshots::Told for Told {
    type Sight = Sight;
    type Mark = Mark;

    fn note(&mut self, transaction: &Transaction) {
        self.place = self.place.max(transaction.commit);
        if let Some(names) = &mut self.names {
            // The oldest one's memory serves the newest.
            let mut name =
                if names.len() == REMEMBERED { names.pop_front().unwrap_or_default() } else { String::new() };
            name.clone_from(&transaction.id);
            names.push_back(name);
        }
    }

    fn mark(&self) -> Mark {
        Mark { names: self.names.iter().flatten().cloned().collect(), place: self.place }
    }

    fn all_seen(by: &Sight, told: &Mark) -> bool {
        match by {
            Sight::Settled => true,
            Sight::Place(place) => *place > told.place,
            // A transaction without a name is of a time before names.
            Sight::Names(seen) => {
                told.names.iter().all(|name| name.parse().map_or(true, |gtid| seen.contains(&gtid)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use headgate_sdk::snapshots::Told as _;

    fn transaction(number: u64) -> Transaction {
        let id = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{number}");
        Transaction { commit: 1000 + number, committed_at: 0, id }
    }

    #[test]
    fn a_read_has_to_see_what_had_been_told() {
        let all_seen = <Told as snapshots::Told>::all_seen;
        let mut told = Told::new(true, 900);
        told.note(&transaction(7));
        let mark = told.mark();
        told.note(&transaction(8));
        let seen = |text: &str| {
            Sight::Names(format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{text}").parse().unwrap())
        };
        assert!(all_seen(&seen("1-7"), &mark) && !all_seen(&seen("1-6"), &mark));
        assert!(!all_seen(&seen("1-7"), &told.mark()));
        assert!(all_seen(&Sight::Place(1008), &mark) && !all_seen(&Sight::Place(1007), &mark));
        (0..2 * REMEMBERED as u64).for_each(|_| told.note(&transaction(9)));
        assert!(all_seen(&seen("9"), &told.mark()), "what is long past is taken to be seen");
        assert!(!all_seen(&seen("1-6"), &mark), "however much comes after");
        let fresh = Told::new(false, 900);
        assert!(all_seen(&Sight::Place(900), &fresh.mark()));
        assert!(!all_seen(&Sight::Place(899), &fresh.mark()));
    }
}
