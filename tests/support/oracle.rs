//! The oracle: does a stream tell exactly what happened to a database?
//!
//! It knows the contract and nothing of the gateway. It checks the identity and order of all events, the shape of every
//! transaction, and then replays the stream alone, from empty tables, and compares every row with the database.
//!
//! [`assert_faithful`] reads a stream from its beginning. A [`Witness`] keeps what it has read, so that a test that asks
//! again and again reads each event once.

use super::{
    database::{self, Row, Table, Tables, same},
    nats::Nats,
    postgres::Postgres,
    stream::{self, Event},
    workload,
};
use headgate_sdk::Position;
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

/// Waits until the stream of the source `shop` holds all that was written until now, then asserts that it is faithful.
/// Nobody may be writing.
///
/// # Panics
/// With a report, where it is not.
pub(crate) async fn assert_faithful(nats: &Nats, postgres: &Postgres) -> Vec<Event> {
    Witness::default().assert_faithful(nats, postgres).await
}

/// Somebody who has read a stream up to a message and remembers all of it. A clone is what they knew at that time, for
/// a stream that is put back to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witness {
    /// The last message's sequence and event id.
    last: Option<(u64, String)>,
    events: usize,
    chain: Chain,
    replay: Replay,
}

impl Witness {
    /// [`assert_faithful`] of everything read so far and of what the stream holds behind it, which is returned.
    ///
    /// # Panics
    /// With a report, where it is not; or the last message that was read is not there any more.
    pub(crate) async fn assert_faithful(&mut self, nats: &Nats, postgres: &Postgres) -> Vec<Event> {
        const STREAM: &str = "EVENTS_shop";
        let client = postgres.client().await;
        let mark = workload::mark(&client).await;
        // That message is read again, to see that the stream is still the same up to here.
        let before = self.last.as_ref().map_or(0, |(sequence, _)| sequence - 1);
        let (mut events, last) =
            stream::read_after(nats, STREAM, before, Duration::from_secs(120), |event| {
                event.data.table == "public.marks"
                    && event.data.key.as_ref().is_some_and(|key| key["id"] == mark)
            })
            .await;
        if let Some((sequence, id)) = &self.last {
            let first = events.remove(0);
            assert_eq!(first.attribute("id"), id, "another event at sequence {sequence}");
        }
        self.last = events.last().map(|event| (last, event.attribute("id").to_owned()));
        let database = database::read(&client, "public").await;
        self.hear(&events, &database);
        let found = self.violations(&database);
        assert!(found.is_empty(), "{}", report(self.events, &events, &found));
        // Shown with `--success-output`: a figure to tell of a soak.
        println!("faithful: {} events", self.events);
        events
    }

    /// The sequence of the last message that was read.
    pub(crate) fn sequence(&self) -> u64 {
        self.last.as_ref().map_or(0, |(sequence, _)| *sequence)
    }

    fn hear(&mut self, events: &[Event], database: &Tables) {
        for event in events {
            self.chain.hear(event);
            if is_row_change(event) {
                self.replay.apply(event, database);
            }
        }
        self.events += events.len();
    }

    fn violations(&self, database: &Tables) -> Vec<String> {
        let mut found = self.chain.violations();
        found.extend(self.replay.violations(database));
        found
    }
}

fn report(all: usize, events: &[Event], found: &[String]) -> String {
    let rows = events.iter().filter(|event| is_row_change(event)).count();
    let mut text = format!(
        "the stream is not faithful: {} violations in {all} events; {} were read last ({rows} row changes)",
        found.len(),
        events.len()
    );
    for violation in found.iter().take(20) {
        text.push_str("\n  - ");
        text.push_str(violation);
    }
    text
}

/// What is wrong with a stream by itself, whatever the database holds.
pub(crate) fn malformed(events: &[Event]) -> Vec<String> {
    let mut chain = Chain::default();
    events.iter().for_each(|event| chain.hear(event));
    chain.violations()
}

