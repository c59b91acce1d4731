//! What is spelled once for each version of a table, so that an event is mostly copies.

use super::{
    form::{Form, json_string},
    shapes::{Arrival, Met},
    shaping::Treatment,
    subject::{Names, Template},
};
use async_nats::Subject;
use headgate_sdk::{Cell, Op, Relation, fnv1a};
use std::{collections::HashMap, sync::Arc};

/// What an event says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// A row is there that was not.
    Created,
    /// A row changed.
    Updated,
    /// A row is gone.
    Deleted,
    /// All rows of a table are gone.
    Truncated,
    /// A row as a snapshot read it.
    Snapshot,
}

impl Verb {
    const ALL: [Self; 5] = [Self::Created, Self::Updated, Self::Deleted, Self::Truncated, Self::Snapshot];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Truncated => "truncated",
            Self::Snapshot => "snapshot",
        }
    }
}

impl From<Op> for Verb {
    fn from(op: Op) -> Self {
        match op {
            Op::Created => Self::Created,
            Op::Updated => Self::Updated,
            Op::Deleted => Self::Deleted,
            Op::Truncated => Self::Truncated,
            Op::Snapshot => Self::Snapshot,
        }
    }
}

/// The pieces of one verb's events of one table.
#[derive(Debug)]
pub(super) struct Spelling {
    verb: Verb,
    /// From the end of `id` to where the key joins `subject`.
    pub head: Vec<u8>,
    /// `"data":{` … as far as the value of `key`.
    pub data: Vec<u8>,
    /// Subjects by partition, made when first needed; unused where the template asks for more than table and verb.
    subjects: Vec<Option<Subject>>,
}

/// A version of a table, prepared.
#[derive(Debug)]
pub(super) struct Table {
    /// The relation that it was prepared from.
    pub relation: Arc<Relation>,
    /// The entity, as a token.
    pub entity: String,
    /// From after the transaction's attributes to where the key joins `partitionkey`.
    pub shape: Vec<u8>,
    /// The column names as `"name":`.
    pub names: Vec<Vec<u8>>,
    /// What the settings make of its rows, where that is anything.
    pub treatment: Option<Arc<Treatment>>,
    /// The name of this version of its shape, where the log told it.
    pub dataschema: Option<String>,
    /// What is to be done before the first event of this version.
    pub arrival: Option<Box<Arrival>>,
    /// The names of the versions of its letters, by their type, where it is an outbox.
    pub letters: HashMap<String, String>,
    spellings: [Spelling; 5],
}

/// What the spelling of a table depends on beside the table.
#[derive(Debug)]
pub struct Style {
    /// The source's name.
    pub source: String,
    /// The events' `source` attribute.
    pub uri: String,
    /// The first part of their `type`.
    pub type_prefix: String,
    /// How attributes are spelled.
    pub form: Form,
    /// Which subject an event goes to.
    pub template: Template,
    /// The number of partitions.
    pub partitions: u32,
}

impl Style {
    /// From the end of `id` to the unclosed value of `subject`.
    pub fn head(&self, entity: &str, verb: &str) -> Vec<u8> {
        let mut head = Vec::with_capacity(160);
        head.extend_from_slice(self.form.close);
        self.form.attribute("source", &self.uri, &mut head);
        self.form.attribute("type", &format!("{}.{entity}.{verb}", self.type_prefix), &mut head);
        self.form.begin("subject", entity, &mut head);
        head
    }

    /// The partition of an ordering key.
    pub fn partition(&self, entity: &str, key: &[u8]) -> u32 {
        let hash =
            if key.is_empty() { fnv1a(&[entity.as_bytes()]) } else { fnv1a(&[entity.as_bytes(), b"/", key]) };
        hash % self.partitions
    }
}

impl Table {
    /// Prepares a version of a table that is known as `entity`.
    pub(super) fn new(relation: Arc<Relation>, entity: String, style: &Style, met: Met) -> Self {
        let form = &style.form;
        let mut shape = Vec::with_capacity(160);
        form.attribute("datacontenttype", "application/json", &mut shape);
        let Met { dataschema, arrival } = met;
        if let Some(dataschema) = &dataschema {
            form.attribute("dataschema", dataschema, &mut shape);
        }
        form.begin("partitionkey", &entity, &mut shape);
        let (schema, table) = (json_string(&relation.schema), json_string(&relation.table));
        let spellings = Verb::ALL.map(|verb| {
            let mut data = Vec::with_capacity(96);
            data.extend_from_slice(if form.is_structured() {
                b",\"data\":{\"op\":\""
            } else {
                b"{\"op\":\""
            });
            data.extend_from_slice(verb.as_str().as_bytes());
            data.extend_from_slice(b"\",\"schema\":");
            data.extend_from_slice(&schema);
            data.extend_from_slice(b",\"table\":");
            data.extend_from_slice(&table);
            data.extend_from_slice(b",\"key\":");
            let bounded = if style.template.is_bounded() { style.partitions as usize } else { 0 };
            Spelling { verb, head: style.head(&entity, verb.as_str()), data, subjects: vec![None; bounded] }
        });
        let names = relation
            .columns
            .iter()
            .map(|column| {
                let mut name = json_string(&column.name);
                name.push(b':');
                name
            })
            .collect();
        Self {
            relation,
            entity,
            shape,
            names,
            spellings,
            dataschema,
            arrival,
            letters: HashMap::new(),
            treatment: None,
        }
    }

    /// The pieces for a verb.
    pub(super) fn spelling(&self, verb: Verb) -> &Spelling {
        &self.spellings[verb as usize]
    }

    /// The subject of an event.
    pub(super) fn subject(
        &mut self,
        style: &Style,
        verb: Verb,
        key: &super::key::Key,
        row: &[Cell<'_>],
    ) -> Subject {
        let partition = style.partition(&self.entity, &key.text);
        let Self { relation, entity, spellings, .. } = self;
        let spelling = &mut spellings[verb as usize];
        let fill = |verb: Verb| {
            let names = Names {
                source: &style.source,
                entity,
                verb: verb.as_str(),
                partition,
                key: key.as_str(),
                schema: &relation.schema,
                table: &relation.table,
            };
            Subject::from(style.template.fill(names, Some(relation), row))
        };
        match spelling.subjects.get_mut(partition as usize) {
            Some(Some(subject)) => subject.clone(),
            Some(empty) => empty.insert(fill(spelling.verb)).clone(),
            None => fill(spelling.verb),
        }
    }
}
