//! A table's new shape is told before its first event, at a position that depends on nothing but the log.

use super::*;
use crate::{
    condition::Condition,
    config::{OnIncompatible, Outbox, SemanticEvent, Shaping},
    event::Event,
    schema::{Known, Note, Shape, Turn},
};

fn version(id: u64, columns: &[&str]) -> Arc<Relation> {
    let Some(mut relation) = Arc::into_inner(relation("public", "orders", columns, &[0])) else {
        panic!("nobody else has it")
    };
    relation.id = id;
    Arc::new(relation)
}

fn with(
    known: Known,
    resume: Option<Position>,
    on_incompatible: OnIncompatible,
    shaping: Shaping,
) -> Encoder {
    let look = Look {
        style: Style {
            source: "shop".to_owned(),
            uri: "/headgate/shop".to_owned(),
            type_prefix: "shop".to_owned(),
            form: Form::new(Mode::Structured),
            template: Template::parse(TEMPLATE).unwrap(),
            partitions: 16,
        },
        entities: BTreeMap::new(),
        default_schema: "public".to_owned(),
        shaping: shaping::Shaping::new(shaping),
    };
    let shapes = shapes::Shapes::new("shop", on_incompatible, known);
    let mut encoder = Encoder::new(look, Metrics::new().source("shop"), resume, resume, shapes);
    encoder.set_epoch(1);
    encoder
}

fn fresh() -> Encoder {
    with(Known::default(), None, OnIncompatible::Warn, Shaping::default())
}

