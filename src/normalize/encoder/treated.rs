//! Rows of tables that settings say more about: columns hidden, outboxes, semantic events.

use super::{Encoder, Treatment};
use crate::{
    event::DeadLetter,
    normalize::{
        outbox::{Body, Letter, Outbox},
        row::{Images, salvage, write_images},
        semantic::{Asked, Semantic},
        shaping::Role,
        subject::Names,
        table::Verb,
    },
};
use async_nats::Subject;
use headgate_sdk::{Cell, Change, Op, Position, Relation, Unwritable};
use serde_json::json;

impl Encoder {
    /// One change of a table whose rows are not told as they are.
    pub(super) fn treated(&mut self, treatment: &Treatment, change: &Change<'_>) {
        let Some(view) = &treatment.view else { return self.told(&treatment.role, change) };
        let before = change.before.map(|row| view.row(row));
        let after = change.after.map(|row| view.row(row));
        self.told(
            &treatment.role,
            &Change {
                relation: &view.relation,
                op: change.op,
                before: before.as_deref(),
                after: after.as_deref(),
            },
        );
    }

    /// One change as it is told.
    fn told(&mut self, role: &Role, change: &Change<'_>) {
        match role {
            Role::Rows(events) => self.row_and_meaning(events, change),
            Role::Outbox(outbox) => {
                if let (Op::Created, Some(row)) = (change.op, change.after) {
                    self.letter(outbox, change, row);
                }
            }
        }
    }

