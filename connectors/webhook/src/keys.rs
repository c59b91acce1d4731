//! Public keys that have to be fetched: a provider's certificate, a set of JSON web keys.
//!
//! Verification itself does no I/O. It looks into a [`KeyRing`]; what is not there it asks for by a [`KeyRequest`], whose
//! URL has been checked against the provider's own hosts.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

/// A document of keys that verification needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRequest {
    /// Where it is: `https`, a host of the provider's. Follow no redirect and read no more than 64 KiB.
    pub url: String,
}

/// Fetched keys of one endpoint or of many, shared by clones.
#[derive(Clone, Default)]
pub struct KeyRing(Arc<RwLock<HashMap<String, Entry>>>);

struct Entry {
    document: Arc<[u8]>,
    fetched_at: i64,
    until: i64,
}

impl KeyRing {
    /// Most documents that are kept; a provider has a handful.
    const CAPACITY: usize = 256;

    /// For how long a document is not fetched again, in microseconds, although a key is not in it: anybody can name one.
    const FRESH: i64 = 5 * 60 * 1_000_000;

    /// Keeps a document that was fetched at one time until another, both in microseconds since 1970-01-01 UTC. It takes the place of the one
    /// before, so it has to hold keys.
    pub fn insert(&self, request: &KeyRequest, document: &[u8], fetched_at: i64, until: i64) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= Self::CAPACITY {
            entries.clear();
        }
        entries.insert(request.url.clone(), Entry { document: document.into(), fetched_at, until });
    }

    /// Whether the document at `url` is there and so new at `now` that there is no use in fetching it again.
    pub(crate) fn is_fresh(&self, url: &str, now: i64) -> bool {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = |entry: &Entry| now < entry.until.min(entry.fetched_at.saturating_add(Self::FRESH));
        entries.get(url).is_some_and(fresh)
    }

    /// The document at `url`, if it is there and still good at `now`.
    pub(crate) fn get(&self, url: &str, now: i64) -> Option<Arc<[u8]>> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(url).filter(|entry| now < entry.until).map(|entry| entry.document.clone())
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing(…)")
    }
}
