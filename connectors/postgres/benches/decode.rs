//! How fast rows of ten columns are decoded, and written as JSON. One core; the rate is rows per second.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headgate_postgres::{
    pgoutput::{Images, decode},
    value::{Kind, builtin},
};
use headgate_sdk::{Cell, WriteValue};
use std::hint::black_box;

/// Rows that are decoded in turn, so that nothing is learnt from one.
const ROWS: usize = 1024;

/// OIDs of int8, text, text, text, numeric, timestamptz, bool, jsonb, uuid, float8.
const TYPES: [u32; 10] = [20, 25, 25, 25, 1700, 1184, 16, 3802, 2950, 701];

fn insert(row: usize) -> Vec<u8> {
    let values = [
        (9_007_199_254_740_993 + row).to_string(),
        format!("customer-{row}@example.com"),
        "paid".to_owned(),
        // One text in eight is more than plain ASCII.
        if row.is_multiple_of(8) {
            "Zoë said \"hello\"\n".repeat(2)
        } else {
            "a line of plain text, as most are".to_owned()
        },
        format!("{row}.9900"),
        format!("2026-11-22 14:06:07.{:06}+00", row),
        if row.is_multiple_of(2) { "t" } else { "f" }.to_owned(),
        format!(r#"{{"sku": "A-{row}", "tags": ["new", "sale"], "weight": 1.250}}"#),
        format!("a0eebc99-9c0b-4ef8-bb6d-{row:012x}"),
        format!("{}.125", row * 3),
    ];
    let mut payload = b"I\0\0\x40\0N\0\x0a".to_vec();
    for value in values {
        payload.push(b't');
        payload.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        payload.extend(value.as_bytes());
    }
    payload
}

fn rows(criterion: &mut Criterion) {
    let payloads: Vec<Vec<u8>> = (0..ROWS).map(insert).collect();
    let kinds: Vec<Kind> = TYPES.iter().map(|&oid| builtin(oid).unwrap().1).collect();
    let writers: Vec<Box<dyn WriteValue>> = kinds.iter().map(|kind| Box::new(kind.clone()) as _).collect();
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(ROWS as u64));

    group.bench_function("decode", |bencher| {
        let mut images = Images::default();
        bencher.iter(|| {
            for payload in &payloads {
                let mut row = std::mem::take(&mut images).recycle();
                black_box(decode(payload, &mut row)).unwrap();
                images = row.recycle();
            }
        });
    });

    group.bench_function("decode and write", |bencher| {
        let mut images = Images::default();
        let mut out = Vec::new();
        bencher.iter(|| {
            for payload in &payloads {
                let mut row = std::mem::take(&mut images).recycle();
                black_box(decode(payload, &mut row)).unwrap();
                out.clear();
                for (writer, cell) in writers.iter().zip(&row.new) {
                    let Cell::Value(raw) = cell else { panic!() };
                    writer.write(raw, &mut out).unwrap();
                    out.push(b',');
                }
                black_box(&out);
                images = row.recycle();
            }
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("values");
    let names = [
        "int8",
        "text",
        "text (short)",
        "text (mixed)",
        "numeric",
        "timestamptz",
        "bool",
        "jsonb",
        "uuid",
        "float8",
    ];
    for (column, name) in names.into_iter().enumerate() {
        group.throughput(Throughput::Elements(ROWS as u64));
        group.bench_function(name, |bencher| {
            let mut images: Vec<Images<'_>> = payloads.iter().map(|_| Images::default()).collect();
            for (payload, images) in payloads.iter().zip(&mut images) {
                decode(payload, images).unwrap();
            }
            let values: Vec<&[u8]> = images
                .iter()
                .map(|images| match images.new[column] {
                    Cell::Value(raw) => raw,
                    _ => panic!(),
                })
                .collect();
            let mut out = Vec::new();
            bencher.iter(|| {
                out.clear();
                for value in &values {
                    writers[column].write(value, &mut out).unwrap();
                }
                black_box(&out);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, rows);
criterion_main!(benches);
