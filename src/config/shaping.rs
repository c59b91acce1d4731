//! What a source's settings make of its rows and messages, before they are events.

use crate::condition::Condition;
use std::collections::BTreeMap;

/// The settings of a source that decide what is told of a row, and which events of other kinds it becomes.
#[derive(Clone, Debug)]
pub struct Shaping {
    /// `[sources.NAME.columns.TABLE]`
    pub columns: Vec<ColumnRule>,
    /// `mask_salt`: the key of `hash`.
    pub mask_salt: Option<Salt>,
    /// `[[sources.NAME.outbox]]`
    pub outboxes: Vec<Outbox>,
    /// `[[sources.NAME.event]]`
    pub events: Vec<SemanticEvent>,
    /// `messages`: globs on the prefixes that become events; a leading `!` excludes.
    pub messages: Vec<String>,
}

impl Default for Shaping {
    /// Rows as they are, and every message.
    fn default() -> Self {
        Self {
            columns: Vec::new(),
            mask_salt: None,
            outboxes: Vec::new(),
            events: Vec::new(),
            messages: vec!["*".to_owned()],
        }
    }
}

/// The key of `hash`. A secret: its `Debug` does not show it.
#[derive(Clone)]
pub struct Salt(String);

impl Salt {
    /// A salt.
    #[must_use]
    pub fn new(salt: String) -> Self {
        Self(salt)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt(…)")
    }
}

/// `[sources.NAME.columns.TABLE]`: which columns of a table are told, and how.
#[derive(Clone, Debug)]
pub struct ColumnRule {
    /// `schema.table`, or a glob on it.
    pub table: String,
    /// Only these columns, if anything is said.
    pub include: Option<Vec<String>>,
    /// Not these.
    pub exclude: Vec<String>,
    /// How the values of columns are hidden.
    pub mask: BTreeMap<String, Mask>,
}

impl ColumnRule {
    /// Whether it is meant for one table, rather than for all that a glob matches.
    #[must_use]
    pub fn names_one_table(&self) -> bool {
        !self.table.contains(['*', '?'])
    }
}

/// How a value is hidden. NULL stays NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// HMAC-SHA-256 of the value's text under the source's salt, in hexadecimal: equal values stay equal.
    Hash,
    /// The same text for every value.
    Redact,
    /// The first characters of the value's text.
    Truncate(usize),
}

/// `[[sources.NAME.outbox]]`: a table whose inserts are events of their own kinds. A column that is not named is looked for
/// under its usual name.
#[derive(Clone, Debug)]
pub struct Outbox {
    /// `schema.table`.
    pub table: String,
    /// The event's id.
    pub id: Option<String>,
    /// What the event is about.
    pub entity: Option<String>,
    /// What happened.
    pub kind: Option<String>,
    /// The ordering key.
    pub key: Option<String>,
    /// The event's data.
    pub payload: Option<String>,
    /// A JSON object of attributes.
    pub headers: Option<String>,
}

/// `[[sources.NAME.event]]`: an event that a row change means.
#[derive(Clone, Debug)]
pub struct SemanticEvent {
    /// What it is about: the name up to its last dot.
    pub entity: String,
    /// What happened: the rest.
    pub verb: String,
    /// `schema.table`.
    pub table: String,
    /// When a change is that event.
    pub when: Condition,
    /// Whether it takes the place of the row's event.
    pub instead: bool,
    /// The columns that are its key; without them those of the table.
    pub key: Option<Vec<String>>,
    /// The members of its data; without them the data of the row's event.
    pub data: Option<Vec<Member>>,
}

impl SemanticEvent {
    /// `entity.verb`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.entity, self.verb)
    }
}

/// A member of a semantic event's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Whether it is of the old row.
    pub before: bool,
    /// The column that it is taken from.
    pub column: String,
}
