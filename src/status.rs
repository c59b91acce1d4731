//! How each source is, written by the tasks that run it and read by `/status`, `/readyz`, `/metrics` and
//! `headgate status`.
//!
//! Plain numbers are atomics, each on its own: a reader may see one newer than another. Nothing here decides
//! anything: what must survive a restart is in the stream and in the checkpoint.

mod registry;
mod report;
mod source;

pub use registry::Registry;
pub use report::{GatewayReport, HolderReport, NatsReport, Report, SourceReport, WalPressure, WalReport};
pub use source::{HoldUp, SourceState};

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a source is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Connecting, or finding out where to go on.
    Starting,
    /// Reading changes and publishing them.
    Streaming,
    /// Waiting before the next try after a passing fault, or for it to pass.
    Waiting,
    /// Another gateway is running it; this one stands by.
    Standby,
    /// Stopped by a fault that only a person can clear.
    Stopped,
    /// Stopped because history is gone, until somebody accepts the gap.
    Gap,
}

impl Phase {
    const ALL: [Self; 6] =
        [Self::Starting, Self::Streaming, Self::Waiting, Self::Standby, Self::Stopped, Self::Gap];

    /// Whether the source does its work, here or elsewhere.
    #[must_use]
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Streaming | Self::Standby)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Streaming => "streaming",
            Self::Waiting => "waiting",
            Self::Standby => "standby",
            Self::Stopped => "stopped",
            Self::Gap => "gap",
        })
    }
}
