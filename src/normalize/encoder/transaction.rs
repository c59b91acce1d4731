//! The transaction that is being told: its bounds, and the attributes that its events share.

use super::Encoder;
use crate::normalize::{context, time};
use headgate_sdk::{Position, Progress, Transaction, clock};

/// The attributes of the open transaction.
#[derive(Debug, Default)]
pub(super) struct OpenTransaction {
    pub(super) commit: u64,
    pub(super) committed_at: i64,
    pub(super) id: String,
    /// Number of the next change, dead letters counted; [`Encoder::next_position`] makes an index of it.
    pub(super) next_index: u32,
    /// Events before this index are in the stream under an earlier epoch.
    pub(super) held: u32,
    /// Events so far, dead letters not counted: the next one's `txindex`.
    pub(super) events: u32,
    /// Spelled from the end of `subject`'s key to the last attribute that the transaction decides.
    pub(super) attributes: Vec<u8>,
    /// Whether `attributes` has been spelled: it is not, for a transaction that is dropped whole.
    pub(super) spelled: bool,
    pub(super) context: Vec<(String, String)>,
    /// Between its begin and its commit.
    pub(super) is_open: bool,
}

impl Encoder {
    /// Begins a transaction.
    pub fn begin(&mut self, transaction: &Transaction) {
        let open = &mut self.transaction;
        open.commit = transaction.commit;
        open.committed_at = transaction.committed_at;
        open.id.clone_from(&transaction.id);
        open.next_index = 0;
        open.held = 0;
        open.events = 0;
        open.spelled = false;
        open.context.clear();
        open.is_open = true;
    }

    /// The first events of the open transaction are in the stream already, under an earlier epoch.
    pub fn skip(&mut self, events: u32) {
        self.transaction.held = events;
    }

    /// Ends the open transaction.
    pub fn commit(&mut self, progress: Progress) {
        if self.refusal.is_some() {
            return;
        }
        let closes_event = self.held.is_some();
        self.close(Some(progress.log));
        self.transaction.is_open = false;
        if !closes_event {
            self.progress(progress);
        }
    }

    /// Spells the attributes that the transaction decides, if they are not spelled yet.
    pub(super) fn spell_transaction(&mut self) {
        if self.transaction.spelled {
            return;
        }
        let mut out = std::mem::take(&mut self.transaction.attributes);
        out.clear();
        self.write_attributes(&[], self.transaction.is_open, &mut out);
        self.transaction.attributes = out;
        self.transaction.spelled = true;
    }

    /// Writes the attributes that the transaction decides, but for those that an event has of its `own`, and these. An event
    /// that is not `within` the transaction does not name it.
    pub(super) fn write_attributes(&self, own: &[(String, String)], within: bool, out: &mut Vec<u8>) {
        let form = &self.look.style.form;
        let transaction = &self.transaction;
        out.extend_from_slice(form.close);
        form.attribute("time", time::rfc3339(transaction.committed_at).as_str(), out);
        form.attribute("recordedtime", time::rfc3339(clock::now()).as_str(), out);
        let is_own = |name: &str| own.iter().any(|(known, _)| known == name);
        let inherited = transaction.context.iter().filter(|(name, _)| !is_own(name));
        let mut traced = false;
        for (name, value) in inherited.chain(own) {
            traced |= name == "traceparent";
            form.attribute(name, value, out);
        }
        if !traced {
            let first = Position { epoch: self.epoch, commit: transaction.commit, index: 0 };
            form.attribute(
                "traceparent",
                context::derived_traceparent(self.source_hash, first).as_str(),
                out,
            );
        }
        if within {
            form.attribute("txid", &transaction.id, out);
        }
    }
}
