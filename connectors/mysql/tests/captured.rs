//! Logs of real servers: every event is decoded, and the rows are what a query on the same server says.
//!
//! `data/capture.sh` took them. Each server's `.binlog` is one file of its log, `.catalog` and `.rows` are what queries said
//! after the last event, and `.json` holds every change as this crate writes it, read and checked by eye.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use headgate_mysql::{
    event::{Event, Flavor, Frame, Images, RowChange, Rows},
    table::{DescribedColumn, Description, SnapshotTable, Table},
    value::Kind,
};
use headgate_sdk::{Cell, Relation};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A log as it is told.
#[derive(Default)]
struct Replay {
    flavor: Option<Flavor>,
    catalog: BTreeMap<String, Description>,
    tables: HashMap<u64, Option<Arc<Table>>>,
    /// The rows of each table by their first column, each column as JSON; `None` where it was never told.
    state: BTreeMap<String, BTreeMap<String, Vec<Option<String>>>>,
    /// Every change, a line each.
    changes: Vec<String>,
    /// How often each type of event came.
    kinds: BTreeMap<u8, u32>,
    partial: Vec<u8>,
}

fn data(server: &str, kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("{server}.{kind}"))
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    (0..text.len() / 2).map(digit).collect()
}

fn catalog(server: &str) -> BTreeMap<String, Description> {
    let mut tables: BTreeMap<String, (Description, Vec<(u32, String)>)> = BTreeMap::new();
    for line in fs::read_to_string(data(server, "catalog")).unwrap().lines() {
        let [table, _, name, column_type, charset, json, key, row_end] =
            line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let text = |hex| String::from_utf8(unhex(hex)).unwrap();
        let (description, keys) = tables.entry(table.to_owned()).or_default();
        description.columns.push(DescribedColumn {
            name: text(name),
            column_type: text(column_type),
            character_set: (charset != "-").then(|| charset.to_owned()),
            // Not among what was captured either: what is in the log is not compared by it.
            collation: None,
            json: json == "1",
            row_end: row_end == "1",
            // Not among what was captured, and no part of how a value is read.
            nullable: true,
        });
        if key != "0" {
            keys.push((key.parse().unwrap(), text(name)));
        }
    }
    let finish = |(table, (mut description, mut keys)): (String, (Description, Vec<(u32, String)>))| {
        keys.sort();
        description.key = keys.into_iter().map(|(_, name)| name).collect();
        (table, description)
    };
    tables.into_iter().map(finish).collect()
}

