//! The time as events and vitals have it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in microseconds since 1970-01-01 UTC.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
