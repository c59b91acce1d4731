#![allow(clippy::unwrap_used, clippy::panic)]
mod shape_changes;
mod shaping_settings;

use super::{encoder::Encoder, form::Form, subject::Template, *};
use crate::{config::Mode, event::Item, telemetry::metrics::Metrics};
use headgate_sdk::{Cell, Column, Op, Position, Relation, Unwritable, WriteValue, fnv1a};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Writes text as a JSON string, digits as a number; refuses what is not UTF-8.
#[derive(Debug)]
struct Plain;

impl WriteValue for Plain {
    fn write(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let text = std::str::from_utf8(raw).map_err(|_| Unwritable { reason: "not UTF-8" })?;
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            out.extend_from_slice(raw);
        } else {
            out.extend_from_slice(&form::json_string(text));
        }
        Ok(())
    }
}

fn relation(schema: &str, table: &str, columns: &[&str], key: &[usize]) -> Arc<Relation> {
    let columns = columns
        .iter()
        .map(|name| Column {
            name: (*name).to_owned(),
            type_name: "text".to_owned(),
            nullable: None,
            writer: Box::new(Plain),
        })
        .collect();
    Arc::new(Relation {
        id: 1,
        schema: schema.to_owned(),
        table: table.to_owned(),
        columns,
        key: key.to_vec(),
    })
}

fn encoder(mode: Mode, template: &str, resume: Option<Position>) -> Encoder {
    shaping_encoder(mode, template, resume, crate::config::Shaping::default())
}

fn shaping_encoder(
    mode: Mode,
    template: &str,
    resume: Option<Position>,
    settings: crate::config::Shaping,
) -> Encoder {
    let style = Style {
        source: "shop".to_owned(),
        uri: "/headgate/shop".to_owned(),
        type_prefix: "shop".to_owned(),
        form: Form::new(mode),
        template: Template::parse(template).unwrap(),
        partitions: 16,
    };
    let look = Look {
        style,
        entities: BTreeMap::new(),
        default_schema: "public".to_owned(),
        shaping: shaping::Shaping::new(settings),
    };
    let shapes =
        shapes::Shapes::new("shop", crate::config::OnIncompatible::Warn, crate::schema::Known::default());
    let mut encoder = Encoder::new(look, Metrics::new().source("shop"), resume, resume, shapes);
    encoder.set_epoch(1);
    encoder
}

const TEMPLATE: &str = "events.{source}.{entity}.{verb}.{partition}";

fn begin(encoder: &mut Encoder, commit: u64) {
    encoder.begin(&Transaction { commit, committed_at: 1_795_356_367_123_456, id: "731".to_owned() });
}

fn commit(encoder: &mut Encoder, log: u64) {
    encoder.commit(Progress { epoch: 1, log });
}

fn events(encoder: &mut Encoder) -> Vec<(String, Value)> {
    let items = encoder.take().map(|(items, _)| items).unwrap_or_default();
    items
        .into_iter()
        .filter_map(|item| match item {
            Item::Event(event) => {
                Some((event.subject.to_string(), serde_json::from_slice(&event.payload).unwrap()))
            }
            Item::DeadLetter(_) | Item::Mark(_) => None,
        })
        .collect()
}

fn value(text: &str) -> Cell<'_> {
    Cell::Value(text.as_bytes())
}

