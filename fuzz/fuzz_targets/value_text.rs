//! Every writer writes one JSON value or refuses, whatever the bytes. The first byte chooses the writer.
#![no_main]

use headgate_postgres::value::{Attribute, Kind};
use headgate_sdk::WriteValue;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use std::sync::LazyLock;

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let mut kinds = vec![
        Kind::Text,
        Kind::Bool,
        Kind::Integer,
        Kind::Float,
        Kind::Json,
        Kind::Bytea,
        Kind::Timestamp,
        Kind::TimestampTz,
        Kind::Hstore,
    ];
    let array = |kind: &Kind, delimiter| Kind::Array { element: Box::new(kind.clone()), delimiter };
    let attributes =
        kinds.iter().enumerate().map(|(at, kind)| Attribute::new(&format!("a{at}"), kind.clone()));
    let row = Kind::Composite(attributes.collect());
    let pair = Kind::Composite(vec![Attribute::new("id", Kind::Integer), Attribute::new("x\"", Kind::Text)]);
    let nested =
        Kind::Composite(vec![Attribute::new("pairs", array(&pair, b',')), Attribute::new("h", Kind::Hstore)]);
    let arrays: Vec<Kind> = kinds.iter().map(|kind| array(kind, b',')).collect();
    kinds.extend(arrays);
    kinds.extend([array(&Kind::Text, b';'), array(&nested, b','), row, pair, nested]);
    kinds
});

fuzz_target!(|input: &[u8]| {
    let Some((&choice, raw)) = input.split_first() else { return };
    let kind = &KINDS[usize::from(choice) % KINDS.len()];
    let mut out = b"before".to_vec();
    match kind.write(raw, &mut out) {
        Ok(()) => {
            let json = out.strip_prefix(b"before").expect("what was written before is gone");
            let json = std::str::from_utf8(json).expect("not UTF-8");
            serde_json::from_str::<&RawValue>(json).expect("not one JSON value");
        }
        Err(_) => assert!(std::str::from_utf8(raw).is_err(), "text was refused"),
    }
});
