//! The subject template: which subject an event is published on.

use super::encode;
use headgate_sdk::{Cell, Relation};

/// One piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Source,
    Entity,
    Verb,
    Partition,
    Key,
    Schema,
    Table,
    Column(String),
}

/// A parsed subject template such as `events.{source}.{entity}.{verb}.{partition}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// What a template is filled with.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The entity, already a token.
    pub entity: &'a str,
    /// The verb, already a token.
    pub verb: &'a str,
    /// The partition number.
    pub partition: u32,
    /// The key text, percent-encoded.
    pub key: &'a str,
    /// The table's schema.
    pub schema: &'a str,
    /// The table.
    pub table: &'a str,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').ok_or("a `{` without its `}`")? + open;
            if open > 0 {
                pieces.push(Piece::Text(rest[..open].to_owned()));
            }
            pieces.push(match &rest[open + 1..close] {
                "source" => Piece::Source,
                "entity" => Piece::Entity,
                "verb" => Piece::Verb,
                "partition" => Piece::Partition,
                "key" => Piece::Key,
                "schema" => Piece::Schema,
                "table" => Piece::Table,
                other => match other.strip_prefix("column:") {
                    Some(column) if !column.is_empty() => Piece::Column(column.to_owned()),
                    _ => return Err(format!("unknown placeholder `{{{other}}}`")),
                },
            });
            rest = &rest[close + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { pieces })
    }

    /// Whether a subject depends on no more than table, verb and partition, so that it can be made once.
    pub fn is_bounded(&self) -> bool {
        !self.pieces.iter().any(|piece| matches!(piece, Piece::Key | Piece::Column(_)))
    }

    /// What the subjects of a verb, and of an entity if one is given, have in common; `None` where no token of the template says
    /// which they are: a part of a token cannot be asked for.
    pub fn filter(&self, source: &str, entity: Option<&str>, verb: &str) -> Option<String> {
        let of = |entity: &str, verb: &str| {
            let mut subject = String::with_capacity(96);
            for piece in &self.pieces {
                subject.push_str(match piece {
                    Piece::Text(text) => text,
                    Piece::Source => source,
                    Piece::Verb => verb,
                    Piece::Entity => entity,
                    // No value has a star of its own.
                    Piece::Partition | Piece::Key | Piece::Schema | Piece::Table | Piece::Column(_) => "*",
                });
            }
            let tokens = subject.split('.').map(|token| if token.contains('*') { "*" } else { token });
            tokens.collect::<Vec<_>>().join(".")
        };
        let wanted = of(entity.unwrap_or("*"), verb);
        let says_verb = wanted != of(entity.unwrap_or("*"), "");
        let says_entity = entity.is_none() || wanted != of("", verb);
        (says_verb && says_entity).then_some(wanted)
    }

    /// Fills the template. `row` is what `{column:NAME}` reads; a column that it does not have, or that is null, reads
    /// as `%`, which no value is encoded as.
    pub fn fill(&self, names: Names<'_>, relation: Option<&Relation>, row: &[Cell<'_>]) -> String {
        let mut subject = String::with_capacity(96);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => subject.push_str(text),
                Piece::Source => subject.push_str(names.source),
                Piece::Entity => subject.push_str(names.entity),
                Piece::Verb => subject.push_str(names.verb),
                Piece::Partition => subject.push_str(&names.partition.to_string()),
                Piece::Key => subject.push_str(&encode::key_token(names.key)),
                Piece::Schema => subject.push_str(&encode::token(names.schema)),
                Piece::Table => subject.push_str(&encode::token(names.table)),
                Piece::Column(name) => {
                    let value =
                        relation.and_then(|relation| column_text(relation, row, name)).unwrap_or_default();
                    subject.push_str(&encode::token(&value));
                }
            }
        }
        subject
    }
}

fn column_text(relation: &Relation, row: &[Cell<'_>], name: &str) -> Option<String> {
    let index = relation.columns.iter().position(|column| column.name == name)?;
    let Some(Cell::Value(raw)) = row.get(index) else { return None };
    let mut json = Vec::new();
    relation.columns[index].writer.write(raw, &mut json).ok()?;
    Some(super::key::plain(&json).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NAMES: Names<'_> = Names {
        source: "shop",
        entity: "orders",
        verb: "created",
        partition: 7,
        key: "a.b%2Cc",
        schema: "public",
        table: "orders",
    };

    #[test]
    fn fills_its_placeholders() {
        let template = Template::parse("events.{source}.{entity}.{verb}.{partition}").unwrap();
        assert!(template.is_bounded());
        assert_eq!(template.fill(NAMES, None, &[]), "events.shop.orders.created.7");
        let template = Template::parse("events.{source}.{schema}.{table}.{key}.{column:tenant}").unwrap();
        assert!(!template.is_bounded());
        assert_eq!(template.fill(NAMES, None, &[]), "events.shop.public.orders.a%2Eb%2Cc.%");
    }

    #[test]
    fn means_the_subjects_of_a_verb() {
        let filter =
            |template: &str, entity| Template::parse(template).unwrap().filter("shop", entity, "schema");
        let default = "events.{source}.{entity}.{verb}.{partition}";
        assert_eq!(filter(default, None).as_deref(), Some("events.shop.*.schema.*"));
        assert_eq!(filter(default, Some("orders")).as_deref(), Some("events.shop.orders.schema.*"));
        let parts = "events.{source}.{table}.p{partition}-{key}.{verb}";
        assert_eq!(filter(parts, None).as_deref(), Some("events.shop.*.*.schema"));
        assert_eq!(filter(parts, Some("orders")), None);
        for template in ["events.{source}.{entity}", "events.{source}.{entity}.{verb}-{partition}.{key}"] {
            assert_eq!(filter(template, None), None, "{template}");
        }
        let joined = "events.{source}.v-{verb}.{entity}{partition}";
        assert_eq!(filter(joined, None).as_deref(), Some("events.shop.v-schema.*"));
        assert_eq!(filter(joined, Some("orders")), None);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(Template::parse("a.{verbs}"), Err("unknown placeholder `{verbs}`".to_owned()));
        assert!(Template::parse("a.{verb").is_err());
        assert!(Template::parse("a.{column:}").is_err());
    }
}
