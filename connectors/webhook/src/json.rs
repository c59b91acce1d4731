//! JSON as it stands in a body: checked once, then looked into by pointer, never copied into a tree.
//!
//! A body that is verified is still not trusted: it must be UTF-8 and one JSON value, no deeper than 128 levels, and no
//! object may hold one key twice, for two readers could then see two different events. Values stay the provider's own
//! text, so no digit of a number is lost. Pointers are RFC 6901, relative to a document or to a value in it.

use std::{borrow::Cow, collections::HashSet};

/// Deepest nesting of arrays and objects.
const DEPTH: usize = 128;

/// Objects up to this many keys are searched for doubled ones pair by pair.
const FEW_KEYS: usize = 16;

/// Why [`parse`] refuses a document that is JSON to some readers, but not the same one to all.
pub(crate) const TWICE: &str = "a JSON object with one key twice";

/// A value inside a checked document: its text, without surrounding space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a>(&'a str);

/// Checks a whole body.
pub(crate) fn parse(body: &[u8]) -> Result<Value<'_>, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "not UTF-8")?;
    let mut scanner = Scanner { text, at: 0, keys: Vec::new(), check: true };
    scanner.space();
    let start = scanner.at;
    scanner.value(0)?;
    let end = scanner.at;
    scanner.space();
    if scanner.at != text.len() {
        return Err("more than one JSON value");
    }
    Ok(Value(&text[start..end]))
}

impl<'a> Value<'a> {
    /// The value's own text.
    pub(crate) fn text(self) -> &'a str {
        self.0
    }

    /// The value at `pointer` below this one.
    pub(crate) fn get(self, pointer: &Pointer) -> Option<Value<'a>> {
        pointer.0.iter().try_fold(self, |value, step| value.child(step))
    }

    /// A string's content, or the text of a number or boolean; nothing for null, arrays and objects.
    pub(crate) fn scalar(self) -> Option<Cow<'a, str>> {
        match self.0.as_bytes().first()? {
            b'"' => unescape(&self.0[1..self.0.len() - 1]),
            b'{' | b'[' | b'n' => None,
            _ => Some(Cow::Borrowed(self.0)),
        }
    }

    /// Whether it is an object.
    pub(crate) fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    /// The elements of an array; nothing if it is none.
    pub(crate) fn elements(self) -> Option<Vec<Value<'a>>> {
        self.0.starts_with('[').then(|| {
            let mut elements = Vec::new();
            self.walk(|_, value| {
                elements.push(value);
                true
            });
            elements
        })
    }

    /// The members of an object in their order; nothing if it is none.
    pub(crate) fn members(self) -> Option<Vec<(Cow<'a, str>, Value<'a>)>> {
        self.is_object().then(|| {
            let mut members = Vec::new();
            self.walk(|key, value| {
                members.extend(key.and_then(unescape).map(|key| (key, value)));
                true
            });
            members
        })
    }

    fn child(self, step: &str) -> Option<Value<'a>> {
        let index = step.parse::<usize>().ok();
        let (mut at, mut found) = (0, None);
        self.walk(|key, value| {
            let matches = match key {
                Some(key) if key.contains('\\') => unescape(key).is_some_and(|key| key == step),
                Some(key) => key == step,
                None => index == Some(at),
            };
            at += 1;
            if matches {
                found = Some(value);
            }
            !matches
        });
        found
    }

    /// Tells the members or elements one by one until `visit` says false.
    fn walk(self, mut visit: impl FnMut(Option<&'a str>, Value<'a>) -> bool) {
        let mut scanner = Scanner { text: self.0, at: 1, keys: Vec::new(), check: false };
        let object = self.is_object();
        if !object && !self.0.starts_with('[') {
            return;
        }
        loop {
            scanner.space();
            match scanner.peek() {
                Some(b',') => {
                    scanner.at += 1;
                    continue;
                }
                Some(b'}' | b']') | None => return,
                Some(_) => {}
            }
            let key = if object {
                let start = scanner.at + 1;
                if scanner.string().is_err() {
                    return;
                }
                let key = &self.0[start..scanner.at - 1];
                scanner.space();
                scanner.at += 1; // the colon, which the check has seen
                scanner.space();
                Some(key)
            } else {
                None
            };
            let start = scanner.at;
            if scanner.value(0).is_err() {
                return;
            }
            if !visit(key, Value(&self.0[start..scanner.at])) {
                return;
            }
        }
    }
}

/// A string's content with its escapes undone. Lone surrogates have no text.
fn unescape(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('\\') {
        return Some(Cow::Borrowed(raw));
    }
    serde_json::from_str::<String>(&format!("\"{raw}\"")).ok().map(Cow::Owned)
}

/// A JSON pointer, RFC 6901.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

