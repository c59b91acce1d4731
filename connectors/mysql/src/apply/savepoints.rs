//! Savepoints of the transaction that is being read: whether a rollback to one undoes rows that were told.
//!
//! In row format a server takes what was rolled back out of the transaction before it logs it. MariaDB does not where the
//! transaction made or dropped a temporary table, or changed a table without transactions: there the rows, the savepoint and
//! the rollback to it are all in the log.

/// Savepoints that are remembered. A rollback to one that is not counts as one to the beginning.
const MOST: usize = 1024;

/// The savepoints of one transaction, oldest first, and the rows told before each.
#[derive(Debug, Default)]
pub(super) struct Savepoints {
    /// Events whose rows were told.
    told: u64,
    points: Vec<(String, u64)>,
}

impl Savepoints {
    /// Notes that the rows of an event are told.
    pub(super) fn tell(&mut self) {
        self.told += 1;
    }

    /// A savepoint. It takes the name from an older one.
    pub(super) fn set(&mut self, name: &str) {
        let name = name.to_lowercase();
        self.points.retain(|(known, _)| *known != name);
        if self.points.len() >= MOST {
            self.points.remove(0);
        }
        self.points.push((name, self.told));
    }

    /// A rollback to the savepoint of that name: whether rows were told since.
    pub(super) fn undoes(&mut self, name: &str) -> bool {
        let name = name.to_lowercase();
        let at = self.points.iter().position(|(known, _)| *known == name);
        let before = at.and_then(|at| self.points.get(at)).map_or(0, |(_, told)| *told);
        self.points.truncate(at.map_or(0, |at| at + 1));
        self.told > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_since_the_savepoint_are_undone() {
        let mut savepoints = Savepoints::default();
        assert!(!savepoints.undoes("unknown"), "nothing was told");
        savepoints.tell();
        savepoints.set("a");
        assert!(!savepoints.undoes("A"));
        savepoints.set("b");
        savepoints.tell();
        savepoints.set("c");
        assert!(!savepoints.undoes("c"));
        assert!(savepoints.undoes("b"));
        assert!(savepoints.undoes("c"), "it went with what came before it");
        savepoints.set("a");
        assert!(!savepoints.undoes("a"), "the newest of a name counts");
    }

    #[test]
    fn what_is_not_remembered_is_the_beginning() {
        let mut savepoints = Savepoints::default();
        savepoints.set("first");
        for number in 0..MOST {
            savepoints.set(&number.to_string());
        }
        savepoints.tell();
        assert!(savepoints.undoes("first"));
        assert!(savepoints.points.is_empty());
    }
}
