//! Signed timestamps: a delivery may be verified only near the time at which it was signed, in both directions.

use crate::{
    Reason,
    template::{Scope, Template},
};
use serde::Deserialize;
use std::{borrow::Cow, time::Duration};

/// How far a signed time may be from now where neither the user nor the provider says it.
const TOLERANCE: Duration = Duration::from_secs(300);

/// How far a signed time may be from now, either way (`tolerance` in the configuration).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tolerance {
    /// Not set: what the provider needs, else five minutes.
    #[default]
    Own,
    /// This far, whatever the provider says.
    Within(Duration),
    /// `off`: any time is accepted.
    Off,
}

/// The `timestamp` table of a provider's `[[verify]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rules {
    /// Where it is.
    value: String,
    unit: Unit,
    /// The provider's own tolerance in seconds.
    tolerance: Option<u32>,
    /// Whether a request without one passes (its body has none).
    #[serde(default)]
    optional: bool,
}

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// Seconds since 1970-01-01 UTC.
    S,
    /// Milliseconds.
    Ms,
    /// RFC 3339.
    Rfc3339,
}

impl Unit {
    /// The text as microseconds since 1970-01-01 UTC.
    pub(crate) fn read(self, text: &str) -> Option<i64> {
        let whole =
            || text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok()).flatten();
        match self {
            Self::S => whole()?.checked_mul(1_000_000),
            Self::Ms => whole()?.checked_mul(1_000),
            Self::Rfc3339 => text.parse::<jiff::Timestamp>().ok().map(|time| time.as_microsecond()),
        }
    }

    /// Microseconds since 1970-01-01 UTC as text.
    pub(crate) fn write(self, micros: i64) -> String {
        match self {
            Self::S => (micros / 1_000_000).to_string(),
            Self::Ms => (micros / 1_000).to_string(),
            Self::Rfc3339 => jiff::Timestamp::from_second(micros / 1_000_000)
                .map(|time| time.to_string())
                .unwrap_or_default(),
        }
    }
}

/// Compiled [`Rules`] with an endpoint's tolerance.
#[derive(Clone, Debug)]
pub(crate) struct Timestamp {
    pub(crate) template: Template,
    pub(crate) source: String,
    pub(crate) unit: Unit,
    optional: bool,
    tolerance: Option<i64>,
}

impl Timestamp {
    /// `tolerance` is the endpoint's.
    pub(crate) fn new(rules: &Rules, tolerance: Tolerance) -> Result<Self, String> {
        let own = rules.tolerance.map(|seconds| Duration::from_secs(seconds.into()));
        let tolerance = match tolerance {
            Tolerance::Own => Some(own.unwrap_or(TOLERANCE)),
            Tolerance::Within(set) => Some(set),
            Tolerance::Off => None,
        };
        Ok(Self {
            template: Template::parse(&rules.value)?,
            source: rules.value.clone(),
            unit: rules.unit,
            optional: rules.optional,
            tolerance: tolerance.map(|tolerance| i64::try_from(tolerance.as_micros()).unwrap_or(i64::MAX)),
        })
    }

    /// The timestamp's text. That it is signed is the message's business.
    pub(crate) fn find(&self, scope: &Scope<'_>) -> Result<Cow<'static, str>, Reason> {
        match self.template.render(scope)? {
            Some(text) => Ok(Cow::Owned(text)),
            None if self.optional => Ok(Cow::Borrowed("")),
            None => Err(Reason::Missing("the signed timestamp".to_owned())),
        }
    }

    /// Whether the time is near enough to `now`. Asked after the signature, so that it tells a forger nothing.
    pub(crate) fn check(&self, text: &str, now: i64) -> Result<(), Reason> {
        if text.is_empty() && self.optional {
            return Ok(());
        }
        let time =
            self.unit.read(text).ok_or_else(|| Reason::Malformed("the signed timestamp".to_owned()))?;
        match self.tolerance {
            Some(tolerance) if time < now.saturating_sub(tolerance) => Err(Reason::Stale),
            Some(tolerance) if time > now.saturating_add(tolerance) => Err(Reason::Future),
            _ => Ok(()),
        }
    }
}
