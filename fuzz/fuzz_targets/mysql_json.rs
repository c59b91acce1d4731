//! A binary document, or any other value, is written as one JSON value or refused. The first byte chooses the type.
#![no_main]

use headgate_mysql::value::{Charset, FromText, Kind, Labels};
use headgate_sdk::WriteValue;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use std::sync::LazyLock;

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let charset = |name| Charset::by_name(name).expect("a character set");
    let texts = ["utf8mb4", "latin1", "big5", "sjis", "ujis", "gb18030", "utf16", "utf32", "swe7"];
    let mut kinds = vec![
        Kind::Json,
        Kind::JsonText(Charset::Utf8),
        Kind::Integer { bytes: 3, unsigned: false },
        Kind::Float,
        Kind::Double,
        Kind::Decimal { precision: 20, scale: 7 },
        Kind::Bit { bits: 9 },
        Kind::Year,
        Kind::Date,
        Kind::Time { digits: 3 },
        Kind::DateTime { digits: 6 },
        Kind::Timestamp { digits: 1 },
        Kind::OldTime { digits: 0 },
        Kind::OldTime { digits: 3 },
        Kind::OldDateTime { digits: 0 },
        Kind::OldDateTime { digits: 6 },
        Kind::OldTimestamp { digits: 0 },
        Kind::OldTimestamp { digits: 1 },
        Kind::Binary { length: 10 },
        Kind::Blob,
        Kind::Enum(Labels::new(["a", "b"])),
        Kind::Set(Labels::new(["a", "b"])),
        Kind::Geometry,
        Kind::Vector,
        Kind::Uuid,
        Kind::Inet4,
        Kind::Inet6,
        Kind::CompressedBlob,
    ];
    kinds.extend(texts.map(|name| Kind::Text(charset(name))));
    kinds
});

fn check(writer: &impl WriteValue, raw: &[u8]) {
    let mut out = b"before".to_vec();
    if writer.write(raw, &mut out).is_ok() {
        let json = out.strip_prefix(b"before").expect("what was written before is gone");
        serde_json::from_slice::<&RawValue>(json).expect("not one JSON value");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, raw)) = input.split_first() else { return };
    // Documents are half of the tries.
    let kind = if choice >= 128 { &Kind::Json } else { &KINDS[usize::from(choice) % KINDS.len()] };
    check(kind, raw);
    check(&FromText(kind.clone()), raw);
});
