//! Up to where each of several things was read by runs that posted what was missing, as a bookmark holds it. No I/O.

use super::Since;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::collections::BTreeMap;

/// A time in microseconds since 1970-01-01 UTC by the name of a thing: an object, a channel, a kind of event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(BTreeMap<String, i64>);

impl Places {
    /// Out of a bookmark's text, `Account=1700000000000000 Contact=…`; what is none is left out.
    pub(super) fn read(text: &str) -> Self {
        let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
        let place = |(thing, at): (&str, &str)| {
            Some((percent_decode_str(thing).decode_utf8().ok()?.into_owned(), at.parse().ok()?))
        };
        Self(pairs.filter_map(place).collect())
    }

    /// As a bookmark's text.
    pub(super) fn written(&self) -> String {
        let pair =
            |(thing, at): (&String, &i64)| format!("{}={at}", utf8_percent_encode(thing, NON_ALPHANUMERIC));
        self.0.iter().map(pair).collect::<Vec<_>>().join(" ")
    }

    /// Up to where a thing was read.
    pub(super) fn of(&self, thing: &str) -> Option<i64> {
        self.0.get(thing).copied()
    }

    /// Notes that a thing was read from one time to another. That moves its place neither back nor over what no run has read.
    pub(super) fn reach(&mut self, thing: &str, from: i64, to: i64) {
        let place = self.0.entry(thing.to_owned()).or_insert(to);
        if *place >= from {
            *place = to.max(*place);
        }
    }

    /// Where a thing is read from.
    pub(super) fn from(&self, thing: &str, since: Since) -> i64 {
        match since {
            Since::LastRun(first) => self.of(thing).unwrap_or(first),
            Since::Time(at) => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_has_its_place_and_none_goes_back() {
        let mut places = Places::read("Account=50 nonsense Bad=x");
        assert_eq!((places.of("Account"), places.of("Bad")), (Some(50), None));
        let from = |places: &Places, thing, since| places.from(thing, since);
        assert_eq!(from(&places, "Account", Since::LastRun(20)), 50);
        assert_eq!(from(&places, "Contact", Since::LastRun(20)), 20);
        assert_eq!(from(&places, "Account", Since::Time(20)), 20);
        places.reach("Account", 20, 40);
        places.reach("Account", 51, 90);
        assert_eq!(places.of("Account"), Some(50), "nobody read 50 to 51");
        places.reach("a name=with all", 3, 7);
        let again = Places::read(&places.written());
        assert_eq!(again, places);
        assert_eq!((again.of("Account"), again.of("a name=with all")), (Some(50), Some(7)));
        places.reach("Account", 50, 60);
        assert_eq!(places.of("Account"), Some(60));
    }
}
