//! What the server says when it says no, and what that means for us: passing or final, and what to do about it.
//!
//! Decided by SQLSTATE alone: the texts are translated and change between versions.

use headgate_sdk::{Fault, FaultKind};
use std::fmt;

/// An ErrorResponse or a NoticeResponse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// `ERROR`, `FATAL`, `WARNING`…, never translated.
    pub(crate) severity: String,
    /// The SQLSTATE.
    pub(crate) code: String,
    /// What is wrong.
    pub(crate) message: String,
    /// More of it.
    pub(crate) detail: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        write!(f, " [SQLSTATE {}]", self.code)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// Reads the body of the message. Never fails: what cannot be read is left out.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let (mut refusal, mut local_severity) = (Self::default(), String::new());
        for field in body.split(|&byte| byte == 0) {
            let Some((kind, value)) = field.split_first() else { break };
            let value = || String::from_utf8_lossy(value).into_owned();
            match kind {
                b'V' => refusal.severity = value(),
                b'S' => local_severity = value(),
                b'C' => refusal.code = value(),
                b'M' => refusal.message = value(),
                b'D' => refusal.detail = Some(value()),
                _ => {}
            }
        }
        if refusal.severity.is_empty() {
            refusal.severity = local_severity;
        }
        refusal
    }

    /// The refusal inside an error of the SQL client, if it is one.
    pub(crate) fn of(error: &tokio_postgres::Error) -> Option<Self> {
        let error = error.as_db_error()?;
        Some(Self {
            severity: error.severity().to_owned(),
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
        })
    }

    /// Whether another try may get past it.
    pub(crate) fn kind(&self) -> FaultKind {
        match self.code.as_str() {
            // A slot that is being read, a lock not available: passing. The rest of class 55 is a state that stays.
            "55006" => FaultKind::Busy,
            "55P03" => FaultKind::Transient,
            "08P01" => FaultKind::Definite,
            code => match code.get(..2) {
                Some("0A" | "22" | "28" | "3D" | "3F" | "42" | "55") => FaultKind::Definite,
                _ => FaultKind::Transient,
            },
        }
    }

    /// The fault, for something that was being done.
    pub(crate) fn fault(self, doing: impl Into<String>) -> Fault {
        let fault = match self.kind() {
            FaultKind::Busy => Fault::busy(doing),
            FaultKind::Definite => Fault::definite(doing),
            FaultKind::Transient | FaultKind::Gap => Fault::transient(doing),
        };
        match self.fix() {
            Some(fix) => fault.with_cause(self).with_fix(fix),
            None => fault.with_cause(self),
        }
    }

    fn fix(&self) -> Option<&'static str> {
        Some(match self.code.as_str() {
            "53300" => {
                "raise max_connections (or max_wal_senders) and restart the server, or close what is not needed: a source takes two ordinary connections and one WAL sender"
            }
            "53400" => {
                "raise max_replication_slots (or max_wal_senders) and restart the server, or drop slots that nobody uses: SELECT slot_name, active FROM pg_replication_slots"
            }
            "57P03" => "wait until the server has started",
            "55006" => {
                "another process reads this slot; if it is a stale one of ours: SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '…'"
            }
            _ => return None,
        })
    }

    /// Whether the server is going away.
    pub(crate) fn is_shutdown(&self) -> bool {
        matches!(self.code.as_str(), "57P01" | "57P02" | "57P03")
    }
}

/// The fault of the SQL client, for something that was being done.
pub(crate) fn sql_fault(error: tokio_postgres::Error, doing: impl Into<String>) -> Fault {
    match Refusal::of(&error) {
        Some(refusal) => refusal.fault(doing),
        // Without an answer of the server it is the connection that failed.
        None => Fault::transient(doing).with_cause(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_and_survives_nonsense() {
        let refusal = Refusal::parse(b"SFEHLER\0VERROR\0C55006\0Mslot busy\0Dby 7\0\0");
        assert_eq!((refusal.severity.as_str(), refusal.code.as_str()), ("ERROR", "55006"));
        assert_eq!(refusal.kind(), FaultKind::Busy);
        assert_eq!(refusal.to_string(), "slot busy (by 7) [SQLSTATE 55006]");
        for body in [&b""[..], b"\0", b"C", b"\0C55006", b"M\xff\xfe\0"] {
            let _ = Refusal::parse(body).fault("doing").to_string();
        }
    }

    #[test]
    fn kinds() {
        let kind = |code: &str| Refusal { code: code.to_owned(), ..Refusal::default() }.kind();
        for code in ["28P01", "28000", "3D000", "42501", "42704", "55000", "08P01"] {
            assert_eq!(kind(code), FaultKind::Definite, "{code}");
        }
        for code in ["53300", "57P01", "57P03", "08006", "40001", "XX000", ""] {
            assert_eq!(kind(code), FaultKind::Transient, "{code}");
        }
    }
}
