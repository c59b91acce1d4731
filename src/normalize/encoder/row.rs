//! The events of a row, or its dead letter.

use super::Encoder;
use crate::{
    event::DeadLetter,
    normalize::{
        row::{Images, salvage, write_images},
        table::Verb,
    },
};
use headgate_sdk::{Change, Op, Position, Relation, Unwritable};
use serde_json::json;
use std::sync::Arc;

impl Encoder {
    /// The event, or the two, of a row.
    pub(super) fn row(&mut self, change: &Change<'_>) {
        let relation = change.relation;
        let Some(table) = self.tables.get(&relation.id) else { return };
        let images = Images { before: change.before, after: change.after };
        let verb = Verb::from(change.op);
        let read = self.key.read(relation, &table.names, images.row(), change.before);
        let old = change.before.filter(|_| change.op == Op::Updated);
        let read = read.and_then(|()| {
            old.map_or(Ok(()), |before| self.other_key.read(relation, &table.names, before, change.after))
        });
        if let Err(error) = read {
            if let Some(position) = self.next_position() {
                self.bury_row(relation, position, verb, images, &error);
            }
            return;
        }
        let rekeyed = old.is_some() && self.key.json != self.other_key.json;
        if rekeyed {
            // A change of key is the end of one entity and the beginning of another, each in its own order.
            std::mem::swap(&mut self.key, &mut self.other_key);
            self.encode(
                relation,
                Verb::Deleted,
                Images { before: change.before, after: None },
                Some(b"{\"to\":"),
            );
            std::mem::swap(&mut self.key, &mut self.other_key);
            self.encode(
                relation,
                Verb::Created,
                Images { before: None, after: change.after },
                Some(b"{\"from\":"),
            );
        } else {
            self.encode(relation, verb, images, None);
        }
        if let Some(point) = self.snapshot {
            // No later row belongs to it: each stands for itself.
            self.close(Some(point.log));
        }
    }

    /// Encodes one event of a table under the key in `self.key`, up to where its end would be written.
    pub(super) fn encode(
        &mut self,
        relation: &Arc<Relation>,
        verb: Verb,
        images: Images<'_, '_>,
        rekeyed: Option<&'static [u8]>,
    ) {
        // The first half of a change of key may have met a shape that has to be accepted.
        if self.refusal.is_some() {
            return;
        }
        let Some(position) = self.next_position() else {
            // Where the stream ends within a transaction, those before it are counted as they were when they went there.
            if self.is_resumed() && self.can_be_written(relation, images) {
                self.transaction.events += 1;
            }
            return;
        };
        if self.is_turning(relation)
            && self.can_be_written(relation, images)
            && !self.turn(relation, position)
        {
            return;
        }
        self.spell_transaction();
        // The event held back is ended only when this one could be written: else it may still be the transaction's last.
        let (held_end, start) = self.begin_event();
        let style = &self.look.style;
        let Some(table) = self.tables.get_mut(&relation.id) else { return };
        let subject = table.subject(style, verb, &self.key, images.row());
        let spelling = table.spelling(verb);
        let out = &mut self.buffer;
        let text = position.text();
        out.extend_from_slice(style.form.open);
        out.extend_from_slice(&text);
        out.extend_from_slice(&spelling.head);
        style.form.key(&self.key.text, out);
        out.extend_from_slice(&self.transaction.attributes);
        out.extend_from_slice(&table.shape);
        style.form.key(&self.key.text, out);
        out.extend_from_slice(style.form.sequence);
        out.extend_from_slice(&text);
        if self.snapshot.is_none() {
            out.extend_from_slice(style.form.txindex);
            out.extend_from_slice(itoa::Buffer::new().format(self.transaction.events).as_bytes());
            out.extend_from_slice(style.form.number_end);
        } else {
            out.extend_from_slice(style.form.close);
        }
        let data_start = out.len();
        out.extend_from_slice(&spelling.data);
        out.extend_from_slice(&self.key.json);
        let written = write_images(&table.relation, &table.names, images, out);
        match written {
            Ok(()) => {
                if let Some(member) = rekeyed {
                    out.extend_from_slice(b",\"rekeyed\":");
                    out.extend_from_slice(member);
                    out.extend_from_slice(&self.other_key.json);
                    out.push(b'}');
                }
                out.push(b'}');
                self.hold(start, data_start, subject, position);
            }
            Err(error) => {
                out.truncate(held_end);
                self.bury_row(relation, position, verb, images, &error);
            }
        }
    }

    /// Whether a row's images can be an event. They are written to find out, and taken back.
    pub(super) fn can_be_written(&mut self, relation: &Relation, images: Images<'_, '_>) -> bool {
        let Some(table) = self.tables.get(&relation.id) else { return false };
        let end = self.buffer.len();
        let written = write_images(&table.relation, &table.names, images, &mut self.buffer);
        self.buffer.truncate(end);
        written.is_ok()
    }

    /// Keeps a row that cannot be an event among the dead letters.
    fn bury_row(
        &mut self,
        relation: &Relation,
        position: Position,
        verb: Verb,
        images: Images<'_, '_>,
        error: &Unwritable,
    ) {
        self.bury(DeadLetter {
            position,
            reason: "unencodable",
            detail: error.to_string(),
            table: Some(format!("{}.{}", relation.schema, relation.table)),
            content: json!({
                "op": verb.as_str(),
                "txid": self.transaction.id,
                "before": images.before.map(|row| salvage(relation, row)),
                "after": images.after.map(|row| salvage(relation, row)),
            }),
        });
    }
}