    fn letter(&mut self, outbox: &Outbox, change: &Change<'_>, row: &[Cell<'_>]) {
        let position = self.next_position();
        let relation = &**change.relation;
        let letter = outbox.read(relation, row, &self.look.style.source);
        let Some(position) = position else {
            self.count_skipped(letter.is_ok());
            return;
        };
        match letter {
            Ok(letter) => {
                let dataschema = self.letter_version(outbox, &letter, relation);
                self.encode_letter(&letter, dataschema.as_deref(), relation, row, position);
            }
            Err(error) => self.dead_letter(
                position,
                "outbox",
                format!("an outbox row is no event: {error}"),
                change,
                None,
            ),
        }
    }

    /// The name of the version of a letter: that of its type, or of the whole outbox where types seem to be no names.
    fn letter_version(&mut self, outbox: &Outbox, letter: &Letter, relation: &Relation) -> Option<String> {
        let table = self.tables.get_mut(&relation.id)?;
        let name = format!("{}.{}", letter.entity, letter.verb);
        if let Some(known) = table.letters.get(&name) {
            return Some(known.clone());
        }
        let Some(dataschema) = self.shapes.meet_letter(&name, || outbox.envelope(relation)) else {
            return table.dataschema.clone();
        };
        table.letters.insert(name, dataschema.clone());
        Some(dataschema)
    }

    /// The row's own event, unless one that is meant takes its place, then those that are meant.
    fn row_and_meaning(&mut self, events: &[Semantic], change: &Change<'_>) {
        let Change { relation, op, before, after } = *change;
        let asked = Asked { op, relation, before, after };
        let answers: Vec<_> = events.iter().map(|event| event.is_meant_by(asked)).collect();
        let replaced =
            events.iter().zip(&answers).any(|(event, answer)| event.instead && *answer == Ok(true));
        if !replaced {
            self.row(change);
        }
        for (event, answer) in events.iter().zip(answers) {
            if self.refusal.is_some() {
                return;
            }
            match answer {
                Ok(false) => {}
                Ok(true) => {
                    let Some(position) = self.next_position() else {
                        let written = self.is_resumed() && self.can_be_meant(event, asked);
                        self.count_skipped(written);
                        continue;
                    };
                    if self.is_turning(relation)
                        && self.can_be_meant(event, asked)
                        && !self.turn(relation, position)
                    {
                        return;
                    }
                    if let Err(error) = self.encode_semantic(event, asked, position) {
                        let detail = format!("event {}: {error}", event.name());
                        self.dead_letter(position, "unencodable", detail, change, Some(event));
                    }
                }
                Err(reason) => {
                    let Some(position) = self.next_position() else { continue };
                    let detail = format!("the condition of {} failed: {reason}", event.name());
                    self.dead_letter(position, "condition", detail, change, Some(event));
                }
            }
        }
    }

    /// Counts an event that the stream holds already, as it was counted when it went there.
    fn count_skipped(&mut self, was_event: bool) {
        if was_event && self.is_resumed() {
            self.transaction.events += 1;
        }
    }

    /// Whether a semantic event can be written. It is written to find out, and taken back.
    fn can_be_meant(&mut self, event: &Semantic, asked: Asked<'_, '_>) -> bool {
        let Some(table) = self.tables.get(&asked.relation.id) else { return false };
        let row = asked.after.or(asked.before).unwrap_or_default();
        let key = match event.read_key(&mut self.key, &table.names, asked) {
            Ok(false) => self.key.read(asked.relation, &table.names, row, asked.before),
            read => read.map(|_| ()),
        };
        if !event.selects_data() {
            let images = Images { before: asked.before, after: asked.after };
            return key.is_ok() && self.can_be_written(asked.relation, images);
        }
        let end = self.buffer.len();
        let written = event.write_data(asked, &mut self.buffer);
        self.buffer.truncate(end);
        key.is_ok() && written.is_ok()
    }

    fn encode_semantic(
        &mut self,
        event: &Semantic,
        asked: Asked<'_, '_>,
        position: Position,
    ) -> Result<(), Unwritable> {
        let Some(table) = self.tables.get(&asked.relation.id) else { return Ok(()) };
        let row = asked.after.or(asked.before).unwrap_or_default();
        if !event.read_key(&mut self.key, &table.names, asked)? {
            self.key.read(asked.relation, &table.names, row, asked.before)?;
        }
        self.spell_transaction();
        let (held_end, start) = self.begin_event();
        let Some(table) = self.tables.get(&asked.relation.id) else { return Ok(()) };
        let style = &self.look.style;
        let subject = style.template.fill(
            Names {
                source: &style.source,
                entity: &event.entity,
                verb: &event.verb,
                partition: style.partition(&event.entity, &self.key.text),
                key: self.key.as_str(),
                schema: &asked.relation.schema,
                table: &asked.relation.table,
            },
            Some(asked.relation),
            row,
        );
        let out = &mut self.buffer;
        let text = position.text();
        out.extend_from_slice(style.form.open);
        out.extend_from_slice(&text);
        out.extend_from_slice(&event.head);
        style.form.key(&self.key.text, out);
        out.extend_from_slice(&self.transaction.attributes);
        style.form.attribute("datacontenttype", "application/json", out);
        if let Some(dataschema) = &event.dataschema {
            style.form.attribute("dataschema", dataschema, out);
        }
        style.form.begin("partitionkey", &event.entity, out);
        style.form.key(&self.key.text, out);
        style.form.order(&text, self.transaction.events, out);
        let data_start = out.len();
        let written = if event.selects_data() {
            if style.form.is_structured() {
                out.extend_from_slice(b",\"data\":");
            }
            event.write_data(asked, out)
        } else {
            // The same as the row's own data, but for the key that may be another.
            out.extend_from_slice(&table.spelling(Verb::from(asked.op)).data);
            out.extend_from_slice(&self.key.json);
            let images = Images { before: asked.before, after: asked.after };
            write_images(asked.relation, &table.names, images, out).map(|()| out.push(b'}'))
        };
        if let Err(error) = written {
            self.buffer.truncate(held_end);
            return Err(error);
        }
        self.hold(start, data_start, Subject::from(subject), position);
        Ok(())
    }

    fn encode_letter(
        &mut self,
        letter: &Letter,
        dataschema: Option<&str>,
        relation: &Relation,
        row: &[Cell<'_>],
        position: Position,
    ) {
        let mut attributes = Vec::new();
        self.write_attributes(&letter.attributes, self.transaction.is_open, &mut attributes);
        let (_, start) = self.begin_event();
        let style = &self.look.style;
        let form = &style.form;
        let key = std::str::from_utf8(&letter.key).unwrap_or_default();
        let subject = style.template.fill(
            Names {
                source: &style.source,
                entity: &letter.entity,
                verb: &letter.verb,
                partition: style.partition(&letter.entity, &letter.key),
                key,
                schema: &relation.schema,
                table: &relation.table,
            },
            Some(relation),
            row,
        );
        let out = &mut self.buffer;
        let text = position.text();
        out.extend_from_slice(form.open);
        match &letter.id {
            Some(id) => form.value(id, out),
            None => out.extend_from_slice(&text),
        }
        out.extend_from_slice(&style.head(&letter.entity, &letter.verb));
        form.key(&letter.key, out);
        out.extend_from_slice(&attributes);
        let content_type = match &letter.body {
            Body::Json(_) => "application/json",
            Body::Text(_) => "text/plain; charset=utf-8",
            Body::Base64(_) => "application/octet-stream",
        };
        form.attribute("datacontenttype", content_type, out);
        if let Some(dataschema) = dataschema {
            form.attribute("dataschema", dataschema, out);
        }
        form.begin("partitionkey", &letter.entity, out);
        form.key(&letter.key, out);
        form.order(&text, self.transaction.events, out);
        let data_start = out.len();
        letter.body.write(form, out);
        self.hold(start, data_start, Subject::from(subject), position);
    }

    fn dead_letter(
        &mut self,
        position: Position,
        reason: &'static str,
        detail: String,
        change: &Change<'_>,
        event: Option<&Semantic>,
    ) {
        let relation = &**change.relation;
        let mut content = json!({
            "op": Verb::from(change.op).as_str(),
            "txid": self.transaction.id,
            "before": change.before.map(|row| salvage(relation, row)),
            "after": change.after.map(|row| salvage(relation, row)),
        });
        if let Some(event) = event {
            content["event"] = json!(event.name());
        }
        self.bury(DeadLetter {
            position,
            reason,
            detail,
            table: Some(format!("{}.{}", relation.schema, relation.table)),
            content,
        });
    }
}
