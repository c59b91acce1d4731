//! For how long somebody who answers 429 or the like wants no more requests. No I/O.

use super::text;
use crate::json;
use http::{HeaderMap, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use std::time::Duration;

/// How often something is asked for before it is enough.
pub const TRIES: u32 = 5;

/// Longest wait between two tries. Who wants a longer one is asked again by another run.
pub const PATIENCE: Duration = Duration::from_secs(120);

const DATES: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);

/// What `Retry-After` says (RFC 9110, section 10.2.3): seconds, with a fraction at Shopify, or a date.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => Some(until(DATES.parse_timestamp(text).ok()?, now)),
    }
}

/// The same, or when GitHub counts anew.
pub(super) fn asked(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let reset = || {
        let at = headers.get("x-ratelimit-reset").filter(|_| spent(headers))?;
        let at = Timestamp::from_second(at.to_str().ok()?.parse().ok()?).ok()?;
        Some(until(at, now))
    };
    retry_after(headers, now).or_else(reset)
}

/// Whether fewer requests are wanted. GitHub and Google say 403 instead of 429.
pub(super) fn is_limited(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> bool {
    let reason = || json::parse(body).ok().and_then(|root| text(root, "/error/errors/0/reason"));
    match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => {
            headers.contains_key(header::RETRY_AFTER)
                || spent(headers)
                || matches!(reason().as_deref(), Some("rateLimitExceeded" | "userRateLimitExceeded"))
        }
        _ => false,
    }
}

/// Twice as long each time, from two seconds where fewer requests are wanted: Airtable wants half a minute and does not say so.
pub(super) fn backoff(attempt: u32, limited: bool) -> Duration {
    Duration::from_millis(if limited { 1000 } else { 250 }) * 2_u32.pow(attempt.min(TRIES))
}

fn spent(headers: &HeaderMap) -> bool {
    headers.get("x-ratelimit-remaining").is_some_and(|left| left == "0")
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    at.duration_since(now).try_into().unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        for (text, wait) in [
            ("0", Some(Duration::ZERO)),
            ("120", Some(Duration::from_secs(120))),
            (" 2.5 ", Some(Duration::from_millis(2500))),
            ("Sun, 22 Nov 2026 10:01:30 GMT", Some(Duration::from_secs(90))),
            ("Mon, 22 Nov 2026 10:01:30 GMT", Some(Duration::from_secs(90))),
            ("Sun, 22 Nov 2026 09:00:00 GMT", Some(Duration::ZERO)),
            ("-1", None),
            ("1e300", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(&headers(&[("retry-after", text)]), now), wait, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
        let reset = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1795341660")];
        assert_eq!(asked(&headers(&reset), now), Some(Duration::from_secs(60)));
        assert_eq!(asked(&headers(&reset[1..]), now), None, "there are calls left");
    }

    #[test]
    fn a_limit_is_told_from_a_lack_of_rights() {
        let google = br#"{"error":{"code":403,"errors":[{"reason":"userRateLimitExceeded"}],"message":"x"}}"#;
        let (none, after) = (HeaderMap::new(), headers(&[("retry-after", "1")]));
        assert!(is_limited(StatusCode::TOO_MANY_REQUESTS, &none, b""));
        assert!(is_limited(StatusCode::FORBIDDEN, &after, b""));
        assert!(is_limited(StatusCode::FORBIDDEN, &none, google));
        assert!(!is_limited(
            StatusCode::FORBIDDEN,
            &none,
            br#"{"error":{"errors":[{"reason":"forbidden"}]}}"#
        ));
        assert!(!is_limited(StatusCode::SERVICE_UNAVAILABLE, &after, google));
    }
}
