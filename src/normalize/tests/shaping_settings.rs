//! What settings make of rows: columns hidden, outboxes, semantic events.

use super::*;
use crate::{
    condition::Condition,
    config::{ColumnRule, Mask, Member, Outbox, Salt, SemanticEvent, Shaping},
    event::DeadLetter,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

const SECRET: &str = "ann@example.com";

fn settings() -> Shaping {
    Shaping { mask_salt: Some(Salt::new("0123456789abcdef".to_owned())), ..Shaping::default() }
}

fn rule(table: &str, exclude: &[&str], mask: &[(&str, Mask)]) -> ColumnRule {
    ColumnRule {
        table: table.to_owned(),
        include: None,
        exclude: exclude.iter().map(|&name| name.to_owned()).collect(),
        mask: mask.iter().map(|&(name, mask)| (name.to_owned(), mask)).collect(),
    }
}

fn stage_changed(table: &str, when: &str) -> SemanticEvent {
    SemanticEvent {
        entity: "deal".to_owned(),
        verb: "stage_changed".to_owned(),
        table: table.to_owned(),
        when: Condition::compile(when).unwrap(),
        instead: false,
        key: None,
        data: None,
    }
}

fn structured(settings: Shaping) -> Encoder {
    shaping_encoder(Mode::Structured, TEMPLATE, None, settings)
}

/// Everything that leaves the encoder, events as JSON.
fn taken(encoder: &mut Encoder) -> (Vec<Value>, Vec<DeadLetter>) {
    let (mut events, mut letters) = (Vec::new(), Vec::new());
    for item in encoder.take().map(|(items, _)| items).unwrap_or_default() {
        match item {
            Item::Event(event) => events.push(serde_json::from_slice(&event.payload).unwrap()),
            Item::DeadLetter(letter) => letters.push(*letter),
            Item::Mark(_) => {}
        }
    }
    (events, letters)
}

fn told(encoder: &mut Encoder, changes: &[Change<'_>]) -> (Vec<Value>, Vec<DeadLetter>) {
    begin(encoder, 10);
    changes.iter().for_each(|change| encoder.change(change));
    commit(encoder, 11);
    taken(encoder)
}

#[test]
fn a_hidden_value_is_nowhere() {
    let rules = rule(
        "public.people",
        &["password"],
        &[("email", Mask::Hash), ("phone", Mask::Redact), ("name", Mask::Truncate(2))],
    );
    let settings = Shaping { columns: vec![rules], ..settings() };
    let template = "events.{source}.{entity}.{verb}.{partition}.{column:phone}.{column:password}";
    let people = relation("public", "people", &["email", "password", "phone", "name", "note"], &[0]);
    let old = [value(SECRET), value("hunter2"), value("555123"), value("Änne"), Cell::Unavailable];
    let new = [value(SECRET), value("hunter3"), Cell::Null, value("Xe"), value("fine")];
    for mode in [Mode::Structured, Mode::Binary] {
        let mut encoder = shaping_encoder(mode, template, None, settings.clone());
        begin(&mut encoder, 10);
        encoder.change(&Change { relation: &people, op: Op::Updated, before: Some(&old), after: Some(&new) });
        let broken = [
            value(SECRET),
            Cell::Value(b"hunter2\xff"),
            Cell::Value(b"555123\xff"),
            Cell::Value(b"Bob\xff"),
            Cell::Value(b"\xff"),
        ];
        encoder.change(&Change { relation: &people, op: Op::Created, before: None, after: Some(&broken) });
        commit(&mut encoder, 11);
        let (items, _) = encoder.take().unwrap();
        let text = format!("{items:?}");
        for secret in [SECRET, "example", "hunter", "555", "Änne", "Bob", &BASE64.encode(b"hunter2\xff")] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        let letter = items
            .iter()
            .find_map(|item| if let Item::DeadLetter(letter) = item { Some(letter) } else { None })
            .unwrap();
        assert_eq!(letter.content["after"]["phone"], mask::REDACTED);
        assert_eq!(letter.content["after"]["note"], json!({"base64": "/w=="}));
        if mode == Mode::Structured {
            let Some(Item::Event(event)) = items.iter().find(|item| matches!(item, Item::Event(_))) else {
                panic!("{text}")
            };
            assert!(
                event.subject.ends_with(".%.%"),
                "a null and a column that is not told: {}",
                event.subject
            );
            let event: Value = serde_json::from_slice(&event.payload).unwrap();
            let hash = event["data"]["key"]["email"].as_str().unwrap();
            // printf ann@example.com | openssl dgst -sha256 -hmac 0123456789abcdef
            assert_eq!(hash, "9f70eb4f1d9f0194d58bc08c41ce2b3b2e4e580a424a246ce2484484122343df");
            assert_eq!(event["subject"], format!("people/{hash}"));
            assert_eq!(
                event["data"],
                json!({
                    "op": "updated", "schema": "public", "table": "people", "key": {"email": hash},
                    "before": {"email": hash, "phone": "[redacted]", "name": "Än"},
                    "after": {"email": hash, "phone": null, "name": "Xe", "note": "fine"},
                    "unavailable": [],
                })
            );
        }
    }
}

#[test]
fn rules_of_a_table_and_of_a_glob_hold_together() {
    let only = ColumnRule {
        include: Some(vec!["id".into(), "a".into(), "b".into()]),
        ..rule("public.t", &[], &[("a", Mask::Truncate(1))])
    };
    let all = rule("*", &["b"], &[("a", Mask::Redact)]);
    let mut encoder = structured(Shaping { columns: vec![all, only], ..settings() });
    let table = relation("public", "t", &["id", "a", "b", "c"], &[0]);
    let row = [value("1"), value("xyz"), value("b"), value("c")];
    let (events, _) =
        told(&mut encoder, &[Change { relation: &table, op: Op::Created, before: None, after: Some(&row) }]);
    assert_eq!(events[0]["data"]["after"], json!({"id": 1, "a": "x"}));
}

#[test]
fn what_cannot_be_hidden_stops_the_source_before_it_is_told() {
    let table = relation("public", "t", &["id", "email"], &[0]);
    let row = [value("1"), value(SECRET)];
    let change = Change { relation: &table, op: Op::Created, before: None, after: Some(&row) };
    for rule in [
        rule("public.t", &["id"], &[]),
        rule("*.t", &[], &[("id", Mask::Redact)]),
        rule("*", &[], &[("id", Mask::Truncate(1))]),
    ] {
        let mut encoder = structured(Shaping { columns: vec![rule], ..settings() });
        let (events, letters) = told(&mut encoder, &[change]);
        assert_eq!((events.len(), letters.len()), (0, 0));
        let fault = encoder.take_refusal().unwrap();
        assert!(
            fault.message().contains("column id of public.t") && fault.fix().unwrap().contains("hash"),
            "{fault}"
        );
    }

    // A masked column is renamed: its values must not be told under the new name.
    let mut encoder = structured(Shaping {
        columns: vec![rule("public.t", &[], &[("email", Mask::Redact)])],
        ..settings()
    });
    assert_eq!(told(&mut encoder, &[change]).0.len(), 1);
    let renamed =
        Relation { id: 2, ..Arc::into_inner(relation("public", "t", &["id", "mail"], &[0])).unwrap() };
    let renamed = Arc::new(renamed);
    let other = relation("public", "other", &["id"], &[0]);
    let other = Change { relation: &other, op: Op::Created, before: None, after: Some(&[value("7")]) };
    let (events, _) = told(&mut encoder, &[Change { relation: &renamed, ..change }, other]);
    assert_eq!(events.len(), 0, "and nothing after it is told either");
    assert!(encoder.is_full());
    assert!(encoder.take_refusal().unwrap().message().contains("no column email"));
}

#[test]
fn a_semantic_event_follows_its_row_or_stands_in_its_place() {
    let deals = relation("crm", "deals", &["id", "account", "stage", "amount"], &[0]);
    let old = [value("42"), value("7"), value("lead"), value("100")];
    let new = [value("42"), value("7"), value("won"), value("100")];
    let update = Change { relation: &deals, op: Op::Updated, before: Some(&old), after: Some(&new) };
    let same = Change { before: Some(&new), ..update };
    let insert = Change { relation: &deals, op: Op::Created, before: None, after: Some(&new) };
    let emptied = Change { relation: &deals, op: Op::Truncated, before: None, after: None };
    let event = stage_changed("crm.deals", "before.stage != after.stage");

    let mut encoder = structured(Shaping { events: vec![event.clone()], ..settings() });
    let (events, letters) = told(&mut encoder, &[insert, update, same, emptied]);
    assert!(letters.is_empty(), "{letters:?}");
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "shop.crm-deals.created",
            "shop.crm-deals.updated",
            "shop.deal.stage_changed",
            "shop.crm-deals.updated",
            "shop.crm-deals.truncated"
        ]
    );
    let [_, row, meaning, ..] = &events[..] else { panic!() };
    assert_eq!(meaning["id"], "0001-000000000000000a-00000005");
    assert_eq!(
        (&meaning["txindex"], &meaning["subject"], &meaning["partitionkey"]),
        (&json!(2), &json!("deal/42"), &json!("deal/42"))
    );
    assert_eq!(meaning["data"], row["data"]);
    assert_eq!(meaning["traceparent"], row["traceparent"]);

    let member = |name: &str, before, column: &str| Member {
        name: name.to_owned(),
        before,
        column: column.to_owned(),
    };
    let own = SemanticEvent {
        instead: true,
        key: Some(vec!["account".to_owned()]),
        data: Some(vec![
            member("deal", false, "id"),
            member("from", true, "stage"),
            member("to", false, "stage"),
        ]),
        ..event
    };
    let mut encoder = structured(Shaping { events: vec![own], ..settings() });
    let (events, _) = told(&mut encoder, &[insert, update]);
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["subject"], "deal/7");
    assert_eq!(events[1]["txindex"], 1);
    assert_eq!(events[1]["txlast"], true);
    assert_eq!(events[1]["data"], json!({"deal": 42, "from": "lead", "to": "won"}));
}

