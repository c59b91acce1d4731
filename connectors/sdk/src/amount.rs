//! Amounts as people read them.

use std::{fmt, time::Duration};

/// A number of bytes: `0 B`, `1.5 MiB`, `50.0 GiB`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let (mut value, mut unit) = (self.0 as f64 / 1024.0, 0);
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

/// A duration in its two largest units: `45 s`, `12 min`, `3 h 20 min`, `9 d 4 h`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, _) => format!("{m} min"),
        (0, h, 0, _) => format!("{h} h"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, ..) if d > 365 => "more than a year".to_owned(),
        (d, 0, ..) => format!("{d} d"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        let shown = [0, 1023, 1024, 5 << 30, u64::MAX].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "5.0 GiB", "16384.0 PiB"]);
        let shown =
            [0, 59, 60, 3600, 12_000, 86_400, 800_000, u64::MAX].map(|s| duration(Duration::from_secs(s)));
        assert_eq!(
            shown,
            ["0 s", "59 s", "1 min", "1 h", "3 h 20 min", "1 d", "9 d 6 h", "more than a year"]
        );
    }
}