#[test]
fn an_update_is_the_event_of_the_contract() {
    let mut encoder = encoder(Mode::Structured, TEMPLATE, None);
    let orders = relation("public", "orders", &["id", "status", "notes"], &[0]);
    begin(&mut encoder, 0x16b_3748);
    encoder.change(&Change {
        relation: &orders,
        op: Op::Updated,
        before: Some(&[value("42"), value("new"), value("x")]),
        after: Some(&[value("42"), value("paid"), Cell::Unavailable]),
    });
    assert!(encoder.take().is_none(), "held back until it is known whether it is the last");
    commit(&mut encoder, 0x16b_3790);
    let (subject, mut event) = events(&mut encoder).remove(0);
    // FNV-1a of "orders/42" is 0x9f91d155, its last hexadecimal digit the partition of 16.
    assert_eq!(subject, format!("events.shop.orders.updated.{}", fnv1a(&[b"orders/42"]) % 16));
    let attributes = event.as_object_mut().unwrap();
    let recorded = attributes.remove("recordedtime").unwrap();
    assert_eq!(recorded.as_str().unwrap().len(), "2026-11-22T14:06:07.123456Z".len());
    let trace = attributes.remove("traceparent").unwrap();
    assert!(trace.as_str().unwrap().starts_with("00-"));
    let schema = attributes.remove("dataschema").unwrap();
    assert!(schema.as_str().unwrap().starts_with("urn:headgate:schema:shop:orders:"));
    assert_eq!(
        event,
        json!({
            "specversion": "1.0",
            "id": "0001-00000000016b3748-00000001",
            "source": "/headgate/shop",
            "type": "shop.orders.updated",
            "subject": "orders/42",
            "time": "2026-11-22T14:06:07.123456Z",
            "datacontenttype": "application/json",
            "partitionkey": "orders/42",
            "sequence": "0001-00000000016b3748-00000001",
            "txid": "731",
            "txindex": 0,
            "txlast": true,
            "data": {
                "op": "updated", "schema": "public", "table": "orders", "key": {"id": 42},
                "before": {"id": 42, "status": "new", "notes": "x"}, "after": {"id": 42, "status": "paid"},
                "changed": ["status"], "unavailable": ["notes"],
            },
        })
    );
}

#[test]
fn a_transaction_is_numbered_and_only_its_last_event_says_so() {
    let mut encoder = encoder(Mode::Structured, TEMPLATE, None);
    let orders = relation("public", "orders", &["id"], &[0]);
    begin(&mut encoder, 10);
    let mut seen = Vec::new();
    for id in ["1", "2", "3"] {
        encoder.change(&Change {
            relation: &orders,
            op: Op::Created,
            before: None,
            after: Some(&[value(id)]),
        });
        // Taking in the middle of a transaction must not tear an event.
        seen.extend(events(&mut encoder));
    }
    commit(&mut encoder, 11);
    seen.extend(events(&mut encoder));
    let told: Vec<_> =
        seen.iter().map(|(_, event)| (event["txindex"].clone(), event.get("txlast").cloned())).collect();
    assert_eq!(told, [(json!(0), None), (json!(1), None), (json!(2), Some(json!(true)))]);
    assert_eq!(seen[0].1["traceparent"], seen[2].1["traceparent"]);
}

#[test]
fn a_change_of_key_is_the_end_of_one_entity_and_the_beginning_of_another() {
    let mut encoder = encoder(Mode::Structured, TEMPLATE, None);
    let orders = relation("sales", "order lines", &["order", "line", "n"], &[0, 1]);
    begin(&mut encoder, 10);
    encoder.change(&Change {
        relation: &orders,
        op: Op::Updated,
        before: Some(&[value("7"), value("a,b"), Cell::Unavailable]),
        after: Some(&[value("7"), value("c/d"), value("5")]),
    });
    commit(&mut encoder, 11);
    let seen = events(&mut encoder);
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].1["subject"], "sales-order%20lines/7,a%2Cb");
    assert_eq!(seen[0].1["type"], "shop.sales-order%20lines.deleted");
    assert_eq!(seen[0].1["data"]["before"], json!({"order": 7, "line": "a,b"}));
    assert_eq!(seen[0].1["data"]["after"], Value::Null);
    assert_eq!(seen[0].1["data"]["rekeyed"], json!({"to": {"order": 7, "line": "c/d"}}));
    assert_eq!(seen[1].1["subject"], "sales-order%20lines/7,c%2Fd");
    assert_eq!(seen[1].1["data"]["op"], "created");
    assert_eq!(seen[1].1["data"]["rekeyed"], json!({"from": {"order": 7, "line": "a,b"}}));
    assert_eq!(seen[1].1["txlast"], true);
}

