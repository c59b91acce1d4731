//! Durations (`500ms`, `30s`, `5m`, `24h`, `7d`) and sizes (`64MiB`, `1GB`) as people write them.

use std::time::Duration;

/// Reads a duration: a whole number and its unit, or `0`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == 0 => 0,
        _ => return None,
    };
    // A thousand years are enough, and far from where arithmetic on instants overflows.
    let total = number.checked_mul(millis)?;
    (total <= 1000 * 366 * 86_400_000).then(|| Duration::from_millis(total))
}

/// Reads a size in bytes: a whole number, with or without a unit.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor).filter(|bytes| i64::try_from(*bytes).is_ok())
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(duration("24h"), duration("1d"));
        assert_eq!(duration("7 d"), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        for text in
            ["", "30", "s", "-1s", "1.5s", "1 year", "5M", "18446744073709551615d", "999999999d", "１s"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_may_have_units() {
        assert_eq!(size("64MiB"), Some(64 << 20));
        assert_eq!(size("1GB"), Some(1_000_000_000));
        assert_eq!(size("4096"), Some(4096));
        for text in ["", "MiB", "1mb", "1.5GB", "99999999TiB", "1 G"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
