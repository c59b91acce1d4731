//! Which nats-server it is, and what that one can be trusted with.
//!
//! Total: a text that is no version is older than any.

use async_nats::Client;

/// A server's major, minor and patch number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl Version {
    /// The oldest that Headgate works with.
    pub(crate) const OLDEST: Self = Self(2, 10, 0);
    /// The oldest that Headgate is tested with, and the first with atomic batches.
    pub(crate) const TESTED: Self = Self(2, 12, 0);

    /// That of the server at the other end of the client's present connection.
    pub(crate) fn of(client: &Client) -> Self {
        Self::parse(&client.server_info().version)
    }

    /// Reads `2.12.1`, `v2.12.1-RC.2`; zero for what is missing.
    pub(crate) fn parse(text: &str) -> Self {
        let mut numbers = text.trim_start_matches('v').splitn(3, '.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).map_or(part, |end| &part[..end]);
            digits.parse().unwrap_or(0)
        });
        let mut next = || numbers.next().unwrap_or(0);
        Self(next(), next(), next())
    }

    /// Whether its atomic batches are sound. A 2.12 has to be 2.12.12 and a 2.14 has to be 2.14.3: those before can come to a
    /// deadlock or a panic over batches on replicated streams. No 2.13 is taken.
    pub(crate) fn has_sound_batches(self) -> bool {
        self >= Self(2, 14, 3) || (Self(2, 12, 12)..Self(2, 13, 0)).contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_by_its_numbers() {
        assert_eq!(Version::parse("2.9.25"), Version(2, 9, 25));
        assert_eq!(Version::parse("v2.12.1-RC.2"), Version(2, 12, 1));
        assert_eq!(Version::parse("2.14"), Version(2, 14, 0));
        assert_eq!(Version::parse("nightly"), Version(0, 0, 0));
        assert!(Version::parse("2.9.25") < Version::OLDEST && Version::parse("2.15.1") > Version::TESTED);
    }

    #[test]
    fn only_servers_whose_batches_are_sound_are_trusted_with_them() {
        for sound in ["2.12.12", "2.12.13", "2.14.3", "2.14.4", "2.15.0", "2.16.1", "3.0.0"] {
            assert!(Version::parse(sound).has_sound_batches(), "{sound}");
        }
        for faulty in ["2.10.29", "2.11.20", "2.12.1", "2.12.11", "2.13.0", "2.13.20", "2.14.0", "2.14.2", ""]
        {
            assert!(!Version::parse(faulty).has_sound_batches(), "{faulty}");
        }
    }
}