#[test]
fn what_the_stream_holds_is_dropped_and_the_rest_keeps_its_numbers() {
    let resume = Position { epoch: 1, commit: 10, index: 1 };
    let mut encoder = encoder(Mode::Structured, TEMPLATE, Some(resume));
    let orders = relation("public", "orders", &["id"], &[0]);
    for transaction in [5, 10, 12] {
        begin(&mut encoder, transaction);
        for id in ["1", "2"] {
            encoder.change(&Change {
                relation: &orders,
                op: Op::Created,
                before: None,
                after: Some(&[value(id)]),
            });
        }
        commit(&mut encoder, transaction + 1);
    }
    let ids: Vec<_> =
        events(&mut encoder).iter().map(|(_, event)| event["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        ids,
        [
            "0001-000000000000000a-00000003",
            "0001-000000000000000c-00000001",
            "0001-000000000000000c-00000003"
        ]
    );
}

#[test]
fn an_unencodable_row_goes_to_the_dead_letters_and_the_last_good_event_stays_the_last() {
    let mut encoder = encoder(Mode::Structured, TEMPLATE, None);
    let orders = relation("public", "orders", &["id", "name"], &[0]);
    begin(&mut encoder, 10);
    encoder.change(&Change {
        relation: &orders,
        op: Op::Created,
        before: None,
        after: Some(&[value("1"), value("good")]),
    });
    encoder.change(&Change {
        relation: &orders,
        op: Op::Created,
        before: None,
        after: Some(&[value("2"), Cell::Value(b"\xff\xfe")]),
    });
    commit(&mut encoder, 11);
    let (items, _) = encoder.take().unwrap();
    let [Item::DeadLetter(letter), Item::Event(event)] = &items[..] else { panic!("{items:?}") };
    assert_eq!(letter.position, Position { epoch: 1, commit: 10, index: 3 });
    assert_eq!(letter.content["after"], json!({"id": 2, "name": {"base64": "//4="}}));
    let event: Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(event["txlast"], true);
}

/// Nobody is told of it, and the change behind it has the id that it would have if somebody were.
#[test]
fn a_change_that_is_passed_over_takes_its_index() {
    let orders = relation("public", "orders", &["id"], &[0]);
    let mut encoder = encoder(Mode::Structured, TEMPLATE, None);
    begin(&mut encoder, 10);
    for id in ["1", "2"] {
        encoder.pass_over();
        let after = [value(id)];
        encoder.change(&Change { relation: &orders, op: Op::Created, before: None, after: Some(&after) });
    }
    commit(&mut encoder, 11);
    let seen = events(&mut encoder);
    let seen: Vec<_> = seen
        .iter()
        .map(|(_, event)| (event["txindex"].as_u64().unwrap(), &event["id"].as_str().unwrap()[22..]))
        .collect();
    assert_eq!(seen, [(0, "00000003"), (1, "00000007")]);
}

/// A dead letter takes an index, so that ids stay the same, and no place among the events; also where the stream ends
/// between it and the rest of its transaction.
#[test]
fn a_dead_letter_leaves_no_hole_in_txindex() {
    let orders = relation("public", "orders", &["id", "name"], &[0]);
    for resume in [None, Some(1), Some(3), Some(5)] {
        let resume = resume.map(|index| Position { epoch: 1, commit: 10, index });
        let mut encoder = encoder(Mode::Structured, TEMPLATE, resume);
        begin(&mut encoder, 10);
        for (id, name) in [("1", &b"good"[..]), ("2", b"\xff\xfe"), ("3", b"good"), ("4", b"good")] {
            let after = [value(id), Cell::Value(name)];
            encoder.change(&Change { relation: &orders, op: Op::Created, before: None, after: Some(&after) });
        }
        encoder.reject(&RowFault { table: None, reason: "too large".to_owned(), size: 1 });
        encoder.message(&Message { prefix: "note", content: b"plain", transactional: true, position: 10 });
        commit(&mut encoder, 11);
        let all = [(0, "00000001"), (1, "00000005"), (2, "00000007"), (3, "0000000b")];
        let left = all
            .iter()
            .filter(|(_, index)| resume.is_none_or(|at| u32::from_str_radix(index, 16).unwrap() > at.index));
        let seen = events(&mut encoder);
        let seen: Vec<_> = seen
            .iter()
            .map(|(_, event)| {
                (event["txindex"].as_u64().unwrap(), event["id"].as_str().unwrap()[22..].to_owned())
            })
            .collect();
        assert_eq!(seen, left.map(|(n, index)| (*n, (*index).to_owned())).collect::<Vec<_>>());
    }
}

#[test]
fn context_sets_attributes_on_the_rest_of_its_transaction_only() {
    let mut encoder = encoder(Mode::Structured, TEMPLATE, None);
    let orders = relation("public", "orders", &["id"], &[0]);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    begin(&mut encoder, 10);
    let content = format!(r#"{{"traceparent":"{trace}","correlationid":"c-1","causationid":"\"quoted\""}}"#);
    encoder.message(&Message {
        prefix: "headgate.context",
        content: content.as_bytes(),
        transactional: true,
        position: 9,
    });
    encoder.change(&Change { relation: &orders, op: Op::Deleted, before: Some(&[value("1")]), after: None });
    commit(&mut encoder, 11);
    begin(&mut encoder, 20);
    encoder.change(&Change { relation: &orders, op: Op::Created, before: None, after: Some(&[value("1")]) });
    commit(&mut encoder, 21);
    let seen = events(&mut encoder);
    assert_eq!(seen[0].1["traceparent"], trace);
    assert_eq!(seen[0].1["correlationid"], "c-1");
    assert_eq!(seen[0].1["causationid"], "\"quoted\"");
    assert_eq!(seen[0].1["txindex"], 0);
    assert_ne!(seen[1].1["traceparent"], trace);
    assert!(seen[1].1.get("correlationid").is_none());
}

#[test]
fn binary_mode_says_the_same_in_headers() {
    let mut encoder = encoder(Mode::Binary, TEMPLATE, None);
    let orders = relation("public", "orders", &["id"], &[0]);
    begin(&mut encoder, 10);
    encoder.change(&Change {
        relation: &orders,
        op: Op::Created,
        before: None,
        after: Some(&[value("a b%")]),
    });
    commit(&mut encoder, 11);
    let (items, _) = encoder.take().unwrap();
    let Item::Event(event) = &items[0] else { panic!("{items:?}") };
    let head = std::str::from_utf8(&event.head).unwrap();
    let headers: BTreeMap<_, _> = head.lines().map(|line| line.split_once(": ").unwrap()).collect();
    assert_eq!(headers["ce-id"], "0001-000000000000000a-00000001");
    assert_eq!(headers["ce-subject"], "orders/a%2520b%2525");
    assert_eq!(headers["ce-partitionkey"], "orders/a%2520b%2525");
    assert_eq!(headers["ce-txindex"], "0");
    assert_eq!(headers["ce-time"], "2026-11-22T14:06:07.123456Z");
    assert!(event.last_of_transaction);
    let data: Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(data["after"], json!({"id": "a b%"}));
}

#[test]
fn messages_stand_alone_or_in_their_transaction() {
    let mut encoder = encoder(Mode::Structured, TEMPLATE, None);
    encoder.message(&Message {
        prefix: "audit.login",
        content: br#"{"user":7}"#,
        transactional: false,
        position: 9,
    });
    begin(&mut encoder, 10);
    encoder.message(&Message { prefix: "note", content: b"plain", transactional: true, position: 10 });
    commit(&mut encoder, 11);
    let seen = events(&mut encoder);
    assert!(seen[0].0.starts_with("events.shop.audit.login."), "{}", seen[0].0);
    assert_eq!(seen[0].1["type"], "shop.audit.login");
    assert_eq!(seen[0].1["data"]["content"], json!({"user": 7}));
    assert!(seen[0].1.get("txid").is_none() && seen[0].1.get("txlast").is_none());
    assert_eq!(seen[1].1["data"]["content"], "plain");
    assert_eq!(seen[1].1["txlast"], true);
}

#[test]
fn a_truncate_names_the_table_and_no_row() {
    let mut encoder =
        encoder(Mode::Structured, "events.{source}.{entity}.{verb}.{partition}.{key}.{column:id}", None);
    let orders = relation("public", "orders", &["id"], &[0]);
    begin(&mut encoder, 10);
    encoder.change(&Change { relation: &orders, op: Op::Truncated, before: None, after: None });
    commit(&mut encoder, 11);
    let (subject, event) = events(&mut encoder).remove(0);
    assert!(subject.starts_with("events.shop.orders.truncated.") && subject.ends_with(".%.%"), "{subject}");
    assert_eq!(event["subject"], "orders");
    assert_eq!(event["partitionkey"], "orders");
    assert_eq!(
        event["data"],
        json!({"op": "truncated", "schema": "public", "table": "orders", "key": null, "before": null,
               "after": null, "unavailable": []})
    );
}

#[test]
fn progress_without_events_is_one_mark() {
    let mut encoder = encoder(Mode::Structured, TEMPLATE, None);
    for log in [5, 6, 7] {
        encoder.progress(Progress { epoch: 1, log });
    }
    begin(&mut encoder, 8);
    commit(&mut encoder, 9);
    let (items, _) = encoder.take().unwrap();
    assert!(matches!(items[..], [Item::Mark(Progress { epoch: 1, log: 9 })]), "{items:?}");
}
