//! Why a source stopped, and whether trying again can help.

use std::{error::Error, fmt};

/// What kind of answer a fault wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Passing (a lost connection): reconnect with backoff, for ever, and show it.
    Transient,
    /// Somebody else is reading the source, another gateway most likely: stand by, and try again soon.
    Busy,
    /// Final until a person changes something (slot lost, wrong credentials, unfit schema): stop this source only, say what to
    /// change, and look now and then whether somebody did.
    Definite,
    /// History is gone, and the policy is to wait until somebody accepts that.
    Gap,
}

/// Why a source stopped: what happened and where, what to do next, and what caused it.
///
/// The text is shown to people and must never hold a secret.
#[derive(Debug)]
pub struct Fault {
    kind: FaultKind,
    message: String,
    fix: Option<String>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault that another try may get past.
    pub fn transient(message: impl Into<String>) -> Self {
        Self { kind: FaultKind::Transient, message: message.into(), fix: None, cause: None }
    }

    /// A source that is being read elsewhere.
    pub fn busy(message: impl Into<String>) -> Self {
        Self { kind: FaultKind::Busy, message: message.into(), fix: None, cause: None }
    }

    /// Lost history that has to be accepted first.
    pub fn gap(message: impl Into<String>) -> Self {
        Self { kind: FaultKind::Gap, message: message.into(), fix: None, cause: None }
    }

    /// A fault that stays until somebody acts.
    pub fn definite(message: impl Into<String>) -> Self {
        Self { kind: FaultKind::Definite, message: message.into(), fix: None, cause: None }
    }

    /// Adds what to do next: the statement or the setting that fixes it.
    #[must_use]
    pub fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Whether another try can help.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        self.kind
    }

    /// What happened, without the fix and the cause.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> Option<&str> {
        self.fix.as_deref()
    }
}

/// `message: cause: cause`, in one line. The fix stands apart ([`Fault::fix`]), for it is shown on a line of its own.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause: Option<&(dyn Error + 'static)> = self.cause.as_deref().map(|c| c as _);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl Error for Fault {}
