//! What a check found out about a source or a broker.

use crate::{Fault, FaultKind};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// As it should be.
    Good,
    /// The run will work; this may hurt later.
    Warning,
    /// The run will not work.
    Error,
}

/// One finding: what is so, why it matters, and the exact statement or setting that fixes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What was looked at, in a few words (`wal_level`, `replica identity of public.orders`).
    pub subject: String,
    /// What was found.
    pub what: String,
    /// Why it matters; empty for good findings.
    pub why: String,
    /// What fixes it: a statement, a setting, a command.
    pub fix: Option<String>,
}

impl Finding {
    /// A finding that all is well.
    pub fn good(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Good,
            subject: subject.into(),
            what: what.into(),
            why: String::new(),
            fix: None,
        }
    }

    /// A finding that may hurt later.
    pub fn warning(subject: impl Into<String>, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            subject: subject.into(),
            what: what.into(),
            why: why.into(),
            fix: None,
        }
    }

    /// A finding that keeps the run from working.
    pub fn error(subject: impl Into<String>, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            subject: subject.into(),
            what: what.into(),
            why: why.into(),
            fix: None,
        }
    }

    /// A fault that keeps the run from working.
    pub fn fault(subject: impl Into<String>, fault: &Fault) -> Self {
        let why = match fault.kind() {
            FaultKind::Definite | FaultKind::Gap => "the source cannot run until this is changed",
            FaultKind::Transient | FaultKind::Busy => "the source cannot run while this lasts",
        };
        Self { fix: fault.fix().map(str::to_owned), ..Self::error(subject, fault.to_string(), why) }
    }

    /// Adds what fixes it.
    #[must_use]
    pub fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}
