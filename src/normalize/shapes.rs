//! Which shape each table has, and what has to be done where that changes.
//!
//! A version is met when the first row of it is told, also of rows that the stream holds already; it arrives with the first
//! event of it that the stream does not hold. What has arrived is noted, for the runs after this one.

use super::shaping::Role;
use crate::{
    config::OnIncompatible,
    schema::{
        Envelope, Known, Note, Shape, Turn, Version,
        compare::{self, Difference, is_compatible},
        uri,
    },
};
use headgate_sdk::{Position, Relation};
use std::sync::Arc;

/// Types of letters that have versions of their own, in one source, whichever run met them: a type is part of a subject, and a
/// name. An outbox whose types are as many as its rows must not fill the registry.
const LETTER_TYPES: usize = 256;

/// The shapes of one source's tables.
#[derive(Debug)]
pub struct Shapes {
    on_incompatible: OnIncompatible,
    source: String,
    known: Known,
    versions: Vec<Version>,
    notes: Vec<Note>,
}

/// What a table is prepared with.
#[derive(Debug, Default)]
pub(super) struct Met {
    /// The name of the version.
    pub dataschema: Option<String>,
    /// What is to be done before the first event of it.
    pub arrival: Option<Box<Arrival>>,
}

/// A shape that the table's events did not have until now.
#[derive(Debug)]
pub(super) struct Arrival {
    /// `schema.table`
    pub table: String,
    /// The shape that they had; `None`: none is known.
    pub before: Option<Shape>,
    version: Version,
    shape: Shape,
}

/// A change of shape that is to be told.
#[derive(Debug)]
pub(super) struct Change {
    /// The name of the version before.
    pub from: String,
    /// What changed.
    pub differences: Vec<Difference>,
    /// The shape from now on.
    pub shape: Shape,
}

/// A change of shape that has to be accepted first.
#[derive(Debug)]
pub(super) struct Refused {
    /// What changed, for people.
    pub changes: String,
}

impl Shapes {
    /// With what the runs before this one left.
    #[must_use]
    pub fn new(source: &str, on_incompatible: OnIncompatible, known: Known) -> Self {
        Self { on_incompatible, source: source.to_owned(), known, versions: Vec::new(), notes: Vec::new() }
    }

    /// The shape that the events of a table had until now, if one is known.
    pub(super) fn before(&self, relation: &Relation) -> Option<&Shape> {
        self.known.shapes.get(&format!("{}.{}", relation.schema, relation.table))
    }

    /// A version of a table, as it is told, before its first row.
    pub(super) fn meet(&mut self, entity: &str, told: &Arc<Relation>, role: Option<&Role>) -> Met {
        // A truncation of a table that the log never described.
        if told.columns.is_empty() {
            return Met::default();
        }
        match role {
            Some(Role::Outbox(_)) => {
                let version = Version::of_outbox(&self.source, entity, told);
                let dataschema = Some(version.uri());
                self.versions.push(version);
                return Met { dataschema, arrival: None };
            }
            Some(Role::Rows(events)) => {
                self.versions.extend(events.iter().filter_map(|event| event.version.clone()));
            }
            None => {}
        }
        let table = format!("{}.{}", told.schema, told.table);
        let before = self.known.shapes.get(&table).cloned();
        let shape = Shape::following(before.as_ref(), told);
        let version = Version::of_table(&self.source, entity, told, &shape);
        let dataschema = Some(version.uri());
        if before.as_ref() == Some(&shape) {
            self.versions.push(version);
            return Met { dataschema, arrival: None };
        }
        // Rows that the stream holds already may be described otherwise than they were when they went there: the catalog does
        // not know what was dropped since. So the version is one only with its first event.
        let arrival = Some(Box::new(Arrival { table, before, version, shape }));
        Met { dataschema, arrival }
    }

    /// A type of letters, before the first of them; gives the name of the version. `None`: there are so many that they are no
    /// names.
    pub(super) fn meet_letter(&mut self, name: &str, envelope: impl FnOnce() -> Envelope) -> Option<String> {
        let letters = &mut self.known.letters;
        if !letters.contains(name) {
            if letters.len() >= LETTER_TYPES {
                return None;
            }
            letters.insert(name.to_owned());
        }
        let version = Version::of_letter(&self.source, name, &envelope());
        let dataschema = version.uri();
        self.versions.push(version);
        Some(dataschema)
    }

    /// The first event of a shape is about to be told; what has to be told of it before, if anything. `since` is the
    /// position of the first of them.
    ///
    /// # Errors
    /// It has to be accepted first.
    pub(super) fn arrive(&mut self, arrival: &Arrival, since: Position) -> Result<Option<Change>, Refused> {
        let Arrival { table, before, version, shape } = arrival;
        self.versions.push(version.clone());
        let differences =
            before.as_ref().map(|before| compare::differences(before, shape)).unwrap_or_default();
        let is_accepted = self.known.accepted.get(table) == Some(&shape.hash(""));
        if self.on_incompatible == OnIncompatible::Stop && !is_accepted && !is_compatible(&differences) {
            let changes: Vec<String> = differences.iter().map(ToString::to_string).collect();
            let refused = Refused { changes: changes.join("; ") };
            self.note(table, shape, Turn::Waits(changes));
            return Err(refused);
        }
        if !is_accepted && !differences.is_empty() {
            // What was accepted was one change, not every one to that shape from then on.
            self.known.accepted.remove(table);
        }
        self.note(table, shape, Turn::Told(since));
        self.known.shapes.insert(table.clone(), shape.clone());
        // Columns in another order are another version, and nothing that anybody could see.
        let seen = before.as_ref().filter(|_| !differences.is_empty());
        Ok(seen.map(|before| Change {
            from: uri(&self.source, &version.entity, &before.hash("")),
            differences,
            shape: shape.clone(),
        }))
    }

    fn note(&mut self, table: &str, shape: &Shape, turn: Turn) {
        self.notes.push(Note { table: table.to_owned(), shape: shape.clone(), turn });
    }

    /// What was met and found out since this was last asked.
    pub(super) fn take(&mut self) -> (Vec<Version>, Vec<Note>) {
        (std::mem::take(&mut self.versions), std::mem::take(&mut self.notes))
    }
}
