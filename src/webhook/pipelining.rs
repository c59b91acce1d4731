//! How a gateway that empties its spool may send: one message after the other, or many at once. No I/O.
//!
//! Many at once may keep their order in two ways. As an atomic batch, which the broker stores in one piece or not at all, if the
//! stream allows that. Else by the sequence that each must follow, which holds only while nobody else writes to the stream.

/// Messages in a row that prove what has to be proven first.
const PROOF: usize = 32;
/// Most messages under way together: the most that a broker takes as one atomic batch by default.
pub(super) const WINDOW: usize = 1000;

/// How the stream behaves under this writer.
#[derive(Debug)]
pub(super) struct Pipelining {
    /// Whether the stream takes atomic batches.
    batches: bool,
    /// Most messages of the next batch. A refusal halves it, which leads to the message that caused it, and to what a broker with a lower limit
    /// takes; whatever is stored doubles it again.
    most: usize,
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
    /// As one atomic batch of so many at most. One message that the stream has refuses all of it.
    Batch(usize),
    /// Each with the sequence that it must follow, the first with this one.
    Behind(u64),
}

impl Pipelining {
    /// Before the first message, on a stream that takes atomic batches or does not.
    pub(super) fn new(batches: bool) -> Self {
        Self { batches, most: WINDOW, last: None, alone: 0, fresh: 0 }
    }

    /// Takes in the acknowledgement of one message.
    pub(super) fn stored(&mut self, sequence: u64, duplicate: bool) {
        if duplicate {
            self.disturbed();
            return;
        }
        self.alone = if self.last.is_some_and(|last| last + 1 == sequence) { self.alone + 1 } else { 0 };
        self.fresh += 1;
        self.last = Some(sequence);
        self.more();
    }

    /// A batch was stored.
    pub(super) fn batch_stored(&mut self) {
        self.more();
    }

    /// A batch of so many messages was refused for one of them or for being so many.
    pub(super) fn batch_refused(&mut self, messages: usize) {
        self.most = (messages / 2).max(1);
    }

    fn more(&mut self) {
        self.most = (2 * self.most).min(WINDOW);
    }

    /// Something else than the next message came, or nobody knows what.
    pub(super) fn disturbed(&mut self) {
        *self = Self::new(self.batches);
    }

    /// The broker takes no batch, whatever is in it.
    pub(super) fn without_batches(&mut self) {
        *self = Self::new(false);
    }

    /// How the next messages may be sent together; `None`: not at all.
    pub(super) fn together(&self) -> Option<Together> {
        if self.batches {
            return (self.fresh > PROOF && self.most > 1).then_some(Together::Batch(self.most));
        }
        self.last.filter(|_| self.alone >= PROOF).map(Together::Behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_opens_after_proof_and_closes_with_the_first_disturbance() {
        let mut pipelining = Pipelining::new(false);
        for sequence in 1..=PROOF as u64 {
            pipelining.stored(sequence, false);
            assert_eq!(pipelining.together(), None);
        }
        pipelining.stored(PROOF as u64 + 1, false);
        assert_eq!(pipelining.together(), Some(Together::Behind(PROOF as u64 + 1)));
        pipelining.stored(PROOF as u64 + 3, false);
        assert_eq!(pipelining.together(), None, "another writer came in between");
        for sequence in 100..200 {
            pipelining.stored(sequence, false);
        }
        pipelining.stored(5, true);
        assert_eq!(pipelining.together(), None, "a duplicate says nothing of the stream's end");
    }

    #[test]
    fn batches_need_no_solitude_but_messages_that_the_stream_has_not() {
        let mut pipelining = Pipelining::new(true);
        for sequence in 1..=PROOF as u64 {
            pipelining.stored(2 * sequence, false);
            assert_eq!(pipelining.together(), None);
        }
        pipelining.stored(100, false);
        assert_eq!(pipelining.together(), Some(Together::Batch(WINDOW)), "whoever else writes");
        pipelining.stored(5, true);
        assert_eq!(pipelining.together(), None, "where one is there, the next may be");
        for sequence in 200..300 {
            pipelining.stored(sequence, false);
        }
        assert_eq!(pipelining.together(), Some(Together::Batch(WINDOW)));
        pipelining.without_batches();
        for sequence in 300..400 {
            pipelining.stored(sequence, false);
        }
        assert_eq!(pipelining.together(), Some(Together::Behind(399)));
    }

    /// Sends messages of which the stream has some, and takes no batch of more than `limit`; tells how many batches were refused and how many
    /// messages went one by one.
    fn send(messages: usize, has: &[usize], limit: usize) -> (usize, usize) {
        let mut pipelining = Pipelining::new(true);
        let (mut next, mut refused, mut single) = (0, 0, 0);
        while next < messages {
            match pipelining.together() {
                Some(Together::Batch(most)) if messages - next > 1 => {
                    let end = messages.min(next + most);
                    if end - next > limit || has.iter().any(|there| (next..end).contains(there)) {
                        pipelining.batch_refused(end - next);
                        refused += 1;
                    } else {
                        pipelining.batch_stored();
                        next = end;
                    }
                }
                _ => {
                    pipelining.stored(next as u64, has.contains(&next));
                    single += 1;
                    next += 1;
                }
            }
            assert!(refused + single <= 2 * messages, "no end");
        }
        (refused, single)
    }

    #[test]
    fn a_refused_batch_is_halved_until_what_refused_it_is_alone() {
        assert_eq!(send(5000, &[], WINDOW), (0, PROOF + 1));
        for there in [33, 34, 100, 532, 1031, 1032, 1033, 1500, 4999] {
            let (refused, single) = send(5000, &[there], WINDOW);
            assert!(refused <= 20, "{there}: {refused} refused");
            assert!(single <= 3 * PROOF, "{there}: {single} one by one");
        }
        let run: Vec<usize> = (1000..1500).collect();
        let (refused, single) = send(5000, &run, WINDOW);
        assert!(refused <= 20 && single <= run.len() + 3 * PROOF, "{refused} refused, {single} one by one");
    }

    #[test]
    fn a_broker_that_takes_smaller_batches_gets_them() {
        let (refused, single) = send(5000, &[], 100);
        assert!(single <= 2 * PROOF, "{single} one by one");
        assert!(refused <= 5000 / 50, "{refused} refused");
    }
}
