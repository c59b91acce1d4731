//! How fast rows of ten columns are cut out of an event, and written as JSON. One core; the rate is rows per second.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headgate_mysql::{
    event::{Event, Flavor, Header, Images, kind},
    table::Table,
};
use headgate_sdk::Cell;
use std::hint::black_box;

/// Rows in one event.
const ROWS: u64 = 64;

/// A TABLE_MAP of bigint, varchar(255), varchar(20), text, decimal(12,2), datetime(6), tinyint, json, double and int unsigned.
fn table_map() -> Vec<u8> {
    let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0, 4];
    body.extend(b"shop\0\x06orders\0\x0a");
    body.extend([8, 15, 15, 252, 246, 18, 1, 245, 5, 3]);
    let meta = [0xfc, 3, 80, 0, 2, 12, 2, 6, 4, 8];
    body.push(meta.len() as u8);
    body.extend(meta);
    body.extend([0, 0]);
    // Signs (bigint, decimal, tinyint, double, int), collations of three texts, names, key.
    body.extend([1, 1, 0b0000_1000, 2, 3, 0xfc, 255, 0, 4, 0]);
    let at = body.len() - 1;
    for name in ["id", "email", "state", "note", "total", "at", "open", "doc", "weight", "count"] {
        body.push(name.len() as u8);
        body.extend(name.bytes());
    }
    body[at] = (body.len() - at - 1) as u8;
    body.extend([8, 1, 0]);
    body
}

fn rows() -> Vec<u8> {
    let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 10, 0xff, 0x03];
    for row in 0..ROWS {
        body.extend([0, 0]);
        body.extend((9_007_199_254_740_993 + row).to_le_bytes());
        let email = format!("customer-{row}@example.com");
        body.extend((email.len() as u16).to_le_bytes());
        body.extend(email.bytes());
        body.extend(b"\x04paid");
        let note = if row.is_multiple_of(8) {
            "Zoë said \"hello\"\n".repeat(2)
        } else {
            "a line of plain text, as most are".to_owned()
        };
        body.extend((note.len() as u16).to_le_bytes());
        body.extend(note.bytes());
        body.extend([0x80, 0, 0, row as u8, 0, 99]);
        body.extend([0x99, 0xb6, 0xac, 0xe1, 0x87, 0, 0, row as u8]);
        body.push((row % 2) as u8);
        // {"sku": "A-0000", "tags": ["new", 1]}
        let doc =
            b"\x00\x02\x00\x2e\x00\x12\x00\x03\x00\x15\x00\x04\x00\x0c\x19\x00\x02\x20\x00skutags\x06A-0000\
            \x02\x00\x0e\x00\x0c\x0a\x00\x05\x01\x00\x03new";
        body.extend((doc.len() as u32).to_le_bytes());
        body.extend(doc);
        body.extend((row as f64 * 3.0 + 0.125).to_le_bytes());
        body.extend((row as u32).to_le_bytes());
    }
    body
}

fn header(kind: u8) -> Header {
    Header { timestamp: 0, kind, server_id: 1, size: 19, log_pos: 0, flags: 0 }
}

fn decode(criterion: &mut Criterion) {
    let (map, body) = (table_map(), rows());
    let Event::TableMap(map) = Event::decode(&header(kind::TABLE_MAP), &map).unwrap() else { panic!() };
    let table = Table::prepare(&map, Flavor::MySql, None).unwrap();
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(ROWS));

    group.bench_function("cut", |bencher| {
        bencher.iter(|| {
            let Event::Rows(rows) = Event::decode(&header(kind::WRITE_ROWS), &body).unwrap() else {
                panic!()
            };
            let mut scratch = Vec::new();
            let mut reader = rows.read(&table, &mut scratch).unwrap();
            let mut images = Images::default();
            while reader.next_row(&mut images).unwrap() {
                black_box(&images);
            }
        });
    });

    group.bench_function("cut and write", |bencher| {
        let mut out = Vec::with_capacity(1 << 16);
        bencher.iter(|| {
            let Event::Rows(rows) = Event::decode(&header(kind::WRITE_ROWS), &body).unwrap() else {
                panic!()
            };
            let mut scratch = Vec::new();
            let mut reader = rows.read(&table, &mut scratch).unwrap();
            let mut images = Images::default();
            out.clear();
            while reader.next_row(&mut images).unwrap() {
                for (column, cell) in table.relation().columns.iter().zip(&images.after) {
                    match cell {
                        Cell::Value(raw) => column.writer.write(raw, &mut out).unwrap(),
                        Cell::Null | Cell::Unavailable => out.extend_from_slice(b"null"),
                    }
                    out.push(b',');
                }
            }
            black_box(&out);
        });
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
