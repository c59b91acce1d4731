//! What the writer of a statement says in its comment: <https://google.github.io/sqlcommenter/spec/>.
//!
//! Only the attributes of a trace are taken, and those by which events say what caused them; the rest of a comment is the
//! application's own business.

use serde_json::{Map, Value};

/// The comment's keys, and the attributes that they become.
const TAKEN: [&str; 4] = ["traceparent", "tracestate", "correlationid", "causationid"];
/// A statement is looked at no further than this from its end, and given with events no longer than this.
const LONGEST: usize = 4096;

/// The context that a statement gives the events of its rows, as a JSON object of attributes; `None` where it gives none.
pub(crate) fn context(statement: &[u8], with_text: bool) -> Option<Vec<u8>> {
    if !with_text && !statement.ends_with(b"*/") && memchr::memmem::find(statement, b"traceparent").is_none()
    {
        return None;
    }
    let text = String::from_utf8_lossy(statement);
    let mut attributes = Map::new();
    for comment in comments(&text) {
        for pair in comment.split(',') {
            let Some((key, value)) = pair.split_once('=') else { continue };
            let Some(key) = TAKEN.into_iter().find(|taken| *taken == key.trim()) else { continue };
            let value = value.trim();
            let Some(value) = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')) else {
                continue;
            };
            let value = decode(&value.replace("\\'", "'"));
            // One that is no traceparent would cost the event its other attributes.
            if key != "traceparent" || is_traceparent(&value) {
                attributes.insert(key.to_owned(), Value::String(value));
            }
        }
    }
    if with_text {
        let mut end = text.len().min(LONGEST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        attributes.insert("query".to_owned(), Value::String(text[..end].to_owned()));
    }
    if attributes.is_empty() { None } else { serde_json::to_vec(&Value::Object(attributes)).ok() }
}

/// The comments of a statement, first to last, within reason.
fn comments(text: &str) -> impl Iterator<Item = &str> {
    let mut parts = text.split("/*");
    parts.next();
    parts
        .take(16)
        .filter_map(|part| Some(part.split_once("*/")?.0))
        .filter(|comment| comment.len() <= LONGEST)
}

fn is_traceparent(text: &str) -> bool {
    let lengths = [2, 32, 16, 2];
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() == 4
        && parts[0] == "00"
        && parts.iter().zip(lengths).all(|(part, length)| {
            part.len() == length
                && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        })
        && [parts[1], parts[2]].iter().all(|part| part.bytes().any(|byte| byte != b'0'))
}

/// Percent-decodes; what is not well encoded stays as it is.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high << 4 | low).unwrap_or(b'?'));
                rest = &after[2..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_comment_gives_its_trace() {
        let statement = b"INSERT INTO t VALUES (1) /*db_driver='x',route='%2Fpolls',traceparent='00-5bd66ef5095369c7b0d1f8f4bd33716a-c532cb4098ac3dd2-01',tracestate='congo%3Dt61'*/";
        let context: Value = serde_json::from_slice(&context(statement, false).unwrap()).unwrap();
        assert_eq!(context["traceparent"], "00-5bd66ef5095369c7b0d1f8f4bd33716a-c532cb4098ac3dd2-01");
        assert_eq!(context["tracestate"], "congo=t61");
        assert!(context.get("route").is_none());
    }

    #[test]
    fn others_give_nothing() {
        for statement in [
            &b"INSERT INTO t VALUES (1)"[..],
            b"INSERT INTO t VALUES (1) /* traceparent='nonsense' */",
            b"INSERT INTO t VALUES ('traceparent=') /*",
            b"/*traceparent='00-00000000000000000000000000000000-c532cb4098ac3dd2-01'*/ DELETE FROM t",
            b"\xff\xfe*/",
        ] {
            assert_eq!(context(statement, false), None, "{}", String::from_utf8_lossy(statement));
        }
    }

    #[test]
    fn the_text_is_cut_at_a_character() {
        let statement = format!("SELECT '{}'", "ä".repeat(4096));
        let context: Value = serde_json::from_slice(&context(statement.as_bytes(), true).unwrap()).unwrap();
        assert!(context["query"].as_str().unwrap().len() <= LONGEST);
    }
}
