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
}

impl snapshots::Told for Told {
    /// `None` where the server tells nothing before it can be seen: a standby, which cannot tell either which transactions run.
    type Sight = Option<Visibility>;
    /// The last ones: what comes after must not make them forgotten.
    type Mark = Vec<u32>;

    fn note(&mut self, transaction: &Transaction) {
        if let Ok(xid) = transaction.id.parse() {
            self.note_xid(xid);
        }
    }

    fn mark(&self) -> Vec<u32> {
        self.last.iter().copied().collect()
    }

    fn all_seen(by: &Option<Visibility>, told: &Vec<u32>) -> bool {
        by.as_ref().is_none_or(|by| told.iter().all(|&xid| by.sees(xid)))
    }
}

impl Told {
    fn note_xid(&mut self, xid: u32) {
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(xid);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use headgate_sdk::snapshots::Told as _;

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
        let all_seen = <Told as snapshots::Told>::all_seen;
        let seen = |text: &str| Visibility::parse(text);
        let mut told = Told::default();
        told.note_xid(10);
        let mark = told.mark();
        told.note_xid(20);
        assert!(all_seen(&seen("15:15:"), &mark), "20 came later");
        assert!(!all_seen(&seen("15:15:"), &told.mark()));
        assert!(!all_seen(&seen("10:15:10"), &mark));
        (0..REMEMBERED as u32).for_each(|xid| told.note_xid(xid % 9));
        assert!(all_seen(&seen("15:15:"), &told.mark()), "what is long past is taken to be seen");
        assert!(!all_seen(&seen("10:15:10"), &mark), "however much comes after");
    }
}
