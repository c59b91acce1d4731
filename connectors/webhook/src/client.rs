//! Who a request comes from, and whether that is allowed: the client's address behind trusted proxies, a source's
//! networks, and its rate.

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock as _};
use http::HeaderMap;
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Addresses whose rate is remembered, before those that have been quiet are forgotten.
const REMEMBERED: usize = 16_384;
/// The part of an IPv6 address that a client does not choose itself.
const NETWORK: u128 = !(u64::MAX as u128);
/// How many requests pass between two looks at how many are remembered.
const LOOK_EVERY: u32 = 1024;

/// The client's address: the peer's, or what trusted proxies say in `X-Forwarded-For`, read from the right up to the first
/// address that is no trusted proxy. What a client itself wrote there lies further left and is not believed.
pub(crate) fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(&peer) {
        return peer;
    }
    let mut client = peer;
    for header in headers.get_all("x-forwarded-for").iter().rev() {
        let Ok(text) = header.to_str() else { return client };
        for part in text.rsplit(',') {
            let Some(address) = forwarded(part.trim()) else { return client };
            client = address;
            if !is_trusted(&client) {
                return client;
            }
        }
    }
    client
}

/// An address, with or without a port.
fn forwarded(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let address = text.parse::<IpAddr>().ok().or_else(|| {
        text.parse::<std::net::SocketAddr>()
            .ok()
            .map(|address| address.ip())
            .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
    })?;
    Some(address.to_canonical())
}

/// Whether an address is in one of the networks; an empty list allows all.
pub(crate) fn is_allowed(address: IpAddr, networks: &[IpNet]) -> bool {
    networks.is_empty() || networks.iter().any(|network| network.contains(&address))
}

/// Requests a period, for each client address on its own: one that floods is turned away, and the others are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests, which may also come at once.
    pub requests: NonZeroU32,
    /// In how long they may come again.
    pub every: Duration,
}

/// A source's rate as it is used up.
#[derive(Debug)]
pub(crate) struct Meter {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    asked: AtomicU32,
}

impl Meter {
    pub(crate) fn new(rate: Rate) -> Option<Self> {
        let each = rate.every.checked_div(rate.requests.get()).filter(|each| !each.is_zero())?;
        let quota = Quota::with_period(each)?.allow_burst(rate.requests);
        Some(Self { limiter: RateLimiter::keyed(quota), asked: AtomicU32::new(0) })
    }

    /// How long the client has to wait; `None`: go on. One who has a /64 of IPv6 has all of its addresses.
    pub(crate) fn wait(&self, client: IpAddr) -> Option<Duration> {
        let client = match client {
            IpAddr::V6(address) => match (address.segments(), address.octets()) {
                // All of IPv4 is in this one network, behind a translator (RFC 6052, section 2.1).
                ([0x64, 0xff9b, 0, 0, 0, 0, ..], [.., a, b, c, d]) => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
                _ => IpAddr::V6((u128::from(address) & NETWORK).into()),
            },
            client => client,
        };
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY)
            && self.limiter.len() > REMEMBERED
        {
            self.limiter.retain_recent();
        }
        let refused = self.limiter.check_key(&client).err()?;
        Some(refused.wait_time_from(governor::clock::DefaultClock::default().now()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;

    fn seen(peer: &str, forwarded: &[&'static str]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_static(value));
        }
        address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(seen("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(seen("::ffff:10.0.0.1", &["198.51.100.1:443"]), "198.51.100.1");
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.2.3.4"]),
            "198.51.100.1",
            "what is further left is the client's own"
        );
        assert_eq!(seen("10.0.0.1", &["1.1.1.1", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(seen("::1", &["\"[2001:db8::1]:80\""]), "2001:db8::1");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1, nonsense"]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn an_empty_list_of_networks_allows_all() {
        let address: IpAddr = "198.51.100.1".parse().unwrap();
        assert!(is_allowed(address, &[]));
        assert!(is_allowed(address, &["198.51.100.0/24".parse().unwrap()]));
        assert!(!is_allowed(address, &["10.0.0.0/8".parse().unwrap()]));
    }

    #[test]
    fn one_client_that_floods_does_not_stop_another() {
        let rate = Rate { requests: NonZeroU32::new(3).unwrap(), every: Duration::from_secs(3600) };
        let meter = Meter::new(rate).unwrap();
        let [flood, other] = ["198.51.100.1", "198.51.100.2"].map(|text| text.parse().unwrap());
        assert!((0..3).all(|_| meter.wait(flood).is_none()));
        assert!(meter.wait(flood).is_some_and(|wait| wait > Duration::from_secs(600)));
        assert!(meter.wait(other).is_none());
        let [one, another, else_where] =
            ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        assert!((0..3).all(|_| meter.wait(one).is_none()));
        assert!(meter.wait(another).is_some(), "the same network");
        assert!(meter.wait(else_where).is_none());
        let [translated, neighbour] =
            ["64:ff9b::203.0.113.1", "64:ff9b::203.0.113.2"].map(|text| text.parse().unwrap());
        assert!((0..3).all(|_| meter.wait(translated).is_none()));
        assert!(meter.wait(translated).is_some());
        assert!(meter.wait(neighbour).is_none(), "another client of IPv4 behind the same translator");
    }
}
