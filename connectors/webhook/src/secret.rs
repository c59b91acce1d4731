//! Key material that no log, error or `Debug` output may show.

use aws_lc_rs::rand;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use std::fmt;

/// A secret as the user wrote it: an HMAC key, a token, a public key in the provider's own encoding.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps the text of a secret.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// A new secret of 256 random bits, in base64: a form that every provider takes that lets others choose it.
    ///
    /// # Errors
    /// The system has no random numbers to give.
    pub fn fresh() -> Result<Self, Unrandom> {
        random::<32>().map(|bytes| Self(BASE64_STANDARD.encode(bytes).into()))
    }

    /// The text, for those who compute with it or store it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The system has no random numbers to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random numbers to give")]
pub struct Unrandom;

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Unrandom> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Unrandom)?;
    Ok(bytes)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