#[test]
fn a_replay_gives_semantic_events_the_same_positions() {
    let deals = relation("public", "deals", &["id", "stage"], &[0]);
    let (old, new) = ([value("1"), value("lead")], [value("1"), value("won")]);
    let update = Change { relation: &deals, op: Op::Updated, before: Some(&old), after: Some(&new) };
    let settings =
        Shaping { events: vec![stage_changed("public.deals", "before.stage != after.stage")], ..settings() };
    let (all, _) = told(&mut structured(settings.clone()), &[update, update, update]);
    let ids = |events: &[Value]| events.iter().map(|event| event["id"].to_string()).collect::<Vec<_>>();
    assert_eq!(all.len(), 6);
    for held in 0..6 {
        let resume = Position { epoch: 1, commit: 10, index: 2 * held + 1 };
        let mut encoder = shaping_encoder(Mode::Structured, TEMPLATE, Some(resume), settings.clone());
        let (rest, _) = told(&mut encoder, &[update, update, update]);
        assert_eq!(ids(&rest), ids(&all)[held as usize + 1..]);
    }
}

#[test]
fn a_condition_that_fails_harms_no_row() {
    let deals = relation("public", "deals", &["id", "stage"], &[0]);
    let new = [value("1"), value("s3cret stage")];
    let update = Change { relation: &deals, op: Op::Updated, before: None, after: Some(&new) };
    let mut wrong = stage_changed("public.deals", "int(after.stage) > 3");
    wrong.instead = true;
    let unknown =
        SemanticEvent { key: Some(vec!["gone".to_owned()]), ..stage_changed("public.deals", "true") };
    let events = vec![stage_changed("public.deals", "before.stage != after.stage"), wrong, unknown];
    let (events, letters) = told(&mut structured(Shaping { events, ..settings() }), &[update, update]);
    assert_eq!(events.len(), 2, "the rows' own events");
    assert_eq!(events[1]["txindex"], 1, "dead letters are not counted");
    assert_eq!(letters.len(), 6);
    assert!(
        letters
            .iter()
            .all(|letter| letter.reason == "condition" && letter.content["event"] == "deal.stage_changed")
    );
    for (letter, expected) in letters.iter().zip(["no old row", "int", "no column gone"]) {
        assert!(letter.detail.contains(expected) && !letter.detail.contains("s3cret"), "{}", letter.detail);
    }
    assert_eq!(letters[0].position.index, 3);
}

