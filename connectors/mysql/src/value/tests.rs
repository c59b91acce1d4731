#![allow(clippy::unwrap_used, clippy::panic)]

use super::{Charset, FromText, Kind, Labels};
use headgate_sdk::WriteValue;
use proptest::prelude::*;

fn json(writer: &impl WriteValue, raw: &[u8]) -> Option<String> {
    let mut out = Vec::new();
    writer.write(raw, &mut out).ok().map(|()| String::from_utf8(out).unwrap())
}

/// The log's bytes and the query's text are the same JSON.
#[track_caller]
fn agree(kind: &Kind, raw: &[u8], text: &str, expected: &str) {
    assert_eq!(json(kind, raw).as_deref(), Some(expected), "log: {raw:x?}");
    assert_eq!(json(&FromText(kind.clone()), text.as_bytes()).as_deref(), Some(expected), "query: {text}");
}

#[test]
fn years_bits_and_labels() {
    agree(&Kind::Year, &[0], "0000", "0");
    agree(&Kind::Year, &[126], "2026", "2026");
    assert_eq!(json(&Kind::Bit { bits: 9 }, &[1, 3]).unwrap(), "\"100000011\"");
    let labels = Labels::new(["a\"", "ü"]);
    agree(&Kind::Enum(labels.clone()), &[1], "1", r#""a\"""#);
    agree(&Kind::Enum(labels.clone()), &[0, 0], "0", "\"\"");
    agree(&Kind::Set(labels.clone()), &[3], "3", r#"["a\"","ü"]"#);
    agree(&Kind::Set(labels.clone()), &[0], "0", "[]");
    assert_eq!(json(&Kind::Enum(labels), &[3]), None);
}

#[test]
fn labels_that_a_catalog_cannot_show_come_from_the_row() {
    let labels = Labels::new(["?", "so", "?!"]);
    let (one, many) = (FromText(Kind::Enum(labels.clone())), FromText(Kind::Set(labels)));
    assert!(one.0.select("`e`").contains("CONVERT(`e` USING utf8mb4)"));
    assert_eq!(json(&one, "1 😀".as_bytes()).unwrap(), "\"😀\"");
    assert_eq!(json(&one, b"0 ").unwrap(), "\"\"");
    assert_eq!(json(&many, b"0 ").unwrap(), "[]");
    assert_eq!(json(&many, "7 😀,so,🦀!".as_bytes()).unwrap(), "[\"😀\",\"so\",\"🦀!\"]");
    for refused in ["1", "x a", " a", "3 a", "1 a,b"] {
        assert_eq!(json(&many, refused.as_bytes()), None, "{refused}");
    }
    let known = FromText(Kind::Enum(Labels::new(["so"])));
    assert_eq!(known.0.select("`e`"), "CAST(`e` AS UNSIGNED)");
}

#[test]
fn floats_are_written_as_the_servers_do() {
    for (value, expected) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (0.1, "0.1"),
        (100.0, "100"),
        (1e14, "100000000000000"),
        (1e15, "1e15"),
        (123_456_789_012_345.6, "123456789012345.6"),
        (1e-15, "0.000000000000001"),
        (1.5e-16, "1.5e-16"),
        (-1.797_693_134_862_315_7e308, "-1.7976931348623157e308"),
        (5e-324, "5e-324"),
    ] {
        agree(&Kind::Double, &f64::to_le_bytes(value), &value.to_string(), expected);
    }
    assert_eq!(json(&Kind::Double, &f64::NAN.to_le_bytes()), None);
    // A query prints the double next to the float.
    agree(&Kind::Float, &16_777_216.0_f32.to_le_bytes(), "16777216", "16777216");
    agree(&Kind::Float, &0.1_f32.to_le_bytes(), "0.10000000149011612", "0.1");
}

#[test]
fn fills_of_zeros_are_no_digits() {
    let unsigned = FromText(Kind::Integer { bytes: 4, unsigned: true });
    assert_eq!(json(&unsigned, b"0000000042").unwrap(), "42");
    assert_eq!(json(&unsigned, b"0000").unwrap(), "0");
    assert_eq!(json(&FromText(Kind::Decimal { precision: 9, scale: 2 }), b"0000001.50").unwrap(), "\"1.50\"");
    for bad in ["", "-", "1a", "+1", " 1"] {
        assert_eq!(json(&unsigned, bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn days_that_no_calendar_has_stay_as_the_server_prints_them() {
    for digits in [0_u8, 3, 6] {
        let zeros = ".000000".get(..if digits == 0 { 0 } else { 1 + usize::from(digits) }).unwrap();
        let text = format!("0000-00-00 00:00:00{zeros}");
        let raw = vec![0; 4 + usize::from(digits.div_ceil(2))];
        agree(&Kind::Timestamp { digits }, &raw, &text, &format!("\"{text}\""));
    }
    agree(&Kind::Timestamp { digits: 0 }, &[0xff; 4], "2106-02-07 06:28:15", "\"2106-02-07T06:28:15Z\"");
    agree(
        &Kind::OldDateTime { digits: 0 },
        &20_261_122_140_607_u64.to_le_bytes(),
        "2026-11-22 14:06:07",
        "\"2026-11-22T14:06:07\"",
    );
}

#[test]
fn values_of_another_length_are_refused() {
    for kind in [
        Kind::Integer { bytes: 3, unsigned: false },
        Kind::Double,
        Kind::Decimal { precision: 10, scale: 2 },
        Kind::Date,
        Kind::Time { digits: 2 },
        Kind::DateTime { digits: 6 },
        Kind::Timestamp { digits: 1 },
        Kind::Bit { bits: 12 },
        Kind::Uuid,
    ] {
        assert_eq!(json(&kind, &[0; 40]), None, "{kind:?}");
    }
}

#[test]
fn character_sets_are_as_the_servers_have_them() {
    for (name, bytes, text) in [
        ("latin1", &b"\x80\xe9\x81"[..], "€é\u{81}"),
        ("latin5", b"\xfe\x80", "ş\u{80}"),
        ("sjis", b"a\x81\x60\x81\x5f\xb1\x93\xfa", "a〜\\ｱ日"),
        ("cp932", b"\x81\x60\x87\x40", "～①"),
        ("ujis", b"\xa1\xc1\xf5\xa1\x8f\xf5\xa1\xc6\xfc", "〜\u{e000}\u{e3ac}日"),
        ("big5", b"\xa2\x46\xa4\x40\xc6\xa5", "¢一ぁ"),
        ("gb18030", b"\x81\x30\x81\x30a\xa6\xd9", "\u{80}a\u{e78d}"),
        ("swe7", b"[\\]{|}", "ÄÖÅäöå"),
        ("utf16", b"\xd8\x3d\xde\x00\x00a", "😀a"),
        ("utf16le", b"a\0", "a"),
        ("utf32", b"\0\x01\xf6\0", "😀"),
    ] {
        assert_eq!(Charset::by_name(name).unwrap().decode(bytes).as_deref(), Ok(text), "{name}");
    }
    for (name, bytes) in [
        ("utf8mb4", &b"\xff"[..]),
        ("sjis", b"\x81"),
        ("utf16", b"\xd8\0"),
        ("utf32", b"\0"),
        ("swe7", b"\x80"),
        ("cp1250", b"\x81"),
    ] {
        assert!(Charset::by_name(name).unwrap().decode(bytes).is_err(), "{name}");
    }
    assert_eq!(Charset::of_collation(1083), Charset::by_name("cp1257"));
    assert_eq!(Charset::of_collation(2304), Some(Charset::Utf8));
    assert_eq!(Charset::of_collation(63), None);
}

proptest! {
    #[test]
    fn integers_agree(value in any::<i64>(), bytes in prop::sample::select(vec![1_u8, 2, 3, 4, 8])) {
        let shift = 64 - 8 * u32::from(bytes);
        let raw = &value.to_le_bytes()[..bytes.into()];
        let signed = value << shift >> shift;
        agree(&Kind::Integer { bytes, unsigned: false }, raw, &signed.to_string(), &signed.to_string());
        let unsigned = value.cast_unsigned() << shift >> shift;
        agree(&Kind::Integer { bytes, unsigned: true }, raw, &format!("{unsigned:020}"), &unsigned.to_string());
    }

    #[test]
    fn doubles_read_back_the_same(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        let written = json(&Kind::Double, &value.to_le_bytes()).unwrap();
        prop_assert_eq!(written.parse::<f64>().unwrap().to_bits(), bits);
        let asked = json(&FromText(Kind::Double), format!("{value:e}").as_bytes());
        prop_assert_eq!(asked, Some(written));
    }

    #[test]
    fn times_agree(negative: bool, hour in 0..839_u32, minute in 0..60_u32, second in 0..60_u32, micros in 0..1_000_000_u32) {
        let packed = i64::from(hour << 12 | minute << 6 | second) << 24 | i64::from(micros);
        prop_assume!(packed != 0 || !negative);
        let stored = if negative { -packed } else { packed } + 0x8000_0000_0000;
        let sign = if negative { "-" } else { "" };
        let text = format!("{sign}{hour:02}:{minute:02}:{second:02}.{micros:06}");
        agree(&Kind::Time { digits: 6 }, &stored.to_be_bytes()[2..], &text, &format!("\"{text}\""));
    }

    #[test]
    fn any_bytes_are_written_or_refused(raw in prop::collection::vec(any::<u8>(), 0..40)) {
        let decimal = Kind::Decimal { precision: 20, scale: 7 };
        for kind in [Kind::Json, Kind::Geometry, Kind::Vector, Kind::Inet6, Kind::OldTime { digits: 0 }, Kind::OldTime { digits: 3 }, Kind::OldDateTime { digits: 6 }, Kind::OldTimestamp { digits: 1 }, Kind::CompressedBlob, decimal] {
            for written in [json(&kind, &raw), json(&FromText(kind), &raw)].into_iter().flatten() {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&written).is_ok(), "{}", written);
            }
        }
    }
}
