//! The few requests that a handshake or a verification makes the gateway send: `https` alone, no redirects, no private
//! addresses, a deadline, a cap on what is read. The URL's host was pinned to the provider's before.
//!
//! Anybody can have a key fetched, with a signature that is none. So few are fetched at a time, and a place that gave nothing is not asked
//! again for a moment.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, SemaphorePermit};

const DEADLINE: Duration = Duration::from_secs(5);
const MOST: usize = 64 << 10;
/// A document is good for as long as its `max-age` says, within these bounds.
const SHORTEST: Duration = Duration::from_secs(5 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Documents that are fetched at the same time.
const FETCHES: usize = 4;
/// How long a place that gave nothing is not asked again.
const REST: Duration = Duration::from_secs(10);
/// Such places that are remembered.
const REMEMBERED: usize = 1024;

/// Why a request was not answered as it should have been.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    #[error("{0}")]
    Request(String),
    #[error("answered {0}")]
    Status(reqwest::StatusCode),
    #[error("more than {MOST} bytes")]
    TooLarge,
    #[error("answered with something that holds no keys")]
    NoKeys,
    #[error("too many are being fetched, or the place gave nothing a moment ago")]
    NotNow,
}

impl From<reqwest::Error> for OutboundError {
    fn from(error: reqwest::Error) -> Self {
        // The URL may hold a token.
        Self::Request(error.without_url().to_string())
    }
}

/// A client for them, made when it is first needed.
#[derive(Debug)]
pub(crate) struct Outbound {
    client: OnceLock<reqwest::Client>,
    fetches: Semaphore,
    /// When places gave nothing.
    failed: Mutex<HashMap<String, Instant>>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self { client: OnceLock::new(), fetches: Semaphore::new(FETCHES), failed: Mutex::default() }
    }
}

/// The right to fetch one document.
pub(crate) struct Turn<'a> {
    outbound: &'a Outbound,
    _permit: SemaphorePermit<'a>,
}

impl Outbound {
    fn client(&self) -> Result<&reqwest::Client, OutboundError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = reqwest::Client::builder()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(DEADLINE)
            .no_proxy()
            .dns_resolver(Arc::new(PublicOnly))
            .build()?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Sends a GET; anything but 2xx is an error.
    pub(crate) async fn confirm(&self, url: &str) -> Result<(), OutboundError> {
        let answer = self.get(url).await?;
        drop(answer);
        Ok(())
    }

    /// Waits for a turn to fetch the document at a URL. Who waited may find it there, or that the place gave nothing to another.
    pub(crate) async fn turn(&self, url: &str) -> Result<Turn<'_>, OutboundError> {
        self.may_ask(url)?;
        let permit = tokio::time::timeout(DEADLINE, self.fetches.acquire()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or(OutboundError::NotNow)?;
        self.may_ask(url)?;
        Ok(Turn { outbound: self, _permit: permit })
    }

    fn may_ask(&self, url: &str) -> Result<(), OutboundError> {
        match self.failed().get(url) {
            Some(at) if at.elapsed() < REST => Err(OutboundError::NotNow),
            _ => Ok(()),
        }
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self, url: &str) -> Result<(Vec<u8>, Duration), OutboundError> {
        let mut answer = self.get(url).await?;
        let good_for = answer
            .headers()
            .get(reqwest::header::CACHE_CONTROL)
            .and_then(|value| max_age(value.to_str().ok()?))
            .unwrap_or(SHORTEST)
            .clamp(SHORTEST, LONGEST);
        let mut document = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if document.len() + chunk.len() > MOST {
                return Err(OutboundError::TooLarge);
            }
            document.extend_from_slice(&chunk);
        }
        Ok((document, good_for))
    }

    async fn get(&self, url: &str) -> Result<reqwest::Response, OutboundError> {
        let url: reqwest::Url = url.parse().map_err(|_| OutboundError::Request("not a URL".to_owned()))?;
        // A literal address would pass the resolver by.
        if url.domain().is_none() {
            return Err(OutboundError::Request("an address instead of a host name".to_owned()));
        }
        let answer = self.client()?.get(url).send().await?;
        if answer.status().is_success() { Ok(answer) } else { Err(OutboundError::Status(answer.status())) }
    }
}