fn insert(encoder: &mut Encoder, relation: &Arc<Relation>, values: &[Cell<'_>]) {
    encoder.change(&Change { relation, op: Op::Created, before: None, after: Some(values) });
}

fn raw(encoder: &mut Encoder) -> Vec<Event> {
    let items = encoder.take().map(|(items, _)| items).unwrap_or_default();
    items
        .into_iter()
        .filter_map(|item| if let Item::Event(event) = item { Some(event) } else { None })
        .collect()
}

/// Events without when they were recorded.
fn told(encoder: &mut Encoder) -> Vec<(Position, Value)> {
    let parse = |event: Event| {
        let mut value: Value = serde_json::from_slice(&event.payload).unwrap();
        value.as_object_mut().unwrap().remove("recordedtime");
        (event.position, value)
    };
    raw(encoder).into_iter().map(parse).collect()
}

/// What the registry would know where the stream ends at `end`.
fn known_at(notes: &[Note], end: Option<Position>) -> Known {
    let mut known = Known::default();
    for note in notes {
        if let Turn::Told(since) = note.turn
            && end.is_some_and(|end| since <= end)
        {
            known.shapes.insert(note.table.clone(), note.shape.clone());
        }
    }
    known
}

/// Three transactions; the shape changes within the second, twice, and before the third.
fn history(encoder: &mut Encoder) {
    let first = version(1, &["id", "a"]);
    let second = version(2, &["id", "a", "b"]);
    let third = version(3, &["id", "b"]);
    begin(encoder, 10);
    insert(encoder, &first, &[value("1"), value("x")]);
    insert(encoder, &first, &[value("2"), value("x")]);
    commit(encoder, 11);
    begin(encoder, 20);
    insert(encoder, &first, &[value("3"), value("x")]);
    // It cannot be an event, and so is not the first of its shape.
    insert(encoder, &second, &[value("4"), Cell::Value(b"\xff"), value("y")]);
    insert(encoder, &second, &[value("5"), value("x"), value("y")]);
    insert(encoder, &third, &[value("6"), value("y")]);
    encoder.change(&Change {
        relation: &third,
        op: Op::Updated,
        before: Some(&[value("6"), value("y")]),
        after: Some(&[value("7"), value("y")]),
    });
    commit(encoder, 21);
    begin(encoder, 30);
    insert(encoder, &version(4, &["id", "a"]), &[value("8"), value("x")]);
    commit(encoder, 31);
}

#[test]
fn a_new_shape_is_told_before_its_first_event() {
    let mut encoder = fresh();
    history(&mut encoder);
    let seen = told(&mut encoder);
    let line: Vec<String> = seen
        .iter()
        .map(|(position, event)| {
            format!("{:x}.{} {} {}", position.commit, position.index, event["data"]["op"], event["txindex"])
                .replace('"', "")
        })
        .collect();
    assert_eq!(
        line,
        [
            "a.1 created 0",
            "a.3 created 1",
            "14.1 created 0",
            "14.4 schema null",
            "14.5 created 1",
            "14.6 schema null",
            "14.7 created 2",
            "14.9 deleted 3",
            "14.11 created 4",
            "1e.0 schema null",
            "1e.1 created 0",
        ]
    );
    let (_, event) = &seen[5];
    assert_eq!(event["id"], "0001-0000000000000014-00000006");
    assert_eq!((&event["sequence"], &event["subject"]), (&event["id"], &json!("orders")));
    assert_eq!((&event["type"], &event["partitionkey"]), (&json!("shop.orders.schema"), &json!("orders")));
    assert!(
        event.get("txid").is_none() && event.get("txlast").is_none() && event.get("dataschema").is_none()
    );
    assert_eq!(
        event["data"],
        json!({
            "op": "schema", "schema": "public", "table": "orders", "compatible": false,
            "from": seen[4].1["dataschema"], "to": seen[6].1["dataschema"],
            "changes": ["- a"], "diff": [{"change": "removed", "column": "a"}],
            "shape": {"columns": [{"name": "id", "type": "text"}, {"name": "b", "type": "text"}], "key": ["id"]},
        })
    );
    assert_eq!(seen[3].1["data"]["compatible"], true);
    assert_eq!(seen[3].1["data"]["diff"], json!([{"change": "added", "column": "b", "type": "text"}]));
    assert_eq!(seen[8].1.get("txlast"), Some(&json!(true)));
}

#[test]
fn a_run_that_begins_anywhere_tells_the_rest() {
    let mut encoder = fresh();
    history(&mut encoder);
    let all = told(&mut encoder);
    let (_, notes) = encoder.take_shapes();
    for (end, _) in &all {
        let mut encoder =
            with(known_at(&notes, Some(*end)), Some(*end), OnIncompatible::Warn, Shaping::default());
        history(&mut encoder);
        let rest: Vec<_> = all.iter().filter(|(position, _)| position > end).cloned().collect();
        assert_eq!(told(&mut encoder), rest, "from {end} on");
        // What was noted before the stream came as far is noted again, and nothing else.
        let left: Vec<Note> = notes
            .iter()
            .filter(|note| matches!(note.turn, Turn::Told(since) if since > *end))
            .cloned()
            .collect();
        assert_eq!(encoder.take_shapes().1, left, "from {end} on");
    }
}

#[test]
fn columns_in_another_order_are_no_news() {
    let mut encoder = fresh();
    begin(&mut encoder, 10);
    insert(&mut encoder, &version(1, &["id", "a", "b"]), &[value("1"), value("x"), value("y")]);
    insert(&mut encoder, &version(2, &["id", "b", "a"]), &[value("2"), value("y"), value("x")]);
    commit(&mut encoder, 11);
    let seen = told(&mut encoder);
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_ne!(seen[0].1["dataschema"], seen[1].1["dataschema"]);
}

#[test]
fn an_incompatible_shape_waits_until_it_is_accepted() {
    let mut encoder = fresh();
    history(&mut encoder);
    let all = told(&mut encoder);
    let (_, notes) = encoder.take_shapes();
    let (mut end, mut known, mut seen) = (None, Known::default(), Vec::new());
    for accepted in 0..=2 {
        let mut encoder = with(known.clone(), end, OnIncompatible::Stop, Shaping::default());
        history(&mut encoder);
        seen.extend(told(&mut encoder));
        end = seen.last().map(|(position, _): &(Position, Value)| *position);
        let refusal = encoder.take_refusal();
        if accepted == 2 {
            assert!(refusal.is_none(), "{refusal:?}");
            break;
        }
        let refusal = refusal.unwrap();
        assert!(refusal.message().contains("public.orders"), "{refusal}");
        assert!(refusal.fix().unwrap().contains("headgate source accept-schema shop 'public.orders'"));
        let waits = encoder.take_shapes().1.pop().unwrap();
        assert!(matches!(&waits.turn, Turn::Waits(changes) if changes[0] == ["- a", "- b"][accepted]));
        known = known_at(&notes, end);
        known.accepted.insert("public.orders".to_owned(), waits.shape.hash(""));
    }
    assert_eq!(seen, all, "nothing is lost, and nothing comes twice");
}

#[test]
fn a_new_shape_in_a_snapshot_does_not_say_that_its_row_was_told() {
    let mut encoder = fresh();
    let place = |place: &str| vec![SnapshotPlace { job: 1, table: 0, place: place.to_owned() }];
    encoder.places(&place("-"));
    encoder.begin_snapshot(SnapshotPoint { log: 100, read_at: 1 });
    for (id, relation) in [("1", version(1, &["id", "a"])), ("2", version(2, &["id", "b"]))] {
        encoder.places(&place(&format!("+{id}")));
        encoder.change(&Change {
            relation: &relation,
            op: Op::Snapshot,
            before: None,
            after: Some(&[value(id), value("x")]),
        });
    }
    encoder.end_snapshot();
    let seen: Vec<(u32, String, Option<u64>)> = raw(&mut encoder)
        .iter()
        .map(|event| {
            let places = String::from_utf8(event.places.to_vec()).unwrap();
            (event.position.index, places, event.transaction_end)
        })
        .collect();
    let row = |index, place: &str| (index, place.to_owned(), Some(100));
    assert_eq!(seen, [row(3, "1:0:+1"), (4, "1:0:+1".to_owned(), None), row(5, "1:0:+2")]);
}

#[test]
fn an_event_in_the_place_of_its_row_names_its_version_and_follows_the_new_shape() {
    let event = SemanticEvent {
        entity: "deal".to_owned(),
        verb: "moved".to_owned(),
        table: "public.orders".to_owned(),
        when: Condition::compile("op == 'created'").unwrap(),
        instead: true,
        key: None,
        data: Some(vec![crate::config::Member {
            name: "what".to_owned(),
            before: false,
            column: "id".to_owned(),
        }]),
    };
    let shaping = Shaping { events: vec![event], ..Shaping::default() };
    let mut encoder = with(Known::default(), None, OnIncompatible::Warn, shaping);
    begin(&mut encoder, 10);
    insert(&mut encoder, &version(1, &["id", "a"]), &[value("one"), value("x")]);
    insert(&mut encoder, &version(2, &["id", "b"]), &[value("two"), value("y")]);
    commit(&mut encoder, 11);
    let seen = told(&mut encoder);
    let kinds: Vec<&Value> = seen.iter().map(|(_, event)| &event["type"]).collect();
    assert_eq!(kinds, ["shop.deal.moved", "shop.orders.schema", "shop.deal.moved"]);
    assert_eq!(seen[0].1["dataschema"], seen[2].1["dataschema"], "its own data is what it was");
    let (versions, _) = encoder.take_shapes();
    let named = versions.iter().find(|version| json!(version.uri()) == seen[0].1["dataschema"]).unwrap();
    assert_eq!(named.entity, "deal.moved");
    let document = &named.document;
    assert_eq!(crate::schema::validate::violations(document, &seen[0].1["data"]), [""; 0]);
    assert_eq!(crate::schema::validate::violations(document, &json!({"x": 1})).len(), 1);
}

#[test]
fn nothing_of_a_change_leaves_whose_shape_has_to_be_accepted() {
    let touched = SemanticEvent {
        entity: "deal".to_owned(),
        verb: "touched".to_owned(),
        table: "public.orders".to_owned(),
        when: Condition::compile("op == 'updated'").unwrap(),
        instead: false,
        key: None,
        data: None,
    };
    let shaping = Shaping { events: vec![touched], ..Shaping::default() };
    let mut encoder = with(Known::default(), None, OnIncompatible::Stop, shaping);
    begin(&mut encoder, 10);
    insert(&mut encoder, &version(1, &["id", "a"]), &[value("1"), value("x")]);
    encoder.change(&Change {
        relation: &version(2, &["id", "b"]),
        op: Op::Updated,
        before: Some(&[value("1"), value("x")]),
        after: Some(&[value("2"), value("y")]),
    });
    insert(&mut encoder, &version(2, &["id", "b"]), &[value("3"), value("x")]);
    commit(&mut encoder, 11);
    assert!(encoder.take_refusal().is_some());
    let seen = told(&mut encoder);
    assert!(seen.is_empty(), "{seen:?}");
}

/// A row that cannot be read, which makes a dead letter.
fn reject(encoder: &mut Encoder) {
    encoder.reject(&RowFault { table: None, reason: "too large".to_owned(), size: 9 });
}

#[test]
fn dead_letters_leave_with_what_proves_them() {
    let mut encoder = with(Known::default(), None, OnIncompatible::Stop, Shaping::default());
    let taken = |encoder: &mut Encoder| -> String {
        let items = encoder.take().map(|(items, _)| items).unwrap_or_default();
        items
            .iter()
            .map(|item| match item {
                Item::Event(_) => 'e',
                Item::DeadLetter(_) => 'd',
                Item::Mark(_) => 'm',
            })
            .collect()
    };
    begin(&mut encoder, 10);
    insert(&mut encoder, &version(1, &["id", "a"]), &[value("1"), value("x")]);
    reject(&mut encoder);
    assert_eq!(taken(&mut encoder), "", "nothing behind it proves that it is kept");
    insert(&mut encoder, &version(1, &["id", "a"]), &[value("2"), value("x")]);
    reject(&mut encoder);
    assert_eq!(taken(&mut encoder), "de");
    commit(&mut encoder, 11);
    assert_eq!(taken(&mut encoder), "de");
    begin(&mut encoder, 20);
    reject(&mut encoder);
    commit(&mut encoder, 21);
    begin(&mut encoder, 30);
    insert(&mut encoder, &version(1, &["id", "a"]), &[value("3"), value("x")]);
    reject(&mut encoder);
    insert(&mut encoder, &version(2, &["id", "b"]), &[value("4"), value("x")]);
    assert_eq!(taken(&mut encoder), "dm", "those before a shape that waits are told again");
    assert!(encoder.take_refusal().is_some());
    // More than a batch of them do not wait.
    let mut encoder = fresh();
    begin(&mut encoder, 10);
    (0..1024).for_each(|_| reject(&mut encoder));
    assert_eq!(taken(&mut encoder).len(), 1024);
    // Nor do such as weigh as much.
    let mut encoder = fresh();
    begin(&mut encoder, 10);
    let large = "x".repeat(100_000);
    for nth in 0..3 {
        assert!(!encoder.is_full() && encoder.take().is_none(), "{nth}");
        insert(
            &mut encoder,
            &version(1, &["id", "a", "b"]),
            &[value("1"), value(&large), Cell::Value(b"\xff")],
        );
    }
    assert!(encoder.is_full());
    let (items, size) = encoder.take().unwrap();
    assert!(items.len() == 3 && size > 3 * large.len(), "{} of {size} bytes", items.len());
    assert!(!encoder.is_full());
}

#[test]
fn what_the_catalog_forgot_is_no_new_version_of_a_semantic_event() {
    let touched = SemanticEvent {
        entity: "deal".to_owned(),
        verb: "touched".to_owned(),
        table: "public.orders".to_owned(),
        when: Condition::compile("true").unwrap(),
        instead: true,
        key: None,
        data: None,
    };
    let shaping = Shaping { events: vec![touched], ..Shaping::default() };
    let mut required = Arc::into_inner(version(1, &["id", "a"])).unwrap();
    required.columns[1].nullable = Some(false);
    let required = Arc::new(required);
    let known =
        Known { shapes: [("public.orders".to_owned(), Shape::of(&required))].into(), ..Known::default() };
    let names = [required, version(2, &["id", "a"])].map(|relation| {
        let mut encoder = with(known.clone(), None, OnIncompatible::Warn, shaping.clone());
        begin(&mut encoder, 10);
        insert(&mut encoder, &relation, &[value("1"), value("x")]);
        commit(&mut encoder, 11);
        told(&mut encoder)[0].1["dataschema"].clone()
    });
    assert!(names[0].is_string());
    assert_eq!(names[0], names[1]);
}

/// An outbox whose types are as many as its rows.
#[test]
fn only_so_many_types_of_letters_have_versions_whichever_run_met_them() {
    let outbox = Outbox {
        table: "public.orders".to_owned(),
        id: None,
        entity: None,
        kind: None,
        key: None,
        payload: None,
        headers: None,
    };
    let shaping = Shaping { outboxes: vec![outbox], ..Shaping::default() };
    let columns = version(1, &["type", "payload"]);
    let versions = |letters: &[String], types: &[String]| -> Vec<bool> {
        let known = Known { letters: letters.iter().cloned().collect(), ..Known::default() };
        let mut encoder = with(known, None, OnIncompatible::Warn, shaping.clone());
        begin(&mut encoder, 10);
        for kind in types {
            insert(&mut encoder, &columns, &[value(kind), value("1")]);
        }
        commit(&mut encoder, 11);
        let is_own = |(_, event): (Position, Value)| {
            let name = event["dataschema"].as_str().unwrap().split(':').nth(4).unwrap().to_owned();
            name != "orders"
        };
        told(&mut encoder).into_iter().map(is_own).collect()
    };
    let types: Vec<String> = (0..257).map(|nth| format!("invoice.t{nth}")).collect();
    let met = versions(&[], &types);
    assert!(met[..256].iter().all(|own| *own) && !met[256]);
    assert_eq!(versions(&types[..256], &types[255..]), [true, false]);
}

#[test]
fn a_template_may_name_the_table_of_a_new_shape() {
    let mut encoder =
        encoder(Mode::Binary, "events.{source}.{schema}.{table}.{verb}.{partition}.{key}", None);
    begin(&mut encoder, 10);
    insert(&mut encoder, &version(1, &["id", "a"]), &[value("1"), value("x")]);
    insert(&mut encoder, &version(2, &["id", "b"]), &[value("2"), value("x")]);
    commit(&mut encoder, 11);
    let subjects: Vec<String> = raw(&mut encoder).iter().map(|event| event.subject.to_string()).collect();
    assert!(subjects[1].starts_with("events.shop.public.orders.schema."), "{subjects:?}");
}
