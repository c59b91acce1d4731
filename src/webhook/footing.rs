//! How a gateway that empties its spool may send: one message after the other, or many at once. No I/O.
//!
//! Many at once may keep their order in two ways. As an atomic batch, which the broker stores in one piece or not at all, if the
//! stream allows that. Else by the sequence that each must follow, which holds only while nobody else writes to the stream.

/// Messages in a row that prove what has to be proven first.
const PROOF: usize = 32;

/// How the stream behaves under this writer.
#[derive(Debug, Default)]
pub(super) struct Footing {
    /// Whether the stream takes atomic batches.
    batches: bool,
    /// The stream's sequence of the last message that was stored, if nothing came after it as far as is known.
    last: Option<u64>,
    /// Messages in a row that were stored right behind one another.
    alone: usize,
    /// Messages in a row that the stream did not have.
    fresh: usize,
}

/// How messages may be sent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Together {
    /// As one atomic batch. One message that the stream has refuses all of it.
    Batch,
    /// Each with the sequence that it must follow, the first with this one.
    Behind(u64),
}

impl Footing {
    /// Before the first message, on a stream that takes atomic batches or does not.
    pub(super) fn new(batches: bool) -> Self {
        Self { batches, ..Self::default() }
    }

    /// Takes in an acknowledgement.
    pub(super) fn stored(&mut self, sequence: u64, duplicate: bool) {
        if duplicate {
            self.disturbed();
            return;
        }
        self.alone = if self.last.is_some_and(|last| last + 1 == sequence) { self.alone + 1 } else { 0 };
        self.fresh += 1;
        self.last = Some(sequence);
    }

    /// Something else than the next message came, or nobody knows what.
    pub(super) fn disturbed(&mut self) {
        *self = Self::new(self.batches);
    }

    /// The broker takes no batch, whatever is in it.
    pub(super) fn without_batches(&mut self) {
        *self = Self::default();
    }

    /// How the next messages may be sent together; `None`: not at all.
    pub(super) fn together(&self) -> Option<Together> {
        if self.batches {
            return (self.fresh > PROOF).then_some(Together::Batch);
        }
        self.last.filter(|_| self.alone >= PROOF).map(Together::Behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_opens_after_proof_and_closes_with_the_first_disturbance() {
        let mut footing = Footing::new(false);
        for sequence in 1..=PROOF as u64 {
            footing.stored(sequence, false);
            assert_eq!(footing.together(), None);
        }
        footing.stored(PROOF as u64 + 1, false);
        assert_eq!(footing.together(), Some(Together::Behind(PROOF as u64 + 1)));
        footing.stored(PROOF as u64 + 3, false);
        assert_eq!(footing.together(), None, "another writer came in between");
        for sequence in 100..200 {
            footing.stored(sequence, false);
        }
        footing.stored(5, true);
        assert_eq!(footing.together(), None, "a duplicate says nothing of the stream's end");
    }

    #[test]
    fn batches_need_no_solitude_but_messages_that_the_stream_has_not() {
        let mut footing = Footing::new(true);
        for sequence in 1..=PROOF as u64 {
            footing.stored(2 * sequence, false);
            assert_eq!(footing.together(), None);
        }
        footing.stored(100, false);
        assert_eq!(footing.together(), Some(Together::Batch), "whoever else writes");
        footing.stored(5, true);
        assert_eq!(footing.together(), None, "where one is there, the next may be");
        for sequence in 200..300 {
            footing.stored(sequence, false);
        }
        assert_eq!(footing.together(), Some(Together::Batch));
        footing.without_batches();
        for sequence in 300..400 {
            footing.stored(sequence, false);
        }
        assert_eq!(footing.together(), Some(Together::Behind(399)));
    }
}