/// Everything that is wrong with a stream, given the database that it should tell of.
pub(crate) fn violations(events: &[Event], database: &Tables) -> Vec<String> {
    let mut witness = Witness::default();
    witness.hear(events, database);
    witness.violations(database)
}

fn is_row_change(event: &Event) -> bool {
    matches!(event.data.op.as_str(), "created" | "updated" | "deleted" | "truncated" | "snapshot")
}

/// The order of events: ids are unique, sequences rise. A transaction's events are together, numbered from 0 without a
/// hole, and its last one says so.
#[derive(Clone, Debug, Default)]
struct Chain {
    ids: HashSet<String>,
    last: String,
    transactions: HashSet<(u16, u64)>,
    /// The transaction whose end has not come: the position, `txindex` and `txid` of its last event.
    open: Option<(Position, u64, String)>,
    found: Vec<String>,
}

impl Chain {
    fn hear(&mut self, event: &Event) {
        let (id, sequence) = (event.attribute("id"), event.attribute("sequence"));
        if !self.ids.insert(id.to_owned()) {
            self.found.push(format!("{id}: this id came before"));
        }
        if sequence <= self.last.as_str() {
            self.found.push(format!("{id}: sequence {sequence:?} comes after {:?}", self.last));
        }
        sequence.clone_into(&mut self.last);
        if !event.attribute("txid").is_empty() {
            self.hear_in_transaction(event);
        }
    }

    fn hear_in_transaction(&mut self, event: &Event) {
        let (id, txid) = (event.attribute("id"), event.attribute("txid"));
        let Ok(position) = event.attribute("sequence").parse::<Position>() else {
            self.found.push(format!("{id}: sequence is not a position"));
            return;
        };
        let Ok(index) = event.attribute("txindex").parse::<u64>() else {
            self.found.push(format!("{id}: txindex is {:?}", event.attribute("txindex")));
            return;
        };
        let same_transaction =
            |former: &Position| (former.epoch, former.commit) == (position.epoch, position.commit);
        match &self.open {
            // A server that takes over tells the rest of a transaction in an epoch of its own.
            Some((former, last, of))
                if same_transaction(former) || (former.epoch < position.epoch && of == txid) =>
            {
                if index != last + 1 {
                    self.found.push(format!("{id}: txindex {index} of its transaction comes after {last}"));
                }
                if of != txid {
                    self.found.push(format!("{id}: txid {txid} within transaction {of}"));
                }
            }
            open => {
                if let Some((former, _, of)) = open {
                    self.found.push(format!(
                        "{id}: transaction {of} was open at {former}, its last event is missing"
                    ));
                }
                if index != 0 {
                    self.found.push(format!("{id}: its transaction begins at txindex {index}"));
                }
                if !self.transactions.insert((position.epoch, position.commit)) {
                    self.found.push(format!("{id}: its transaction had ended before"));
                }
            }
        }
        self.open = (event.attribute("txlast") != "true").then(|| (position, index, txid.to_owned()));
    }

    fn violations(&self) -> Vec<String> {
        let mut found = self.found.clone();
        if let Some((former, _, of)) = &self.open {
            found.push(format!("transaction {of} is open at {former}, where the stream ends"));
        }
        found
    }
}

fn compare(name: &str, table: &Table, replayed: &BTreeMap<Row, Row>, found: &mut Vec<String>) {
    for (key, row) in &table.rows {
        let Some(told) = replayed.get(key) else {
            found.push(format!("{name} {key:?}: the database has this row, the stream does not"));
            continue;
        };
        for (column, value) in row {
            match told.get(column) {
                Some(other) if same(table.types.get(column), value, other) => {}
                other => found.push(format!(
                    "{name} {key:?}: {column} is {value} in the database, {other:?} in the stream"
                )),
            }
        }
        for column in told.keys().filter(|column| !row.contains_key(*column)) {
            found.push(format!(
                "{name} {key:?}: the stream tells of a column {column} that the database does not have"
            ));
        }
    }
    for key in replayed.keys().filter(|key| !table.rows.contains_key(*key)) {
        found.push(format!("{name} {key:?}: the stream has this row, the database does not"));
    }
}

