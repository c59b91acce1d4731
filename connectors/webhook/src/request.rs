//! A request as it came in, borrowed: what a verdict may depend on, and nothing else.

use http::{HeaderMap, Method};

/// One HTTP request to an endpoint, with its whole body. The body is what came over the wire, after transfer encoding and
/// before any content encoding was undone.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method. Anything but what the provider uses is refused with 405.
    pub method: &'a Method,
    /// Path and query as received, not decoded.
    pub path_and_query: &'a str,
    /// All headers, doubled ones included.
    pub headers: &'a HeaderMap,
    /// The body as the sender signed it: whole and unparsed, after gzip or deflate of the transport was undone.
    pub body: &'a [u8],
    /// When the request arrived, in microseconds since 1970-01-01 UTC.
    pub received_at: i64,
    /// Whether the endpoint still waits to be set up: unverified handshakes are answered only then. An endpoint is pending
    /// until its first verified delivery.
    pub pending: bool,
}

impl Request<'_> {
    /// The query without its `?`, empty where there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        self.path_and_query.split_once('?').map_or("", |(_, query)| query)
    }
}
