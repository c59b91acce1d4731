#![allow(clippy::unwrap_used, clippy::panic)]

use super::{
    paths,
    tree::{Node, Step, steps},
    write,
};

fn text(raw: &[u8]) -> Option<String> {
    let mut out = Vec::new();
    write(raw, &mut out).ok().map(|()| String::from_utf8(out).unwrap())
}

#[test]
fn nothing_is_null() {
    assert_eq!(text(b"").unwrap(), "null");
}

#[test]
fn a_text_that_is_no_utf8_is_refused() {
    let whole = b"\xff\x07\0\0\0[\"$.b\"]\"a\"";
    assert_eq!((text(whole).as_deref(), paths(whole)), (Some("\"a\""), Some("[\"$.b\"]")));
    let damaged = b"\xff\x07\0\0\0[\"$.\xde\"]\"\xde\xe0\"";
    assert_eq!((text(damaged), paths(damaged)), (None, None));
    // The paths are said to be longer than all that is there.
    let short = b"\xff\x60\0\0\0[]";
    assert_eq!((text(short), paths(short)), (None, None));
}

#[test]
fn members_that_share_a_value_are_refused() {
    // An array of 40 entries, each the same array of 40 entries, and so on: a short document, an endless text.
    let mut body = Vec::new();
    for level in 0..4_u16 {
        let next = (level + 1) * 124;
        body.extend(40_u16.to_le_bytes());
        body.extend(500_u16.to_le_bytes());
        for _ in 0..40 {
            body.push(2);
            body.extend(next.to_le_bytes());
        }
    }
    body.resize(1200, 0);
    assert_eq!(text(&[&[2], body.as_slice()].concat()), None);
}

#[test]
fn paths_are_read() {
    let member = |name: &str| Step::Member(name.as_bytes().to_vec());
    assert_eq!(steps(b"$").unwrap(), []);
    assert_eq!(
        steps(br#"$.a[10]."b \"c\"".d"#).unwrap(),
        [member("a"), Step::Element(10), member("b \"c\""), member("d")]
    );
    for bad in ["", "a", "$a", "$[", "$[x]", "$.\"a", "$[1"] {
        assert_eq!(steps(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn a_document_changes_where_a_path_says() {
    let scalar = |text: &str| Node::Scalar(text.as_bytes().to_vec());
    let mut document = Node::Object(vec![(b"b".to_vec(), Node::Array(vec![scalar("1")]))]);
    let path = |text: &str| steps(text.as_bytes()).unwrap();
    document.insert(&path("$.a"), scalar("0")).unwrap();
    document.insert(&path("$.b[0]"), scalar("2")).unwrap();
    document.insert(&path("$.b[9]"), scalar("3")).unwrap();
    document.replace(&path("$.b[1]"), scalar("null")).unwrap();
    document.remove(&path("$.b[0]")).unwrap();
    let mut out = Vec::new();
    document.write(&mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"a": 0, "b": [null, 3]}"#);
    assert!(document.insert(&path("$.a"), scalar("1")).is_none());
    assert!(document.remove(&path("$.c")).is_none());
    assert!(document.replace(&path("$.b[7]"), scalar("1")).is_none());
}
