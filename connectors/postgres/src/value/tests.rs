#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn written(kind: &Kind, raw: &[u8]) -> String {
    let mut out = b"before ".to_vec();
    kind.write(raw, &mut out).unwrap();
    String::from_utf8(out).unwrap().strip_prefix("before ").unwrap().to_owned()
}

fn array(element: Kind) -> Kind {
    Kind::Array { element: Box::new(element), delimiter: b',' }
}

fn composite(attributes: &[(&str, Kind)]) -> Kind {
    Kind::Composite(attributes.iter().map(|(name, kind)| Attribute::new(name, kind.clone())).collect())
}

/// Checks values of one kind: text of the database, JSON.
fn check(kind: &Kind, cases: &[(&str, &str)]) {
    for (raw, expected) in cases {
        let json = written(kind, raw.as_bytes());
        assert_eq!(json, *expected, "{kind:?} of {raw}");
        serde_json::from_str::<Value>(&json).unwrap();
    }
}

#[test]
fn scalars() {
    check(&Kind::Bool, &[("t", "true"), ("f", "false"), ("true", r#""true""#), ("", r#""""#)]);
    check(
        &Kind::Integer,
        &[
            ("0", "0"),
            ("-1", "-1"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("007", r#""007""#),
            ("-", r#""-""#),
            ("1e5", r#""1e5""#),
            ("", r#""""#),
        ],
    );
    check(
        &Kind::Float,
        &[
            ("0.1", "0.1"),
            ("-0", "-0"),
            ("1e+20", "1e+20"),
            ("1.5e-07", "1.5e-07"),
            ("NaN", r#""NaN""#),
            ("Infinity", r#""Infinity""#),
            ("-Infinity", r#""-Infinity""#),
            ("1.", r#""1.""#),
            (".5", r#"".5""#),
            ("1e", r#""1e""#),
            ("0x10", r#""0x10""#),
        ],
    );
    check(
        &Kind::Json,
        &[(r#"{"a": 1.50}"#, r#"{"a": 1.50}"#), ("null", "null"), ("{", r#""{""#), ("", r#""""#)],
    );
}

#[test]
fn deep_json_is_itself() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert_eq!(written(&Kind::Json, deep.as_bytes()), deep);
}

#[test]
fn texts() {
    let long = "x".repeat(40);
    check(
        &Kind::Text,
        &[
            ("", r#""""#),
            ("été 😀", r#""été 😀""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\u{1}\u{8}\t\n\u{c}\r\u{1f}\u{7f}", "\"\\u0001\\b\\t\\n\\f\\r\\u001f\u{7f}\""),
            (&format!("{long}\"{long}"), &format!(r#""{long}\"{long}""#)),
            (&format!("{long}é\\"), &format!(r#""{long}é\\""#)),
        ],
    );
}

#[test]
fn what_is_not_utf8_is_refused() {
    for kind in [Kind::Text, Kind::Integer, Kind::Json, Kind::Timestamp, array(Kind::Text), Kind::Hstore] {
        for raw in [&b"\xff"[..], b"{\xff}", b"0123456789abcdef\xc3", b"\"\xff\"=>\"\""] {
            let error = kind.write(raw, &mut Vec::new()).unwrap_err();
            assert!(error.reason.contains("SQL_ASCII"), "{kind:?}");
        }
    }
}

#[test]
fn bytes_as_base64() {
    check(
        &Kind::Bytea,
        &[
            (r"\x", r#""""#),
            (r"\x00", r#""AA==""#),
            (r"\xDEAD", r#""3q0=""#),
            (r"\xdeadbe", r#""3q2+""#),
            (r"\xffffffff", r#""/////w==""#),
            (r"\xf", r#""\\xf""#),
            (r"\xfg", r#""\\xfg""#),
            (r"\336\255", r#""\\336\\255""#),
        ],
    );
}

#[test]
fn timestamps() {
    check(
        &Kind::Timestamp,
        &[
            ("2026-11-22 14:06:07.123456", r#""2026-11-22T14:06:07.123456""#),
            ("2026-11-22 14:06:07", r#""2026-11-22T14:06:07""#),
            ("infinity", r#""infinity""#),
            ("-infinity", r#""-infinity""#),
            ("0044-03-15 12:00:00 BC", r#""0044-03-15 12:00:00 BC""#),
            ("294276-12-31 23:59:59.999999", r#""294276-12-31 23:59:59.999999""#),
            ("2026-11-22 14:06:07.", r#""2026-11-22 14:06:07.""#),
        ],
    );
    check(
        &Kind::TimestampTz,
        &[
            ("2026-11-22 14:06:07.1+00", r#""2026-11-22T14:06:07.1Z""#),
            ("2026-11-22 14:06:07+02", r#""2026-11-22 14:06:07+02""#),
            ("0044-03-15 12:00:00+00 BC", r#""0044-03-15 12:00:00+00 BC""#),
            ("10000-01-01 00:00:00+00", r#""10000-01-01 00:00:00+00""#),
            ("infinity", r#""infinity""#),
        ],
    );
}

#[test]
fn arrays() {
    check(
        &array(Kind::Integer),
        &[
            ("{}", "[]"),
            ("{1,NULL,-3}", "[1,null,-3]"),
            ("{{1,2},{3,4}}", "[[1,2],[3,4]]"),
            ("[0:2]={1,2,3}", "[1,2,3]"),
            ("[-1:0][2:3]={{1,2},{3,4}}", "[[1,2],[3,4]]"),
            ("{1,", r#""{1,""#),
            ("{1}}", r#""{1}}""#),
            ("{,}", r#""{,}""#),
            ("{1,}", r#""{1,}""#),
            ("1", r#""1""#),
            ("", r#""""#),
            ("{{{{{{{1}}}}}}}", r#""{{{{{{{1}}}}}}}""#),
            ("{\"1", r#""{\"1""#),
            ("[x]={1}", r#""[x]={1}""#),
        ],
    );
    check(
        &array(Kind::Text),
        &[
            (r#"{a,"b c","d\"e\\f","NULL","",NULL}"#, r#"["a","b c","d\"e\\f","NULL","",null]"#),
            (r#"{"{}",",",été}"#, r#"["{}",",","été"]"#),
        ],
    );
    check(&array(Kind::Json), &[(r#"{"{\"a\": [1, 2]}",null,1}"#, r#"[{"a": [1, 2]},null,1]"#)]);
    let boxes = Kind::Array { element: Box::new(Kind::Text), delimiter: b';' };
    check(&boxes, &[("{(1,1),(0,0);(2,2),(1,1)}", r#"["(1,1),(0,0)","(2,2),(1,1)"]"#)]);
}

#[test]
fn composites() {
    let pair = composite(&[("id", Kind::Integer), ("a \"name\"", Kind::Text)]);
    check(
        &pair,
        &[
            ("(1,x)", r#"{"id":1,"a \"name\"":"x"}"#),
            ("(,)", r#"{"id":null,"a \"name\"":null}"#),
            (r#"(1,"")"#, r#"{"id":1,"a \"name\"":""}"#),
            (r#"(1,"b ""c"" \\, (d)")"#, r#"{"id":1,"a \"name\"":"b \"c\" \\, (d)"}"#),
            // Written before or after the type was altered.
            ("(1)", r#""(1)""#),
            ("(1,2,3)", r#""(1,2,3)""#),
            ("(1,\"x)", r#""(1,\"x)""#),
            ("", r#""""#),
        ],
    );
    check(&composite(&[]), &[("()", "{}")]);
    check(&composite(&[("only", Kind::Text)]), &[("()", r#"{"only":null}"#)]);
    let nested = composite(&[("pairs", array(pair)), ("at", Kind::TimestampTz)]);
    check(
        &nested,
        &[(
            r#"("{""(1,\\""x y\\"")"",NULL}","2026-11-22 14:06:07+00")"#,
            r#"{"pairs":[{"id":1,"a \"name\"":"x y"},null],"at":"2026-11-22T14:06:07Z"}"#,
        )],
    );
}

#[test]
fn hstores() {
    check(
        &Kind::Hstore,
        &[
            ("", "{}"),
            (r#""a"=>"1", "b"=>NULL"#, r#"{"a":"1","b":null}"#),
            (r#""q\"\\"=>"é, \"=>\"""#, r#"{"q\"\\":"é, \"=>\""}"#),
            (r#""a"=>"1","b"=>"2""#, r#""\"a\"=>\"1\",\"b\"=>\"2\"""#),
            (r#""a"=>"#, r#""\"a\"=>""#),
        ],
    );
}

#[test]
fn built_in_types() {
    assert_eq!(builtin(20), Some(("int8".to_owned(), Kind::Integer)));
    assert_eq!(builtin(1016), Some(("int8[]".to_owned(), array(Kind::Integer))));
    assert_eq!(
        builtin(1020),
        Some(("box[]".to_owned(), Kind::Array { element: Box::new(Kind::Text), delimiter: b';' }))
    );
    assert_eq!(builtin(22), Some(("int2vector".to_owned(), Kind::Text)));
    assert_eq!(builtin(16384), None);
}

/// How `array_out` prints an element.
fn array_element(item: &Option<String>) -> String {
    match item {
        None => "NULL".to_owned(),
        Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

fn every_kind() -> impl Strategy<Value = Kind> {
    let leaf = prop::sample::select(vec![
        Kind::Text,
        Kind::Bool,
        Kind::Integer,
        Kind::Float,
        Kind::Json,
        Kind::Bytea,
        Kind::Timestamp,
        Kind::TimestampTz,
        Kind::Hstore,
    ]);
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(array),
            prop::collection::vec(inner, 0..3).prop_map(|kinds| Kind::Composite(
                kinds.into_iter().map(|kind| Attribute::new("x", kind)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_reads_back(text in any::<String>()) {
        prop_assert_eq!(serde_json::from_str::<String>(&written(&Kind::Text, text.as_bytes())).unwrap(), text);
    }

    #[test]
    fn any_bytes_read_back(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        use base64::Engine as _;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let json = written(&Kind::Bytea, format!("\\x{hex}").as_bytes());
        prop_assert_eq!(json, format!("\"{}\"", base64::engine::general_purpose::STANDARD.encode(bytes)));
    }

    #[test]
    fn any_array_reads_back(items in prop::collection::vec(any::<Option<String>>(), 0..6)) {
        let raw = format!("{{{}}}", items.iter().map(array_element).collect::<Vec<_>>().join(","));
        let json = written(&array(Kind::Text), raw.as_bytes());
        prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), json!(items));
    }

    #[test]
    fn any_composite_reads_back(one in any::<Option<String>>(), two in any::<Option<String>>()) {
        let field = |field: &Option<String>| field.as_ref().map_or(String::new(), |text| {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""))
        });
        let raw = format!("({},{})", field(&one), field(&two));
        let json = written(&composite(&[("one", Kind::Text), ("two", Kind::Text)]), raw.as_bytes());
        prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), json!({"one": one, "two": two}));
    }

    #[test]
    fn any_hstore_reads_back(pairs in prop::collection::btree_map(any::<String>(), any::<Option<String>>(), 0..5)) {
        let pair = |(key, value): (&String, &Option<String>)| {
            format!("{}=>{}", array_element(&Some(key.clone())), array_element(value))
        };
        let raw = pairs.iter().map(pair).collect::<Vec<_>>().join(", ");
        let json = written(&Kind::Hstore, raw.as_bytes());
        prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), json!(pairs));
    }

    #[test]
    fn whatever_is_written_is_json(kind in every_kind(), raw in prop::collection::vec(prop::sample::select(&b"{}()[]\",\\:=> NULLtf01-+.eE\xc3\xa9\n"[..]), 0..24)) {
        let mut out = Vec::new();
        if kind.write(&raw, &mut out).is_ok() {
            prop_assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
        }
    }
}
