//! Hides the values of a column from everybody behind the connector.
//!
//! A mask is a writer in the place of the column's own, so whatever is made of a row (key, images, subject, dead letter)
//! is made of hidden values. It never fails: what its column cannot write is hidden all the same, for a value that cannot
//! be written goes to the dead letters as it is.

use super::form::json_string;
use crate::config::{Mask, Salt};
use headgate_sdk::{Relation, Unwritable, WriteValue};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::{fmt, sync::Arc};

/// What stands for every value of a redacted column.
pub(super) const REDACTED: &str = "[redacted]";

/// A mask with its key.
#[derive(Clone)]
pub(super) enum Prepared {
    /// See [`Mask::Hash`].
    Hash(Box<Hmac<Sha256>>),
    /// See [`Mask::Redact`].
    Redact,
    /// See [`Mask::Truncate`].
    Truncate(usize),
}

impl Prepared {
    /// Prepares a mask. Without a salt, which the configuration refuses, `hash` hides everything.
    pub(super) fn new(mask: Mask, salt: Option<&Salt>) -> Self {
        let keyed = |salt: &Salt| Hmac::new_from_slice(salt.bytes()).ok();
        match (mask, salt.and_then(keyed)) {
            (Mask::Hash, Some(keyed)) => Self::Hash(Box::new(keyed)),
            (Mask::Hash, None) | (Mask::Redact, _) => Self::Redact,
            (Mask::Truncate(keep), _) => Self::Truncate(keep),
        }
    }

    /// Whether different values stay different, so that it may name a row.
    pub(super) fn keeps_identity(&self) -> bool {
        matches!(self, Self::Hash(_))
    }
}

/// Without the key.
impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hash(_) => "Hash",
            Self::Redact => "Redact",
            Self::Truncate(_) => "Truncate",
        })
    }
}

/// Writes what the mask leaves of a column's values.
#[derive(Debug)]
pub(super) struct Masked {
    /// The relation as the connector told it.
    pub relation: Arc<Relation>,
    /// The column's place in it.
    pub column: usize,
    /// The mask.
    pub mask: Prepared,
}

impl WriteValue for Masked {
    fn write(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let mut json = Vec::with_capacity(raw.len() + 2);
        let written = self.relation.columns[self.column].writer.write(raw, &mut json).is_ok();
        match &self.mask {
            Prepared::Hash(keyed) => {
                let mut keyed = (**keyed).clone();
                if written {
                    keyed.update(super::key::plain(&json).as_bytes());
                } else {
                    keyed.update(raw);
                }
                out.push(b'"');
                for byte in keyed.finalize().into_bytes() {
                    out.extend_from_slice(&super::encode::hex(byte));
                }
                out.push(b'"');
            }
            Prepared::Truncate(keep) if written => {
                let text = super::key::plain(&json);
                let end = text.char_indices().nth(*keep).map_or(text.len(), |(at, _)| at);
                out.extend_from_slice(&json_string(&text[..end]));
            }
            Prepared::Redact | Prepared::Truncate(_) => out.extend_from_slice(&json_string(REDACTED)),
        }
        Ok(())
    }
}
