//! Whether a gateway that empties its spool is the stream's only writer for now. No I/O.
//!
//! While it is, it knows behind which sequence its next message will be stored, and can send many at once without risking
//! their order.

/// Messages stored right behind one another that prove a single writer.
const PROOF: usize = 32;

/// How the stream behaves under this writer.
#[derive(Debug, Default)]
pub(super) struct Footing {
    /// The stream's sequence of the last message that was stored, if nothing came after it as far as is known.
    last: Option<u64>,
    /// Messages in a row that were stored right behind one another.
    alone: usize,
}

impl Footing {
    /// Takes in an acknowledgement.
    pub(super) fn stored(&mut self, sequence: u64, duplicate: bool) {
        if duplicate {
            *self = Self::default();
            return;
        }
        self.alone = if self.last == Some(sequence - 1) { self.alone + 1 } else { 0 };
        self.last = Some(sequence);
    }

    /// The sequence that a window may follow.
    pub(super) fn window(&self) -> Option<u64> {
        self.last.filter(|_| self.alone >= PROOF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_opens_after_proof_and_closes_with_the_first_disturbance() {
        let mut footing = Footing::default();
        for sequence in 1..=PROOF as u64 {
            footing.stored(sequence, false);
            assert_eq!(footing.window(), None);
        }
        footing.stored(PROOF as u64 + 1, false);
        assert_eq!(footing.window(), Some(PROOF as u64 + 1));
        footing.stored(PROOF as u64 + 3, false);
        assert_eq!(footing.window(), None, "another writer came in between");
        for sequence in 100..200 {
            footing.stored(sequence, false);
        }
        footing.stored(5, true);
        assert_eq!(footing.window(), None, "a duplicate says nothing of the stream's end");
    }
}