/// Rows of a table that are known not to be there.
#[derive(Clone, Debug, Default)]
struct Gone {
    keys: HashSet<Row>,
    /// Since then only rows that were created.
    all: bool,
}

/// The stream replayed from empty tables.
#[derive(Clone, Debug, Default)]
struct Replay {
    tables: BTreeMap<String, BTreeMap<Row, Row>>,
    /// What is known to be gone.
    gone: BTreeMap<String, Gone>,
    /// Whether rows were told that a snapshot read: then they may have been there, and changed, before anybody told them.
    read: bool,
    /// What is wrong where every row was told from its beginning.
    unheard: Vec<String>,
    /// The row that lost its key in the event before, waiting for its new one.
    moving: Option<Row>,
    found: Vec<String>,
}

impl Replay {
    /// What is wrong so far, and where the tables differ from the database's.
    fn violations(&self, database: &Tables) -> Vec<String> {
        let (mut found, empty) = (self.found.clone(), BTreeMap::new());
        if !self.read {
            found.extend(self.unheard.iter().cloned());
        }
        for (name, table) in database {
            compare(name, table, self.tables.get(name).unwrap_or(&empty), &mut found);
        }
        for (name, rows) in &self.tables {
            if !database.contains_key(name) && !rows.is_empty() {
                found.push(format!(
                    "{name}: the stream has {} rows of a table that the database does not have",
                    rows.len()
                ));
            }
        }
        found
    }

