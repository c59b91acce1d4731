//! One event as one line for people: when, what, where, what changed, how late.
//!
//! What comes from a database is shown without control characters, so that a row cannot command the terminal.

use super::event::{Attributes, Structured};
use crate::cli::paint::Paint;
use async_nats::jetstream::Message;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::fmt;

/// Longest value shown.
const VALUE: usize = 32;
/// Longest text shown where there is no row.
const SENTENCE: usize = 120;
/// Most columns shown.
const COLUMNS: usize = 4;
/// Widest subject that others are aligned to.
const WIDEST: usize = 40;

/// Shows events, aligned to the widest subject so far.
pub(super) struct Lines {
    paint: Paint,
    width: usize,
}

impl Lines {
    pub(super) fn new(paint: Paint) -> Self {
        Self { paint, width: 16 }
    }

    pub(super) fn show(&mut self, message: &Message, event: &Structured) -> String {
        let attributes = event.attributes();
        let source = message.subject.split('.').nth(1).unwrap_or_default();
        let stored_ms = message.info().ok().map(|info| info.published.unix_timestamp_nanos() / 1_000_000);
        self.line(source, &attributes, stored_ms)
    }

    fn line(&mut self, source: &str, event: &Attributes<'_>, stored_ms: Option<i128>) -> String {
        let time = event.time.as_deref().unwrap_or_default();
        let verb = safe(event.kind.rsplit('.').next().unwrap_or_default(), VALUE);
        let subject = safe(&format!("{source} {}", event.subject), 200);
        self.width = self.width.max(subject.chars().count()).min(WIDEST);
        let verb_padded = format!("{verb:<9}");
        let painted = match verb.as_str() {
            "created" | "snapshot" => self.paint.green(&verb_padded),
            "updated" => self.paint.yellow(&verb_padded),
            "deleted" | "truncated" | "gap" => self.paint.red(&verb_padded),
            _ => self.paint.bold(&verb_padded),
        };
        let width = self.width;
        let clock = safe(time.get(11..23).unwrap_or(time), 12);
        let mut line = format!("{} {painted} {subject:<width$}", self.paint.dim(&format!("{clock:<12}")));
        let difference = match (&event.data, &event.dataref) {
            (Some(data), _) => difference(data),
            (None, Some(elsewhere)) => format!("data: {}", safe(elsewhere, SENTENCE)),
            (None, None) => String::new(),
        };
        if !difference.is_empty() {
            line.push_str("  ");
            line.push_str(&difference);
        }
        if let (Some(stored), Ok(committed)) = (stored_ms, time.parse::<jiff::Timestamp>()) {
            let lag = (stored - i128::from(committed.as_millisecond())).max(0);
            line.push_str("  ");
            line.push_str(&self.paint.dim(&format!("+{lag} ms")));
        }
        let mut line = line.trim_end().to_owned();
        line.push('\n');
        line
    }
}

/// An object's members as they were published: in their order, each value to the letter.
#[derive(Default)]
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

impl<'a> Members<'a> {
    /// `None`: the value is no object.
    fn of(value: &'a RawValue) -> Option<Self> {
        serde_json::from_str(value.get()).ok()
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| *value)
    }

    fn object(&self, name: &str) -> Option<Self> {
        self.get(name).and_then(Self::of)
    }

    /// All of them in a few words, but those that are in `key` too.
    fn told(&self, key: &Self) -> Vec<String> {
        let rest = self.0.iter().filter(|(name, _)| key.get(name).is_none());
        rest.map(|(name, value)| format!("{}: {}", safe(name, VALUE), short(value))).collect()
    }
}

/// What changed, in a few words.
fn difference(data: &RawValue) -> String {
    let shown = match Members::of(data) {
        Some(members) => of_object(&members),
        None if data.get() == "null" => Vec::new(),
        None => vec![shown(data, SENTENCE)],
    };
    let more = shown.len().saturating_sub(COLUMNS);
    let mut text = shown.into_iter().take(COLUMNS).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(", +{more}"));
    }
    text
}

fn of_object(members: &Members<'_>) -> Vec<String> {
    match (members.object("before"), members.object("after")) {
        (Some(before), Some(after)) => {
            let differs = after.0.iter().filter_map(|(column, value)| {
                before.get(column).filter(|old| old.get() != value.get()).map(|old| (column, old, value))
            });
            differs
                .map(|(column, old, value)| {
                    format!("{}: {} → {}", safe(column, VALUE), short(old), short(value))
                })
                .collect()
        }
        (None, Some(row)) | (Some(row), None) => row.told(&members.object("key").unwrap_or_default()),
        // A new shape, each change of which is text.
        (None, None) if members.get("op").is_some_and(|op| op.get() == "\"schema\"") => {
            let changes: Vec<&RawValue> = members
                .get("changes")
                .and_then(|changes| serde_json::from_str(changes.get()).ok())
                .unwrap_or_default();
            changes.into_iter().map(|change| shown(change, SENTENCE)).collect()
        }
        // A dead letter, a gap, a message.
        (None, None) => match ["detail", "reason", "content"].iter().find_map(|name| members.get(name)) {
            Some(said) => vec![shown(said, SENTENCE)],
            // A truncate has the members of a row's event, but no row.
            None if members.get("after").is_some_and(|after| after.get() == "null") => Vec::new(),
            // A semantic event, an outbox's: the members are the writer's own.
            None => members.told(&Members::default()),
        },
    }
}