impl Pointer {
    /// Reads `/a/b~1c/0`; the empty text points at the whole.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let steps = text.strip_prefix('/').ok_or_else(|| format!("\"{text}\" is not a JSON pointer"))?;
        Ok(Self(steps.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect()))
    }

    /// The pointer to a member of the whole.
    pub(crate) fn of(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// The name of what it points at; `None` for the whole.
    pub(crate) fn last(&self) -> Option<&str> {
        self.0.last().map(String::as_str)
    }

    /// The pointer cut at each step that is `*`: for elements of arrays within arrays.
    pub(crate) fn split_at_stars(&self) -> Vec<Self> {
        self.0.split(|step| step == "*").map(|steps| Self(steps.to_vec())).collect()
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// The keys of all open objects.
    keys: Vec<&'a str>,
    /// Whether doubled keys are looked for: on the first pass only.
    check: bool,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), &'static str> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err("not JSON"),
            None => Err("JSON that ends too early"),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), &'static str> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err("not JSON");
        }
        self.at += word.len();
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), &'static str> {
        if depth == DEPTH {
            return Err("JSON nested too deeply");
        }
        let first_key = self.keys.len();
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let start = self.at + 1;
            if self.peek() != Some(b'"') {
                return Err("not JSON");
            }
            self.string()?;
            if self.check {
                self.keys.push(&self.text[start..self.at - 1]);
            }
            self.space();
            if self.peek() != Some(b':') {
                return Err("not JSON");
            }
            self.at += 1;
            self.space();
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err("not JSON"),
            }
            self.space();
        }
        self.at += 1;
        if self.check {
            unique(&self.keys[first_key..])?;
            self.keys.truncate(first_key);
        }
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), &'static str> {
        if depth == DEPTH {
            return Err("JSON nested too deeply");
        }
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err("not JSON"),
            }
            self.space();
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), &'static str> {
        self.at += 1;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let end = plain(rest).ok_or("JSON that ends too early")?;
            self.at += end + 1;
            match rest[end] {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                _ => return Err("a control character in a JSON string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), &'static str> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 1,
            [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => 5,
            _ => return Err("a wrong escape in a JSON string"),
        };
        Ok(())
    }

    fn number(&mut self) -> Result<(), &'static str> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), &'static str> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err("not a JSON number") } else { Ok(()) }
    }
}

/// How many bytes come before the first that ends a string, escapes, or may not be in one. Most of a body is inside its
/// strings. Most of them are short, and are searched eight bytes at a time; in what is left of a long one, many at a time
/// are looked at, which the compiler does with vectors.
fn plain(bytes: &[u8]) -> Option<usize> {
    const SHORT: usize = 32;
    match bytes.get(SHORT..) {
        Some(long) => plain_words(&bytes[..SHORT]).or_else(|| {
            let (blocks, _) = long.as_chunks::<64>();
            let ordinary = 64
                * blocks
                    .iter()
                    .take_while(|block| !block.iter().fold(false, |any, byte| any | is_special(*byte)))
                    .count();
            plain_words(&long[ordinary..]).map(|at| SHORT + ordinary + at)
        }),
        None => plain_words(bytes),
    }
}

fn plain_words(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let special = special(u64::from_le_bytes(*word));
        if special != 0 {
            return Some(8 * at + special.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| is_special(*byte))?;
    Some(8 * words.len() + at)
}

fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// The high bit of the lowest byte that is a quote, a backslash or a control character. Of those above it nothing is said:
/// a subtraction borrows from them.
fn special(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let is_zero = |word: u64| word.wrapping_sub(EACH) & !word;
    let quote = is_zero(word ^ (EACH * 0x22));
    let backslash = is_zero(word ^ (EACH * 0x5c));
    let control = word.wrapping_sub(EACH * 0x20) & !word;
    (quote | backslash | control) & (EACH * 0x80)
}

/// Refuses a key that comes twice, in whatever spelling.
fn unique(keys: &[&str]) -> Result<(), &'static str> {
    if keys.len() <= FEW_KEYS && keys.iter().all(|key| !key.contains('\\')) {
        let doubled = keys.iter().enumerate().any(|(at, key)| keys[..at].contains(key));
        return if doubled { Err(TWICE) } else { Ok(()) };
    }
    let mut seen = HashSet::with_capacity(keys.len());
    for key in keys {
        let key = unescape(key).ok_or("a JSON key that is no text")?;
        if !seen.insert(key) {
            return Err(TWICE);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_what_a_pointer_names() {
        let body = br#" {"a": {"b/c": [1, {"\u0064": "x\ny"}]}, "n": null, "big": 12345678901234567890.10} "#;
        let root = parse(body).unwrap();
        let get = |pointer: &str| {
            root.get(&Pointer::parse(pointer).unwrap()).and_then(Value::scalar).map(Cow::into_owned)
        };
        assert_eq!(get("/a/b~1c/0").as_deref(), Some("1"));
        assert_eq!(get("/a/b~1c/1/d").as_deref(), Some("x\ny"));
        assert_eq!(get("/big").as_deref(), Some("12345678901234567890.10"));
        assert_eq!(get("/n"), None);
        assert_eq!(get("/a"), None);
        assert_eq!(get("/a/x"), None);
    }

    #[test]
    fn refuses_what_two_readers_could_read_differently() {
        for body in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[{"x":{"a":1,"b":2,"a":3}}]"#,
            r#"{"a":1} {"a":1}"#,
            r#"{"a":1,}"#,
            "[1 2]",
            "{a:1}",
            "01",
            "1.",
            "\"\u{1}\"",
            r#""\x""#,
            "",
            "nul",
        ] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
        assert!(parse(&[b'['; 100_000]).is_err());
        let many: Vec<String> = (0..100).map(|n| format!("\"k{n}\":{n}")).collect();
        assert!(parse(format!("{{{}}}", many.join(",")).as_bytes()).is_ok());
        assert!(parse(format!("{{{},\"k7\":0}}", many.join(",")).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn a_strings_end_is_where_a_search_byte_by_byte_finds_it(
            begin in proptest::collection::vec(0x23..0x5b_u8, 0..300),
            end in proptest::collection::vec(
                proptest::prop_oneof![3 => any::<u8>(), 1 => 0x1e..0x24_u8, 1 => 0x5a..0x5e_u8], 0..40,
            ),
        ) {
            let bytes = [begin, end].concat();
            let slow = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
            prop_assert_eq!(plain(&bytes), slow);
        }
    }

    proptest! {
        #[test]
        fn takes_nothing_that_is_not_json(body in "[\\[\\]{}\",:0-9a-c\\\\ue. \\-tn]{0,24}") {
            if parse(body.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&body).is_ok(), "{}", body);
            }
        }
    }
}
