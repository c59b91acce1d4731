//! RFC 3339 in UTC with microseconds, written without an allocation: it is on the path of every transaction.

/// ASCII text of a fixed length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<const N: usize>(pub [u8; N]);

impl<const N: usize> Text<N> {
    /// As a string.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// `micros` (since 1970-01-01 UTC) as `2026-11-22T14:06:07.123456Z`. Years outside 0000–9999, which RFC 3339 cannot say,
/// are held to its ends.
pub fn rfc3339(micros: i64) -> Text<27> {
    const FIRST: i64 = -62_167_219_200_000_000; // 0000-01-01T00:00:00Z
    const LAST: i64 = 253_402_300_799_999_999; // 9999-12-31T23:59:59.999999Z
    let micros = micros.clamp(FIRST, LAST);
    let (days, in_day) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let (year, month, day) = civil(days);
    let (seconds, fraction) = (in_day / 1_000_000, in_day % 1_000_000);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    digits(year, &mut text[0..4]);
    digits(month, &mut text[5..7]);
    digits(day, &mut text[8..10]);
    digits(seconds / 3600, &mut text[11..13]);
    digits(seconds / 60 % 60, &mut text[14..16]);
    digits(seconds % 60, &mut text[17..19]);
    digits(fraction, &mut text[20..26]);
    Text(text)
}

fn digits(mut value: i64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// Days since 1970-01-01 to year, month, day in the proleptic Gregorian calendar, counted in 400-year eras that begin on
/// 1 March, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(micros: i64) -> String {
        rfc3339(micros).as_str().to_owned()
    }

    #[test]
    fn agrees_with_jiff_over_all_years() {
        let mut micros = -62_167_219_200_000_000i64;
        while micros < 253_402_300_799_999_999 {
            let expected = jiff::Timestamp::from_microsecond(micros).unwrap();
            assert_eq!(text(micros), format!("{expected:.6}"));
            micros += 86_400_000_000 * 13 + 7_654_321_987;
        }
    }

    #[test]
    fn holds_to_the_ends_of_rfc3339() {
        assert_eq!(text(i64::MIN), "0000-01-01T00:00:00.000000Z");
        assert_eq!(text(i64::MAX), "9999-12-31T23:59:59.999999Z");
    }
}
