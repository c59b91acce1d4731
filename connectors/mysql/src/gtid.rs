//! Global transaction ids: which transactions a log holds, and which of them were read.
//!
//! Pure. MySQL names *sets* of transactions, MariaDB the *last* of each domain; so each has a type of its own.

pub mod mariadb;
pub mod mysql;
#[cfg(test)]
mod tests;

/// Why a text is not a GTID, or not a set of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseGtidError {
    /// The part that cannot be read.
    text: String,
    /// What it should have been.
    expected: &'static str,
}

impl ParseGtidError {
    fn new(text: &str, expected: &'static str) -> Self {
        // A hostile text may be of any length.
        Self { text: text.chars().take(80).collect(), expected }
    }
}
