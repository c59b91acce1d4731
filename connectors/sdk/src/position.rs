//! Where an event stands in its source.

use std::{fmt, str::FromStr};

/// An event's place in the total order of its source: which history, which transaction, which event of it.
///
/// The text form is fixed-width lower-case hexadecimal, so that its byte order is the order of events. It serves as the
/// event's `id` and `sequence` and as the position header of its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which history the commit position counts in. It grows by one whenever the old history ended in a gap (another
    /// server behind the name, a re-created slot), so positions rise even where the new log starts lower.
    pub epoch: u16,
    /// The commit position of the transaction in its log (PostgreSQL: LSN of the commit record).
    pub commit: u64,
    /// The event's index within its transaction, from 0.
    pub index: u32,
}

impl Position {
    /// Length of the text form in bytes.
    pub const TEXT_LEN: usize = 4 + 1 + 16 + 1 + 8;

    /// The text form, without an allocation.
    #[must_use]
    pub fn text(&self) -> [u8; Self::TEXT_LEN] {
        let mut text = [b'-'; Self::TEXT_LEN];
        hex(u64::from(self.epoch), &mut text[0..4]);
        hex(self.commit, &mut text[5..21]);
        hex(u64::from(self.index), &mut text[22..30]);
        text
    }
}

/// Writes `value` right-aligned into `out` as lower-case hexadecimal digits.
fn hex(mut value: u64, out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for digit in out.iter_mut().rev() {
        *digit = DIGITS[(value & 0xf) as usize];
        value >>= 4;
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}-{:016x}-{:08x}", self.epoch, self.commit, self.index)
    }
}

/// The text is not a position that [`Position`]'s `Display` wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position (expected EEEE-CCCCCCCCCCCCCCCC-IIIIIIII in hexadecimal)")]
pub struct ParsePositionError;

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = |range: std::ops::Range<usize>| {
            let part = text.get(range).ok_or(ParsePositionError)?;
            if !part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
                return Err(ParsePositionError);
            }
            u64::from_str_radix(part, 16).map_err(|_| ParsePositionError)
        };
        if text.len() != Self::TEXT_LEN || text.get(4..5) != Some("-") || text.get(21..22) != Some("-") {
            return Err(ParsePositionError);
        }
        let epoch = u16::try_from(digits(0..4)?).map_err(|_| ParsePositionError)?;
        let index = u32::try_from(digits(22..30)?).map_err(|_| ParsePositionError)?;
        Ok(Self { epoch, commit: digits(5..21)?, index })
    }
}

/// How far a log has been told: everything in `epoch` that the log holds before `log` is done with.
///
/// For PostgreSQL `log` is an end LSN (of a commit record, or a keepalive's `wal_end`), the value a standby status
/// update confirms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Progress {
    /// See [`Position::epoch`].
    pub epoch: u16,
    /// First log position that is not done with.
    pub log: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_orders_as_positions_do_and_reads_back() {
        let positions = [
            Position { epoch: 0, commit: u64::MAX, index: u32::MAX },
            Position { epoch: 1, commit: 0, index: 0 },
            Position { epoch: 1, commit: 0x16B_3748, index: 9 },
            Position { epoch: 1, commit: 0x16B_3748, index: 10 },
            Position { epoch: 1, commit: 0x1_0000_0000, index: 0 },
        ];
        for pair in positions.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].text() < pair[1].text());
        }
        for position in positions {
            let text = position.to_string();
            assert_eq!(text.as_bytes(), position.text());
            assert_eq!(text.parse(), Ok(position));
        }
    }

    #[test]
    fn hostile_text_is_refused() {
        for text in [
            "",
            "-",
            "0001-00000000016b3748-0000000g",
            "0001-00000000016b3748-000000001",
            "0001x00000000016b3748-00000001",
            "+001-00000000016b3748-00000001",
            "0001-00000000016b3748-0000000\u{e9}",
        ] {
            assert_eq!(text.parse::<Position>(), Err(ParsePositionError), "{text}");
        }
    }
}
