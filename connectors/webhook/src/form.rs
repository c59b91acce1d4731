//! `application/x-www-form-urlencoded`, as queries and some bodies are.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Whether a content type says that a body is a form.
pub(crate) fn is(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default();
    media.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The pairs in their order, decoded. What is not UTF-8 is replaced, as browsers do.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// The first value of this name.
pub(crate) fn first<'a>(text: &'a str, name: &str) -> Option<Cow<'a, str>> {
    pairs(text).find(|(found, _)| found == name).map(|(_, value)| value)
}

/// How often a name comes.
pub(crate) fn count(text: &str, name: &str) -> usize {
    pairs(text).filter(|(found, _)| found == name).count()
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}
