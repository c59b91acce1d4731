//! The way to the broker.

use serde::{Deserialize, Serialize};

/// How the connection to the broker is, told through a watch channel by its event callback.
///
/// A reader that finds another `generation` than it knew has lost whatever was under way on the connection before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Whether there is a connection now.
    pub connected: bool,
    /// How many connections there have been; 0 before the first.
    pub generation: u64,
}
