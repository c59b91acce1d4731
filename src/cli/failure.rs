//! How a command fails: what it says and the exit code it leaves.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// The exit codes, as sysexits has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Wrong usage or configuration.
    Usage = 64,
    /// Something that is needed is not there, or not fit.
    Unavailable = 69,
    /// A defect of Headgate.
    Internal = 70,
    /// Going on would not be safe.
    Refused = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    fix: Option<String>,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), fix: None }
    }

    /// Wrong usage or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something that is needed is not there, or not fit.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unavailable, message)
    }

    /// A defect of Headgate.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Exit::Internal, message)
    }

    /// Going on would not be safe.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Says it on standard error, unless all was said before, and gives the exit code.
    #[must_use]
    pub fn report(self) -> ExitCode {
        let mut err = io::stderr().lock();
        // Where even standard error is gone, the exit code has to do.
        if !self.message.is_empty() {
            let _ = writeln!(err, "headgate: {}", self.message.replace('\n', "\nheadgate: "));
        }
        if let Some(fix) = self.fix {
            let _ = writeln!(err, "  fix: {fix}");
        }
        self.exit.into()
    }
}

/// Writes to standard output at once. A reader that has gone away (`| head`) is no failure.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn print(text: &[u8]) -> Result<(), Failure> {
    match write(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::internal(format!("cannot write the output: {error}"))),
    }
}

/// Writes to standard output at once; false when its reader has gone away.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn write(text: &[u8]) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
