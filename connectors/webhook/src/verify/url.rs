//! The spellings in which a provider may have signed the URL.

use serde::Deserialize;
use std::borrow::Cow;

/// A habit of a provider's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Variant {
    /// The port is written, or left out, as it likes (Twilio).
    Port,
    /// Some percent-encoded characters of the query are decoded first (HubSpot).
    Decoded,
}

/// The URL that a request was sent to, as the provider knows it. The configured part is never read from the request.
pub(crate) fn full<'a>(public_url: &'a str, query: &str) -> Cow<'a, str> {
    if query.is_empty() || public_url.contains('?') {
        return Cow::Borrowed(public_url);
    }
    Cow::Owned(format!("{public_url}?{query}"))
}

/// The URL in every spelling that counts as the same.
pub(crate) fn spellings<'a>(url: &'a str, variants: &[Variant]) -> Vec<Cow<'a, str>> {
    let mut spellings = vec![Cow::Borrowed(url)];
    for variant in variants {
        let other = match variant {
            Variant::Port => other_port(url),
            Variant::Decoded => Some(decode_some(url)),
        };
        spellings.extend(other.filter(|other| other != url).map(Cow::Owned));
    }
    spellings
}

/// The URL with its scheme's port where it has none, without it where it has.
fn other_port(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    Some(match authority.strip_suffix(port) {
        Some(host) => format!("{scheme}://{host}{path}"),
        None if authority.rsplit('@').next().is_some_and(|host| host.contains(':')) => return None,
        None => format!("{scheme}://{authority}{port}{path}"),
    })
}

/// HubSpot decodes these characters, and only these, before it signs.
fn decode_some(url: &str) -> String {
    const DECODED: [(&str, &str); 12] = [
        ("%3A", ":"),
        ("%2F", "/"),
        ("%3F", "?"),
        ("%40", "@"),
        ("%21", "!"),
        ("%24", "$"),
        ("%27", "'"),
        ("%28", "("),
        ("%29", ")"),
        ("%2A", "*"),
        ("%2C", ","),
        ("%3B", ";"),
    ];
    DECODED.iter().fold(url.to_owned(), |url, (code, text)| {
        url.replace(code, text).replace(&code.to_ascii_lowercase(), text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_comes_and_goes() {
        assert_eq!(other_port("https://a.example/x?y=1").as_deref(), Some("https://a.example:443/x?y=1"));
        assert_eq!(other_port("https://a.example:443/x").as_deref(), Some("https://a.example/x"));
        assert_eq!(other_port("http://a.example").as_deref(), Some("http://a.example:80"));
        assert_eq!(other_port("https://a.example:8443/x"), None);
        assert_eq!(other_port("nonsense"), None);
    }
}