impl Turn<'_> {
    /// Fetches the document, which has to be fit; tells for how long it is good.
    pub(crate) async fn fetch(
        self,
        url: &str,
        is_fit: impl Fn(&[u8]) -> bool,
    ) -> Result<(Vec<u8>, Duration), OutboundError> {
        let fetched = self.outbound.fetch(url).await;
        let fetched =
            fetched.and_then(|found| if is_fit(&found.0) { Ok(found) } else { Err(OutboundError::NoKeys) });
        let mut failed = self.outbound.failed();
        if fetched.is_ok() {
            failed.remove(url);
            return fetched;
        }
        if failed.len() >= REMEMBERED {
            failed.retain(|_, at| at.elapsed() < REST);
        }
        if failed.len() < REMEMBERED {
            failed.insert(url.to_owned(), Instant::now());
        }
        fetched
    }
}

fn max_age(cache_control: &str) -> Option<Duration> {
    cache_control
        .split(',')
        .find_map(|part| part.trim().strip_prefix("max-age="))
        .and_then(|seconds| seconds.parse().ok())
        .map(Duration::from_secs)
}

/// Resolves names to public addresses only.
#[derive(Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err("the host has no public address".into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_unspecified()
        || first == 0
        || first >= 240
        // Carrier-grade NAT (RFC 6598), benchmarking (RFC 2544).
        || (first == 100 && (64..128).contains(&second))
        || (first == 198 && (18..20).contains(&second)))
}

/// Global unicast is 2000::/3; of that, 6to4 and Teredo carry any IPv4 address.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    (first & 0xe000) == 0x2000 && first != 0x2002 && !(first == 0x2001 && second == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn private_addresses_are_told_from_public_ones() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["198.51.100.1", "8.8.8.8", "2606:4700::1111"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn what_is_not_https_to_a_name_is_not_asked() {
        let outbound = Outbound::default();
        for url in ["http://example.com/", "https://127.0.0.1/", "https://[::1]/", "https://localhost/", "x"]
        {
            assert!(outbound.confirm(url).await.is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_place_that_gave_nothing_is_left_alone_and_few_are_asked_at_once() {
        let outbound = Outbound::default();
        let turn = outbound.turn("https://127.0.0.1/").await.unwrap();
        assert!(turn.fetch("https://127.0.0.1/", |_| true).await.is_err());
        assert!(matches!(outbound.turn("https://127.0.0.1/").await, Err(OutboundError::NotNow)));
        assert!(outbound.turn("https://127.0.0.2/").await.is_ok(), "another place");
        for number in 0..2 * REMEMBERED {
            let url = format!("x{number}");
            assert!(outbound.turn(&url).await.unwrap().fetch(&url, |_| true).await.is_err());
        }
        assert_eq!(outbound.failed().len(), REMEMBERED);
        outbound.failed().clear();
        let mut turns = Vec::new();
        for number in 0..FETCHES {
            turns.push(outbound.turn(&format!("https://h{number}/")).await.unwrap());
        }
        assert_eq!(outbound.fetches.available_permits(), 0);
        let turn = turns.pop().unwrap();
        let (waited, failed) = tokio::join!(biased; outbound.turn("https://127.0.0.3/"), turn.fetch("https://127.0.0.3/", |_| true));
        assert!(failed.is_err());
        assert!(matches!(waited, Err(OutboundError::NotNow)), "it failed while this one waited for its turn");
        drop(turns);
        assert_eq!(outbound.fetches.available_permits(), FETCHES);
    }

    #[test]
    fn max_age_is_read() {
        assert_eq!(max_age("public, max-age=120"), Some(Duration::from_secs(120)));
        assert_eq!(max_age("no-store"), None);
    }
}