    fn apply(&mut self, event: &Event, database: &Tables) {
        let data = &event.data;
        let rows = self.tables.entry(data.table.clone()).or_default();
        let gone = self.gone.entry(data.table.clone()).or_default();
        let moved = self.moving.take();
        if data.op == "truncated" {
            rows.clear();
            *gone = Gone { keys: HashSet::new(), all: true };
            return;
        }
        let at = format!("{}: {} {} {:?}", event.attribute("id"), data.op, data.table, data.key);
        let Some(key) = data.key.clone() else {
            self.found.push(format!("{at}: no key"));
            return;
        };
        let former = rows.get(&key);
        // What the stream said last about a row is what the log says that the row was.
        if let (Some(former), Some(before)) = (former, &data.before) {
            let types = database.get(&data.table).map(|table| &table.types);
            for (column, value) in before {
                let kind = types.and_then(|types| types.get(column));
                let known = former.get(column);
                if !known.is_some_and(|known| same(kind, known, value)) {
                    let found = if known.is_some() { &mut self.found } else { &mut self.unheard };
                    found.push(format!(
                        "{at}: before, {column} was {value}; the stream left it at {:?}",
                        former.get(column)
                    ));
                }
            }
        }
        match (data.op.as_str(), former) {
            ("created", Some(_)) => self.found.push(format!("{at}: the row is there already")),
            ("updated" | "deleted", None) => {
                self.unheard.push(format!("{at}: there is no such row"));
            }
            _ => {}
        }
        if data.op == "snapshot" {
            self.read = true;
            // A row that was read is what the changes before it say that it is.
            let types = database.get(&data.table).map(|table| &table.types);
            for (column, value) in data.after.iter().flatten() {
                let kind = types.and_then(|types| types.get(column));
                if let Some(known) = former.and_then(|former| former.get(column))
                    && !same(kind, known, value)
                {
                    self.found.push(format!("{at}: {column} is {value}, and was told to be {known} before"));
                }
            }
            if former.is_none() && (gone.all || gone.keys.contains(&key)) {
                self.found.push(format!("{at}: the row was told to be gone before"));
            }
        }
        if data.op == "deleted" {
            gone.keys.insert(key.clone());
            let former = rows.remove(&key);
            self.moving = former.filter(|_| data.rekeyed);
            return;
        }
        let Some(mut after) = data.after.clone() else {
            self.found.push(format!("{at}: no row after it"));
            return;
        };
        let kept = if data.rekeyed { moved.as_ref() } else { former };
        for column in &data.unavailable {
            match kept.and_then(|kept| kept.get(column)) {
                Some(_) if after.contains_key(column) => {
                    self.found.push(format!("{at}: {column} is unavailable and has a value"));
                }
                Some(value) => {
                    after.insert(column.clone(), value.clone());
                }
                None => self.unheard.push(format!("{at}: {column} is unavailable and was never told")),
            }
        }
        gone.keys.remove(&key);
        rows.insert(key, after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::stream::Data;

    fn row(columns: &[(&str, &str)]) -> Row {
        columns.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn event(commit: u64, index: u32, last: bool, op: &str, id: &str, columns: &[(&str, &str)]) -> Event {
        let position = Position { epoch: 1, commit, index }.to_string();
        let attributes = [
            ("id", position.clone()),
            ("sequence", position),
            ("txid", commit.to_string()),
            ("txindex", index.to_string()),
            ("txlast", last.to_string()),
        ];
        let mut after = row(columns);
        after.insert("id".to_owned(), id.to_owned());
        Event {
            subject: "events.shop.orders.created.0".to_owned(),
            attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
            data: Data {
                op: op.to_owned(),
                table: "public.orders".to_owned(),
                key: Some(row(&[("id", id)])),
                after: (op != "deleted").then_some(after),
                ..Data::default()
            },
        }
    }

    /// Three transactions: two rows; an update, a delete and an update that left `body` out; a change of key.
    fn faithful() -> (Vec<Event>, Tables) {
        let mut kept = event(20, 2, true, "updated", "1", &[("status", "\"paid\"")]);
        kept.data.unavailable = vec!["body".to_owned()];
        let mut old = event(30, 0, false, "deleted", "1", &[]);
        let mut new = event(30, 1, true, "created", "9", &[("status", "\"paid\"")]);
        (old.data.rekeyed, new.data.rekeyed) = (true, true);
        old.data.before = Some(row(&[("id", "1")]));
        new.data.unavailable = vec!["body".to_owned()];
        let events = vec![
            event(10, 0, false, "created", "1", &[("status", "\"new\""), ("body", "\"long\"")]),
            event(10, 1, true, "created", "2", &[("status", "\"new\""), ("body", "null")]),
            event(20, 0, false, "updated", "1", &[("status", "\"seen\""), ("body", "\"longer\"")]),
            event(20, 1, false, "deleted", "2", &[]),
            kept,
            old,
            new,
        ];
        let mut table = Table::default();
        table
            .rows
            .insert(row(&[("id", "9")]), row(&[("id", "9"), ("status", "\"paid\""), ("body", "\"longer\"")]));
        (events, Tables::from([("public.orders".to_owned(), table)]))
    }

    fn with(change: impl FnOnce(&mut Vec<Event>)) -> String {
        let (mut events, database) = faithful();
        change(&mut events);
        violations(&events, &database).join("\n")
    }

    #[test]
    fn a_faithful_stream_passes() {
        let (events, database) = faithful();
        assert_eq!(violations(&events, &database), Vec::<String>::new());
    }

    #[test]
    fn every_lost_event_is_seen() {
        for lost in 0..faithful().0.len() {
            assert_ne!(with(|events| drop(events.remove(lost))), "", "event {lost} was lost unseen");
        }
    }

    #[test]
    fn every_lost_transaction_is_seen() {
        for lost in [10, 20, 30] {
            let of = format!("{lost}");
            assert_ne!(
                with(|events| events.retain(|event| event.attribute("txid") != of)),
                "",
                "transaction {lost}"
            );
        }
    }

    #[test]
    fn every_doubled_event_is_seen() {
        for doubled in 0..faithful().0.len() {
            let report = with(|events| events.insert(doubled, events[doubled].clone()));
            assert!(report.contains("this id came before"), "event {doubled}: {report}");
        }
    }

    #[test]
    fn every_swap_of_neighbours_is_seen() {
        for first in 0..faithful().0.len() - 1 {
            let report = with(|events| events.swap(first, first + 1));
            assert!(report.contains("comes after"), "event {first}: {report}");
        }
    }

    #[test]
    fn a_wrong_value_is_seen() {
        let report = with(|events| {
            events[6].data.after.as_mut().unwrap().insert("status".to_owned(), "\"lost\"".to_owned());
        });
        assert!(
            report.contains(r#"status is "paid" in the database, Some("\"lost\"") in the stream"#),
            "{report}"
        );
    }

    #[test]
    fn a_value_that_was_wrong_for_a_while_is_seen_by_the_image_before() {
        let report = with(|events| events[2].data.before = Some(row(&[("id", "1"), ("status", "\"old\"")])));
        assert!(report.contains("the stream left it at"), "{report}");
    }

    #[test]
    fn null_in_the_place_of_an_unavailable_value_is_seen() {
        let report = with(|events| {
            events[4].data.unavailable.clear();
            events[4].data.after.as_mut().unwrap().insert("body".to_owned(), "null".to_owned());
        });
        assert!(report.contains("body is \"longer\" in the database"), "{report}");
    }

    #[test]
    fn a_hole_in_the_indexes_is_seen() {
        let report = with(|events| drop(events[4].attributes.insert("txindex".to_owned(), "3".to_owned())));
        assert_eq!(report, "0001-0000000000000014-00000002: txindex 3 of its transaction comes after 1");
        let report = with(|events| drop(events[1].attributes.insert("txindex".to_owned(), "0".to_owned())));
        assert!(report.contains("txindex 0 of its transaction comes after 0"), "{report}");
        let report = with(|events| drop(events[1].attributes.remove("txindex")));
        assert!(report.contains("txindex is \"\""), "{report}");
    }

    #[test]
    fn a_witness_who_asks_often_sees_what_one_who_asks_once_sees() {
        let (events, database) = faithful();
        for cut in 0..events.len() {
            let mut witness = Witness::default();
            witness.hear(&events[..cut], &database);
            witness.hear(&events[cut..], &database);
            assert_eq!(witness.violations(&database), Vec::<String>::new());
            witness.hear(&events[cut..], &database);
            assert_ne!(witness.violations(&database), Vec::<String>::new(), "doubled from {cut} on");
        }
    }

    #[test]
    fn a_transaction_without_an_end_is_seen() {
        for last in [1, 4, 6] {
            let report =
                with(|events| drop(events[last].attributes.insert("txlast".to_owned(), "false".to_owned())));
            assert!(report.contains("open at"), "{report}");
        }
        let report = with(|events| drop(events[0].attributes.insert("txlast".to_owned(), "true".to_owned())));
        assert!(report.contains("its transaction begins at txindex 1"), "{report}");
    }

    #[test]
    fn a_transaction_within_another_is_seen() {
        let report = with(|events| {
            events.swap(1, 2);
        });
        assert!(report.contains("its last event is missing"), "{report}");
        assert!(report.contains("its transaction had ended before"), "{report}");
    }

    #[test]
    fn rows_of_one_side_alone_are_seen() {
        let (events, mut database) = faithful();
        database.get_mut("public.orders").unwrap().rows.insert(row(&[("id", "7")]), row(&[("id", "7")]));
        assert!(
            violations(&events, &database)
                .join("\n")
                .contains("the database has this row, the stream does not")
        );
        database.clear();
        assert!(violations(&events, &database).join("\n").contains("that the database does not have"));
        let empty = Tables::from([("public.orders".to_owned(), Table::default())]);
        assert!(
            violations(&events, &empty).join("\n").contains("the stream has this row, the database does not")
        );
    }

    #[test]
    fn a_truncate_empties_the_table() {
        let (mut events, mut database) = faithful();
        let mut truncated = event(40, 0, true, "truncated", "0", &[]);
        (truncated.data.key, truncated.data.after) = (None, None);
        events.push(truncated);
        assert_ne!(violations(&events, &database), Vec::<String>::new());
        database.get_mut("public.orders").unwrap().rows.clear();
        assert_eq!(violations(&events, &database), Vec::<String>::new());
    }
}