#[test]
fn an_insert_into_an_outbox_is_an_event_of_its_own_kind() {
    let columns = ["id", "aggregatetype", "aggregateid", "type", "payload", "headers"];
    let outbox = relation("public", "outbox", &columns, &[0]);
    let settings = Shaping {
        outboxes: vec![Outbox {
            table: "public.outbox".to_owned(),
            id: None,
            entity: None,
            kind: None,
            key: None,
            payload: None,
            headers: None,
        }],
        ..settings()
    };
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers =
        format!(r#"{{"traceparent":"{trace}","Correlation-Id":"c 1","id":"x","nested":{{"a":1}},"n":7}}"#);
    let payload = r#"{"total": 19.90, "lines": [1, 2]}"#;
    let row = [value("e-1"), value("order"), value("42"), value("Paid"), value(payload), value(&headers)];
    let insert = Change { relation: &outbox, op: Op::Created, before: None, after: Some(&row) };
    let silent = [
        Change { relation: &outbox, op: Op::Updated, before: None, after: Some(&row) },
        Change { relation: &outbox, op: Op::Deleted, before: Some(&row), after: None },
        Change { relation: &outbox, op: Op::Truncated, before: None, after: None },
    ];
    let mut encoder = structured(settings.clone());
    begin(&mut encoder, 10);
    let context = br#"{"correlationid":"of the transaction","causationid":"also"}"#;
    encoder.message(&Message {
        prefix: "headgate.context",
        content: context,
        transactional: true,
        position: 9,
    });
    silent.iter().chain([&insert]).chain(&silent).for_each(|change| encoder.change(change));
    let plain =
        [value("e-2"), Cell::Null, Cell::Null, value("order.shipped"), value("just text"), Cell::Null];
    encoder.change(&Change { after: Some(&plain), ..insert });
    let none = [value("e-3"), value("order"), value("1"), Cell::Null, Cell::Null, Cell::Null];
    encoder.change(&Change { after: Some(&none), ..insert });
    commit(&mut encoder, 11);
    let (items, _) = encoder.take().unwrap();
    let Some(Item::Event(first)) = items.first() else { panic!("{items:?}") };
    assert!(first.subject.starts_with("events.shop.order.Paid."), "{}", first.subject);
    let text = String::from_utf8_lossy(&first.payload);
    assert!(text.ends_with(&format!(",\"data\":{payload}}}")), "byte for byte: {text}");
    let event: Value = serde_json::from_str(&text).unwrap();
    for (name, expected) in [
        ("id", json!("e-1")),
        ("sequence", json!("0001-000000000000000a-00000001")),
        ("type", json!("shop.order.Paid")),
        ("subject", json!("order/42")),
        ("partitionkey", json!("order/42")),
        ("traceparent", json!(trace)),
        ("correlationid", json!("c 1")),
        ("causationid", json!("also")),
        ("n", json!("7")),
        ("nested", json!("{\"a\":1}")),
        ("txindex", json!(0)),
    ] {
        assert_eq!(event[name], expected, "{name}: {text}");
    }
    assert_eq!(text.matches("\"traceparent\"").count(), 1);
    let letter = items
        .iter()
        .find_map(|item| if let Item::DeadLetter(letter) = item { Some(letter) } else { None })
        .unwrap();
    assert_eq!((letter.reason, letter.position.index), ("outbox", 5));
    let Some(Item::Event(second)) = items.last() else { panic!("{items:?}") };
    let second: Value = serde_json::from_slice(&second.payload).unwrap();
    assert_eq!(
        (&second["type"], &second["subject"], &second["datacontenttype"], &second["data"], &second["txlast"]),
        (
            &json!("shop.order.shipped"),
            &json!("order"),
            &json!("text/plain; charset=utf-8"),
            &json!("just text"),
            &json!(true)
        )
    );

    let mut encoder = shaping_encoder(Mode::Binary, TEMPLATE, None, settings.clone());
    begin(&mut encoder, 10);
    encoder.change(&Change { after: Some(&plain), ..insert });
    commit(&mut encoder, 11);
    let (items, _) = encoder.take().unwrap();
    let Item::Event(event) = &items[0] else { panic!() };
    assert_eq!(event.payload, "just text");
    assert!(
        String::from_utf8_lossy(&event.head).starts_with("ce-specversion: 1.0\r\nce-id: e-2\r\nce-source: "),
        "{event:?}"
    );

    // The gateway's own verbs are its own.
    let own = [value("e-4"), value("order"), value("1"), value("schema"), value("{}"), Cell::Null];
    let (events, _) = told(&mut structured(settings.clone()), &[Change { after: Some(&own), ..insert }]);
    assert_eq!(events[0]["type"], "shop.order%2Eschema.event");

    let bare = relation("public", "outbox", &["id", "payload"], &[0]);
    let mut encoder = structured(settings);
    encoder.change(&Change {
        relation: &bare,
        op: Op::Created,
        before: None,
        after: Some(&[value("1"), value("2")]),
    });
    assert!(encoder.take_refusal().unwrap().message().contains("lacks a column type"));
}

#[test]
fn messages_can_be_chosen_and_never_break_a_subject() {
    let settings = Shaping { messages: vec!["invoice.*".to_owned(), "!*.draft".to_owned()], ..settings() };
    let mut encoder = structured(settings);
    begin(&mut encoder, 10);
    let long = format!("invoice.{}", "x".repeat(5000));
    for prefix in ["invoice.requested", "invoice.draft", "other", &long] {
        encoder.message(&Message { prefix, content: b"{}", transactional: true, position: 10 });
    }
    commit(&mut encoder, 11);
    let (events, letters) = taken(&mut encoder);
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["type"], &events[0]["txlast"]), (&json!("shop.invoice.requested"), &json!(true)));
    assert_eq!((letters.len(), letters[0].position.index), (1, 3));
}
