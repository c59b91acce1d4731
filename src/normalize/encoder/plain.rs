//! Events that are no row's: logical messages, gaps, and what a schema event has in common with them.

use super::{Encoder, transaction::OpenTransaction, unfinished::Held};
use crate::{
    event::DeadLetter,
    normalize::{context, message, subject::Names},
};
use async_nats::Subject;
use headgate_sdk::{CONTEXT_PREFIX, Gap, Message, Position, Relation, RowFault, clock};
use serde_json::json;

impl Encoder {
    /// Tells of lost history, as an event of the epoch that begins with it; returns its position.
    pub fn gap(&mut self, epoch: u16, gap: &Gap) -> Position {
        self.epoch = epoch;
        self.transaction =
            OpenTransaction { commit: gap.to.log, committed_at: clock::now(), ..OpenTransaction::default() };
        let position = Position { epoch, commit: gap.to.log, index: 0 };
        let data = json!({
            "op": "gap",
            "reason": gap.reason,
            "from": gap.from.map(|from| json!({ "epoch": from.epoch, "log": format!("{:016x}", from.log) })),
            "to": { "epoch": gap.to.epoch, "log": format!("{:016x}", gap.to.log) },
            "bytes": gap.from.filter(|from| from.log <= gap.to.log).map(|from| gap.to.log - from.log),
        });
        self.last = Some(position);
        self.encode_plain("headgate", "gap", position, data.to_string().as_bytes(), None);
        self.close(Some(gap.to.log));
        position
    }

    /// A logical message, inside the open transaction or standing alone.
    pub fn message(&mut self, message: &Message<'_>) {
        if self.refusal.is_some() {
            return;
        }
        if message.transactional && message.prefix == CONTEXT_PREFIX {
            match context::parse(message.content) {
                Ok(attributes) => {
                    self.transaction.context = attributes;
                    self.transaction.spelled = false;
                }
                Err(error) => tracing::warn!(
                    source = self.look.style.source,
                    transaction = self.transaction.id,
                    "a {} message sets nothing: {error}",
                    CONTEXT_PREFIX
                ),
            }
            return;
        }
        if !self.look.shaping.tells_message(message.prefix) {
            return;
        }
        self.metrics.received.inc();
        if !message.transactional {
            self.transaction = OpenTransaction {
                commit: message.position,
                committed_at: clock::now(),
                ..OpenTransaction::default()
            };
        }
        let position = self.next_position();
        if message.prefix.len() > message::MAX_PREFIX {
            if let Some(position) = position {
                self.bury_message(message, position);
            }
            return;
        }
        if let Some(position) = position {
            let (entity, verb) = message::name(message.prefix);
            self.encode_plain(&entity, &verb, position, &message::data(message), None);
        }
        self.transaction.events += 1;
        if !message.transactional {
            self.close(Some(message.position));
        }
    }

    /// A row that cannot be read.
    pub fn reject(&mut self, fault: &RowFault) {
        if self.refusal.is_some() {
            return;
        }
        self.metrics.received.inc();
        let Some(position) = self.next_position() else { return };
        self.bury(DeadLetter {
            position,
            reason: "too-large",
            detail: fault.reason.clone(),
            table: fault.table.clone(),
            content: json!({ "txid": self.transaction.id, "size": fault.size }),
        });
    }

    /// Keeps what can be kept of a message whose name is too long for a subject.
    pub(super) fn bury_message(&mut self, message: &Message<'_>, position: Position) {
        let start: String = message.prefix.chars().take(80).collect();
        self.bury(DeadLetter {
            position,
            reason: "unencodable",
            detail: format!(
                "the prefix of a message has {} bytes, more than {}",
                message.prefix.len(),
                message::MAX_PREFIX
            ),
            table: None,
            content: json!({ "txid": self.transaction.id, "prefix": start, "size": message.content.len() }),
        });
    }

    /// Encodes an event that is not a row's: a logical message, a gap, the new shape `of` a table. The latter stands outside
    /// the open transaction: it does not name it, and is not counted in it.
    pub(super) fn encode_plain(
        &mut self,
        entity: &str,
        verb: &str,
        position: Position,
        data: &[u8],
        of: Option<&Relation>,
    ) {
        self.close(None);
        self.spell_transaction();
        let mut own = Vec::new();
        if of.is_some() {
            self.write_attributes(&[], false, &mut own);
        }
        let attributes = if of.is_some() { &own } else { &self.transaction.attributes };
        let style = &self.look.style;
        let partition = style.partition(entity, b"");
        let subject = style.template.fill(
            Names {
                source: &style.source,
                entity,
                verb,
                partition,
                key: "",
                schema: of.map_or("", |relation| &relation.schema),
                table: of.map_or("", |relation| &relation.table),
            },
            None,
            &[],
        );
        let start = self.buffer.len();
        let out = &mut self.buffer;
        let text = position.text();
        out.extend_from_slice(style.form.open);
        out.extend_from_slice(&text);
        out.extend_from_slice(&style.head(entity, verb));
        out.extend_from_slice(attributes);
        style.form.attribute("datacontenttype", "application/json", out);
        style.form.begin("partitionkey", entity, out);
        if of.is_none() && self.transaction.is_open {
            style.form.order(&text, self.transaction.events, out);
        } else {
            out.extend_from_slice(style.form.sequence);
            out.extend_from_slice(&text);
            out.extend_from_slice(style.form.close);
        }
        let data_start = out.len();
        if style.form.is_structured() {
            out.extend_from_slice(b",\"data\":");
        }
        out.extend_from_slice(data);
        // In a snapshot the row behind it has not been told yet, which `places` says it is; and nothing was committed.
        let (places, committed_at) = match self.snapshot {
            Some(_) => (&self.places_before, 0),
            None => (&self.places, self.transaction.committed_at),
        };
        self.streamed = Some(position);
        self.held = Some(Held {
            start,
            data_start,
            data_end: out.len(),
            subject: Subject::from(subject),
            position,
            committed_at,
            places: places.clone(),
        });
    }
}