/// The columns of a row as JSON.
fn columns(relation: &Relation, cells: &[Cell<'_>]) -> Vec<Option<String>> {
    let write = |(column, cell): (&headgate_sdk::Column, &Cell<'_>)| {
        let mut out = Vec::new();
        match cell {
            Cell::Unavailable => return None,
            Cell::Null => out.extend_from_slice(b"null"),
            Cell::Value(raw) => {
                if let Err(error) = column.writer.write(raw, &mut out) {
                    panic!("{}.{}: {error}: {raw:x?}", relation.table, column.name);
                }
            }
        }
        let json = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde::de::IgnoredAny>(&json)
            .unwrap_or_else(|error| panic!("{json}: {error}"));
        Some(json)
    };
    relation.columns.iter().zip(cells).map(write).collect()
}

/// A row as one JSON object.
fn object(relation: &Relation, columns: &[Option<String>]) -> String {
    let members = relation.columns.iter().zip(columns).filter_map(|(column, value)| {
        Some(format!("{}:{}", serde_json::to_string(&column.name).unwrap(), value.as_ref()?))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

impl Replay {
    fn run(server: &str) -> Self {
        let mut replay = Self { catalog: catalog(server), ..Self::default() };
        let file = fs::read(data(server, "binlog")).unwrap();
        let mut rest = file.strip_prefix(b"\xfebin").unwrap();
        let mut checksums = false;
        while !rest.is_empty() {
            let size = usize::try_from(u32::from_le_bytes(rest[9..13].try_into().unwrap())).unwrap();
            let frame = Frame::decode(&rest[..size], checksums).unwrap();
            checksums = frame.checksums;
            replay.event(&Event::decode(&frame.header, frame.body).unwrap(), frame.header.kind);
            rest = &rest[size..];
        }
        replay
    }

    fn event(&mut self, event: &Event<'_>, kind: u8) {
        *self.kinds.entry(kind).or_default() += 1;
        match event {
            Event::Format(format) => self.flavor = Some(format.flavor),
            Event::TableMap(map) => {
                let table = (map.schema == "captured").then(|| {
                    let description = self.catalog.get(map.table);
                    let table = Table::prepare(map, self.flavor.unwrap(), description).unwrap();
                    assert!(table.describes(map));
                    Arc::new(table)
                });
                self.tables.insert(map.table_id, table);
            }
            Event::Rows(rows) => {
                if let Some(table) = self.tables[&rows.table_id].clone() {
                    self.rows(rows, &table);
                }
            }
            Event::Payload(payload) => {
                let mut events = payload.events(1 << 20).unwrap();
                while let Some((header, body)) = events.next_event().unwrap() {
                    let body = body.to_vec();
                    self.event(&Event::decode(&header, &body).unwrap(), header.kind);
                }
            }
            Event::Gtid(gtid) => {
                let tag = gtid.id.unwrap().source.tag;
                if !tag.is_empty() {
                    self.changes.push(format!("tagged {}", tag.as_str()));
                }
            }
            Event::XaPrepare(xa) => self.changes.push(xa.name()),
            _ => {}
        }
    }

    fn rows(&mut self, rows: &Rows<'_>, table: &Table) {
        let relation = table.relation();
        let mut scratch = std::mem::take(&mut self.partial);
        let mut reader = rows.read(table, &mut scratch).unwrap();
        let mut images = Images::default();
        let state = self.state.entry(relation.table.clone()).or_default();
        let key = |columns: &[Option<String>]| columns[0].clone().unwrap();
        while reader.next_row(&mut images).unwrap() {
            let before = columns(relation, &images.before);
            let after = columns(relation, &images.after);
            self.changes.push(match rows.change {
                RowChange::Write => {
                    state.insert(key(&after), after.clone());
                    format!("+ {} {}", relation.table, object(relation, &after))
                }
                RowChange::Delete => {
                    state.remove(&key(&before));
                    format!("- {} {}", relation.table, object(relation, &before))
                }
                RowChange::Update => {
                    let old = state.remove(&key(&before)).unwrap_or_default();
                    for (told, known) in before.iter().zip(&old) {
                        assert!(told.is_none() || known.is_none() || told == known, "{told:?} was {known:?}");
                    }
                    let merge = |(at, value): (usize, &Option<String>)| {
                        // What the log leaves out is as it was, but for a document: it may have been changed by a part
                        // while the old one was not told.
                        let old = || old.get(at).cloned().flatten();
                        let document = table.kinds()[at] == Kind::Json && before[at].is_none();
                        value.clone().or_else(|| if document { None } else { old() })
                    };
                    let merged: Vec<_> = after.iter().enumerate().map(merge).collect();
                    state.insert(key(&merged), merged);
                    let (before, after) = (object(relation, &before), object(relation, &after));
                    format!("= {} {before} -> {after}", relation.table)
                }
            });
        }
        self.partial = scratch;
    }
}

/// Compares what the log told with what a query says, and every change with what was checked by eye.
fn check(server: &str, unlike: &[&str]) -> Replay {
    let replay = Replay::run(server);
    let mut compared = 0;
    let rows = fs::read_to_string(data(server, "rows")).unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in rows.lines() {
        let mut cells = line.split('\t');
        let table = cells.next().unwrap();
        *counts.entry(table).or_default() += 1;
        if unlike.contains(&table) {
            continue;
        }
        let snapshot = SnapshotTable::prepare("captured", table, &replay.catalog[table]).unwrap();
        let raw: Vec<Option<Vec<u8>>> = cells.map(|cell| (cell != "NULL").then(|| unhex(cell))).collect();
        let cells: Vec<Cell<'_>> =
            raw.iter().map(|raw| raw.as_ref().map_or(Cell::Null, |raw| Cell::Value(raw))).collect();
        let asked = columns(&snapshot.relation, &cells);
        let told = &replay.state[table][asked[0].as_ref().unwrap()];
        for (column, (told, asked)) in snapshot.relation.columns.iter().zip(told.iter().zip(&asked)) {
            assert_eq!(told, asked, "{server}: {table}.{} of row {:?}", column.name, cells[0]);
            compared += 1;
        }
        assert_eq!(told.len(), asked.len(), "{table}");
    }
    for (table, rows) in &replay.state {
        if !unlike.contains(&table.as_str()) {
            assert_eq!(
                counts.get(table.as_str()).copied().unwrap_or_default(),
                rows.len(),
                "{server}: rows of {table}"
            );
        }
    }
    assert!(compared > 400, "only {compared} values were compared");
    let short = replay.changes.iter().filter(|change| change.len() < 10_000);
    let told: String = short.map(|change| format!("{change}\n")).collect();
    let path = data(server, "json");
    if server != "mariadb-10.11" && fs::read_to_string(&path).unwrap_or_default() != told {
        let new = path.with_extension("json.new");
        fs::write(&new, told).unwrap();
        panic!("the changes are not those of {}; see {}", path.display(), new.display());
    }
    replay
}

/// The names of a table's columns and of its key, and the types, from the log's last TABLE_MAP of it.
fn shape<'r>(replay: &'r Replay, table: &str) -> &'r Relation {
    let mut found = replay.tables.values().flatten().filter(|known| known.relation().table == table);
    found.next().unwrap().relation()
}

/// The log and the catalog call each column and each key the same.
fn same_shapes(replay: &Replay, unlike: &[&str]) {
    for known in replay.tables.values().flatten() {
        let relation = known.relation();
        if unlike.contains(&relation.table.as_str()) {
            continue;
        }
        let snapshot =
            SnapshotTable::prepare("captured", &relation.table, &replay.catalog[&relation.table]).unwrap();
        let columns = |relation: &Relation| -> Vec<(String, String)> {
            relation.columns.iter().map(|column| (column.name.clone(), column.type_name.clone())).collect()
        };
        assert_eq!(columns(relation), columns(&snapshot.relation), "{}", relation.table);
        assert_eq!(relation.key, snapshot.relation.key, "{}", relation.table);
    }
}

#[test]
fn mysql_9_7() {
    let replay = check("mysql-9.7", &["keyless", "large"]);
    let large = replay.state["large"]["1"][1].as_ref().unwrap();
    let (a, b) = ("é".repeat(20_000), "y".repeat(40_000));
    assert_eq!(
        *large,
        format!("{{\"a\": \"{a}\", \"b\": [\"{b}\", 7, 70000, -70000, 1.5, 3000000000, 5000000000.0]}}")
    );
    same_shapes(&replay, &[]);
    assert_eq!(shape(&replay, "key_order").key, [2, 1, 0]);
    for kind in [39, 40, 42, 38, 29, 35] {
        assert!(replay.kinds.contains_key(&kind), "no event of type {kind}");
    }
}

#[test]
fn mariadb_11_8() {
    let replay = check("mariadb-11.8", &["keyless", "versioned"]);
    same_shapes(&replay, &["versioned"]);
    assert_eq!(shape(&replay, "key_order").key, [2, 1, 0]);
    assert_eq!(shape(&replay, "versioned").key, [0]);
    for kind in [160, 162, 163, 165, 166, 167, 168] {
        assert!(replay.kinds.contains_key(&kind), "no event of type {kind}");
    }
}

#[test]
fn mariadb_10_11() {
    let replay = check("mariadb-10.11", &["keyless", "versioned"]);
    same_shapes(&replay, &["versioned"]);
    assert_eq!(shape(&replay, "key_order").key, [2, 1, 0]);
}
