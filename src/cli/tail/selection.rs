//! Which events to show, and from where on.

use async_nats::jetstream::consumer::DeliverPolicy;
use std::time::Duration;

/// The name of the dead letters' stream among the sources.
const DEAD_LETTERS: &str = "dlq";

/// A subject pattern below `events.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    pattern: String,
}

impl Selection {
    /// Reads a whole subject pattern, or the short form without `events.`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let pattern = match text {
            "events" | ">" => "events.>".to_owned(),
            text if text.starts_with("events.") => text.to_owned(),
            text => format!("events.{text}"),
        };
        let tokens: Vec<&str> = pattern.split('.').collect();
        let last = tokens.len() - 1;
        for (index, token) in tokens.iter().enumerate() {
            let wildcard = *token == "*" || (*token == ">" && index == last);
            let plain = !token.is_empty()
                && !token.contains(['*', '>'])
                && !token.chars().any(|c| c.is_whitespace() || c.is_control());
            if !wildcard && !plain {
                return Err(
                    "expected a subject like shop.orders, events.*.*.deleted.* or events.shop.>".to_owned()
                );
            }
        }
        Ok(Self { pattern })
    }

    /// The patterns to ask the broker for: a pattern that ends in a name also means everything below it.
    pub(super) fn filters(&self) -> Vec<String> {
        if self.pattern.ends_with('>') {
            vec![self.pattern.clone()]
        } else {
            vec![self.pattern.clone(), format!("{}.>", self.pattern)]
        }
    }

    /// The source, where one is named that is not the dead letters.
    pub(super) fn source(&self) -> Option<&str> {
        self.pattern.split('.').nth(1).filter(|source| !matches!(*source, "*" | ">" | DEAD_LETTERS))
    }

    /// Whether events of this source can match. The dead letters have to be named.
    pub(super) fn wants(&self, source: &str) -> bool {
        match self.pattern.split('.').nth(1) {
            Some("*" | ">") => source != DEAD_LETTERS,
            Some(name) => name == source,
            None => false,
        }
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Start,
    Now,
    Ago(Duration),
    Sequence(u64),
}

impl From {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "start" => Ok(Self::Start),
            "now" => Ok(Self::Now),
            text => text
                .parse()
                .map(Self::Sequence)
                .ok()
                .or_else(|| crate::config::parse_duration(text).map(Self::Ago))
                .ok_or_else(|| "expected start, now, a duration like 10m or a sequence".to_owned()),
        }
    }

    /// The policy for a stream that ends at `last` now.
    pub(super) fn policy(self, last: u64) -> DeliverPolicy {
        match self {
            Self::Start => DeliverPolicy::All,
            Self::Now => DeliverPolicy::ByStartSequence { start_sequence: last + 1 },
            Self::Sequence(start) => DeliverPolicy::ByStartSequence { start_sequence: start.max(1) },
            Self::Ago(ago) => {
                let start = jiff::Timestamp::now().checked_sub(ago).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
                // The policy takes a time of a crate that is not ours; its wire form is plain text.
                let wire = serde_json::json!({ "deliver_policy": "by_start_time", "opt_start_time": start.to_string() });
                serde_json::from_value(wire).unwrap_or(DeliverPolicy::All)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_may_be_short() {
        let filters = |text: &str| Selection::parse(text).unwrap().filters();
        assert_eq!(filters("events.>"), ["events.>"]);
        assert_eq!(filters("events"), ["events.>"]);
        assert_eq!(filters("shop"), ["events.shop", "events.shop.>"]);
        assert_eq!(filters("shop.orders.>"), ["events.shop.orders.>"]);
        assert_eq!(filters("events.*.*.deleted.*"), ["events.*.*.deleted.*", "events.*.*.deleted.*.>"]);
        for text in ["", "a..b", "a b", "shop.>.x", "sh*p", "events."] {
            assert!(Selection::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dead_letters_show_only_when_named() {
        let wants = |text: &str, source: &str| Selection::parse(text).unwrap().wants(source);
        assert!(wants("events.>", "shop") && wants("*.orders", "shop") && wants("shop", "shop"));
        assert!(!wants("events.>", "dlq") && !wants("*.orders", "dlq") && wants("dlq", "dlq"));
        assert!(!wants("shop", "billing"));
    }

    #[test]
    fn beginnings() {
        assert_eq!(From::parse("start"), Ok(From::Start));
        assert_eq!(From::parse("10m"), Ok(From::Ago(Duration::from_secs(600))));
        assert_eq!(From::parse("42"), Ok(From::Sequence(42)));
        assert!(From::parse("yesterday").is_err());
        assert_eq!(From::Now.policy(7), DeliverPolicy::ByStartSequence { start_sequence: 8 });
        assert!(matches!(From::Ago(Duration::from_secs(1)).policy(0), DeliverPolicy::ByStartTime { .. }));
    }
}
