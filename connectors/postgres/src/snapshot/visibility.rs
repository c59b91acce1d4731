//! Which transactions a read saw. Pure.
//!
//! The server sends a transaction to its readers as soon as its commit is on disk, and shows it to new snapshots a moment later
//! (with synchronous replication: perhaps much later). So a transaction that the log has told may be missing in a
//! read that began after it.

use headgate_sdk::{Transaction, snapshots};
use std::collections::VecDeque;

/// How many of the last transactions are remembered. What is told and not yet visible is at the end of its commit, so there
/// are at most as many as sessions.
const REMEMBERED: usize = 8192;

/// What `pg_current_snapshot()` says: `xmin:xmax:xip,…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visibility {
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

impl Visibility {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax, running) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        let running = running.split(',').filter(|xid| !xid.is_empty()).map(|xid| xid.parse().ok());
        Some(Self { xmin, xmax, running: running.collect::<Option<_>>()? })
    }

    /// Whether the changes of a committed transaction were seen. `xid` is as the log has it, without its epoch: it is taken to be
    /// the one that is nearest to now.
    pub(super) fn sees(&self, xid: u32) -> bool {
        let distance = xid.wrapping_sub(self.xmax as u32).cast_signed();
        let Some(xid) = self.xmax.checked_add_signed(distance.into()) else { return true };
        xid < self.xmin || (xid < self.xmax && !self.running.contains(&xid))
    }
}

/// The last transactions that were told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    last: VecDeque<u32>,
    count: u64,
}

impl snapshots::Told for Told {
    /// `None` where the server tells nothing before it can be seen: a standby, which cannot tell either which transactions run.
    type Sight = Option<Visibility>;
    /// How many there have been.
    type Mark = u64;

    fn note(&mut self, transaction: &Transaction) {
        if let Ok(xid) = transaction.id.parse() {
            self.note_xid(xid);
        }
    }

    fn mark(&self) -> u64 {
        self.count
    }

    fn all_seen(&self, by: &Option<Visibility>, until: &u64) -> bool {
        by.as_ref().is_none_or(|by| self.all_seen_by(by, *until))
    }
}

impl Told {
    fn note_xid(&mut self, xid: u32) {
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(xid);
        self.count += 1;
    }

    /// Whether a read saw all of those that had been told when there were `count` of them.
    fn all_seen_by(&self, by: &Visibility, count: u64) -> bool {
        let later = usize::try_from(self.count.saturating_sub(count)).unwrap_or(usize::MAX);
        self.last.iter().rev().skip(later).all(|&xid| by.sees(xid))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sees_what_had_ended() {
        let seen = Visibility::parse("100:105:100,103").unwrap();
        let visible: Vec<u32> = (98..108).filter(|&xid| seen.sees(xid)).collect();
        assert_eq!(visible, [98, 99, 101, 102, 104]);
        assert!(Visibility::parse("7:7:").unwrap().sees(6));
        for text in ["", "1:2", "1:x:", "1:2:a", "-1:2:"] {
            assert_eq!(Visibility::parse(text), None, "{text}");
        }
    }

    #[test]
    fn transaction_ids_wrap_around() {
        let epoch = 1u64 << 32;
        let seen = Visibility { xmin: 3 * epoch + 5, xmax: 3 * epoch + 6, running: vec![3 * epoch + 5] };
        assert!(seen.sees(4) && !seen.sees(5) && !seen.sees(6));
        assert!(seen.sees(u32::MAX), "of the epoch before");
        let seen = Visibility { xmin: 3 * epoch - 1, xmax: 3 * epoch - 1, running: vec![] };
        assert!(!seen.sees(3) && seen.sees(u32::MAX - 1));
    }

    #[test]
    fn remembers_the_last_ones() {
        let mut told = Told::default();
        told.note_xid(10);
        let count = told.count;
        told.note_xid(20);
        let seen = Visibility::parse("15:15:").unwrap();
        assert!(told.all_seen_by(&seen, count), "20 came later");
        assert!(!told.all_seen_by(&seen, told.count));
        assert!(!told.all_seen_by(&Visibility::parse("10:15:10").unwrap(), count));
        (0..REMEMBERED as u32).for_each(|xid| told.note_xid(xid % 9));
        assert!(told.all_seen_by(&seen, told.count));
    }
}