fn short(value: &RawValue) -> String {
    shown(value, VALUE)
}

/// A text without its quotes, anything else as it was published.
fn shown(value: &RawValue, longest: usize) -> String {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => safe(&text, longest),
        Err(_) => safe(value.get(), longest),
    }
}

/// The text without control characters, cut to a length.
pub(super) fn safe(text: &str, longest: usize) -> String {
    // Directional marks and the like reorder what stands beside them.
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut out: String = text.chars().take(longest).map(|c| if hidden(c) { '·' } else { c }).collect();
    if text.chars().nth(longest).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn show(kind: &str, data: &Value) -> String {
        show_text(kind, &data.to_string())
    }

    fn show_text(kind: &str, data: &str) -> String {
        let event = Attributes {
            kind: kind.to_owned(),
            subject: "orders/42".to_owned(),
            time: Some("2026-11-22T14:06:07.123456Z".to_owned()),
            data: Some(serde_json::from_str(data).unwrap()),
            dataref: None,
        };
        line(&event)
    }

    #[test]
    fn values_are_shown_as_they_were_published() {
        assert_eq!(
            show_text(
                "shop.orders.created",
                r#"{"key":{"id":42},"after":{"z":1.50,"id":42,"b":12345678901234567890.10,"a":1e400}}"#
            ),
            "14:06:07.123 created   shop orders/42    z: 1.50, b: 12345678901234567890.10, a: 1e400  +4 ms\n"
        );
        assert_eq!(
            show_text("shop.orders.updated", r#"{"before":{"n":1.5},"after":{"n":1.50}}"#),
            "14:06:07.123 updated   shop orders/42    n: 1.5 → 1.50  +4 ms\n"
        );
    }

    fn line(event: &Attributes<'_>) -> String {
        let committed = 1_795_356_367_123;
        Lines::new(Paint::plain()).line("shop", event, Some(committed + 4))
    }

    #[test]
    fn a_large_event_shows_where_its_data_is() {
        let event = Attributes {
            kind: "shop.orders.created".to_owned(),
            subject: "orders/50".to_owned(),
            time: Some("2026-11-22T14:06:07.123456Z".to_owned()),
            dataref: Some("nats-obj://EVENTS_shop_data/0001".to_owned()),
            ..Attributes::default()
        };
        assert_eq!(
            line(&event),
            "14:06:07.123 created   shop orders/50    data: nats-obj://EVENTS_shop_data/0001  +4 ms\n"
        );
    }

    #[test]
    fn updates_show_what_changed() {
        let data = json!({"key": {"id": 42}, "before": {"id": 42, "status": "new"}, "after": {"id": 42, "status": "paid"}});
        assert_eq!(
            show("shop.orders.updated", &data),
            "14:06:07.123 updated   shop orders/42    status: new → paid  +4 ms\n"
        );
    }

    #[test]
    fn rows_are_shown_short_and_harmless() {
        let data = json!({"key": {"id": 42}, "before": null, "after": {"id": 42, "a": "x\u{1b}[31m\n", "b": 1, "c": null, "d": true, "e": "y".repeat(50), "f": 2}});
        assert_eq!(
            show("shop.orders.created", &data),
            "14:06:07.123 created   shop orders/42    a: x·[31m·, b: 1, c: null, d: true, +2  +4 ms\n"
        );
        assert_eq!(
            show("shop.orders.truncated", &json!({"after": null})),
            "14:06:07.123 truncated shop orders/42    +4 ms\n"
        );
        assert_eq!(
            show(
                "headgate.dead_letter.too-large",
                &json!({"reason": "too-large", "detail": "the row has 5 bytes"})
            ),
            "14:06:07.123 too-large shop orders/42    the row has 5 bytes  +4 ms\n"
        );
        assert_eq!(
            show("shop.deal.stage_changed", &json!({"deal": 42, "from": "lead", "to": "won"})),
            "14:06:07.123 stage_changed shop orders/42    deal: 42, from: lead, to: won  +4 ms\n"
        );
        assert_eq!(
            show("shop.order.note", &json!("hello")),
            "14:06:07.123 note      shop orders/42    hello  +4 ms\n"
        );
        let schema = json!({"op": "schema", "compatible": false, "changes": ["- note", "+ b: int4"]});
        assert_eq!(
            show("shop.orders.schema", &schema),
            "14:06:07.123 schema    shop orders/42    - note, + b: int4  +4 ms\n"
        );
        assert_eq!(safe(&"y".repeat(50), 3), "yyy…");
    }
}
