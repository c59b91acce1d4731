//! The few requests that a handshake or a verification makes the gateway send: `https` alone, no redirects, no private
//! addresses, a deadline, a cap on what is read. The URL's host was pinned to the provider's before.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

const DEADLINE: Duration = Duration::from_secs(5);
const MOST: usize = 64 << 10;
/// A document is good for as long as its `max-age` says, within these bounds.
const SHORTEST: Duration = Duration::from_secs(5 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Why a request was not answered as it should have been.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    #[error("{0}")]
    Request(String),
    #[error("answered {0}")]
    Status(reqwest::StatusCode),
    #[error("more than {MOST} bytes")]
    TooLarge,
}

impl From<reqwest::Error> for OutboundError {
    fn from(error: reqwest::Error) -> Self {
        // The URL may hold a token.
        Self::Request(error.without_url().to_string())
    }
}

/// A client for them, made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Outbound(OnceLock<reqwest::Client>);

impl Outbound {
    fn client(&self) -> Result<&reqwest::Client, OutboundError> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let client = reqwest::Client::builder()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(DEADLINE)
            .no_proxy()
            .dns_resolver(Arc::new(PublicOnly))
            .build()?;
        Ok(self.0.get_or_init(|| client))
    }

    /// Sends a GET; anything but 2xx is an error.
    pub(crate) async fn confirm(&self, url: &str) -> Result<(), OutboundError> {
        let answer = self.get(url).await?;
        drop(answer);
        Ok(())
    }

    /// Fetches a document; tells for how long it is good.
    pub(crate) async fn fetch(&self, url: &str) -> Result<(Vec<u8>, Duration), OutboundError> {
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

    #[test]
    fn max_age_is_read() {
        assert_eq!(max_age("public, max-age=120"), Some(Duration::from_secs(120)));
        assert_eq!(max_age("no-store"), None);
    }
}
