//! How much to read at a time, and how often. Pure: whoever asks brings the clock.

use std::time::Duration;
use tokio::time::Instant;

/// The first chunk of a table, before anything is known of its rows.
const FIRST: u32 = 32;
/// The largest chunk. Reading more at a time would not be quicker.
const MOST: u32 = 16_384;
/// What a chunk should weigh at most.
pub const CHUNK_BYTES: usize = 2 << 20;

/// The pace of one source's snapshots.
#[derive(Debug)]
pub(super) struct Pace {
    /// How long reading a chunk should take.
    budget: Duration,
    /// Rows in a second.
    rate: Option<u32>,
    /// When the next chunk may be read.
    due: Option<Instant>,
}

/// The size of one table's chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(u32);

impl Default for Size {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pace {
    pub(super) fn new(budget: Duration, rate: Option<u32>) -> Self {
        Self { budget, rate, due: None }
    }

    /// When the next chunk may be read, if not at once.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Rows of the next chunk: never more than the rate allows in a quarter of a second.
    pub(super) fn rows(&self, size: Size) -> u32 {
        self.rate.map_or(size.0, |rate| size.0.min(rate / 4).max(1))
    }

    /// Takes note of a chunk that was read.
    pub(super) fn read(&mut self, now: Instant, rows: usize) {
        self.due = self.rate.map(|rate| {
            let pause = Duration::from_secs_f64(rows as f64 / f64::from(rate.max(1)));
            self.due.map_or(now, |due| due.max(now)) + pause
        });
    }

    /// The size of the next chunk of a table, after one of `rows` rows and `bytes` bytes that took so long.
    pub(super) fn resize(&self, size: Size, rows: usize, bytes: usize, took: Duration) -> Size {
        let rows = u32::try_from(rows).unwrap_or(MOST).max(1);
        let by_time = f64::from(rows) * self.budget.as_secs_f64() / took.as_secs_f64().max(0.000_1);
        let by_bytes = (CHUNK_BYTES as f64 / 2.0) * f64::from(rows) / (bytes.max(1) as f64);
        // One quick chunk proves little, one heavy chunk enough.
        let most = size.0.saturating_mul(4).min(MOST);
        Size((by_time.min(by_bytes) as u32).clamp(1, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_step_by_step_and_shrinks_at_once() {
        let pace = Pace::new(Duration::from_millis(100), None);
        let quick =
            |size: Size| pace.resize(size, size.0 as usize, size.0 as usize * 100, Duration::from_millis(1));
        let mut size = Size::default();
        for expected in [128, 512, 2048] {
            size = quick(size);
            assert_eq!(size.0, expected);
        }
        assert!(quick(quick(quick(size))).0 <= MOST);
        let slow = pace.resize(size, 2048, 2048 * 100, Duration::from_millis(400));
        assert_eq!(slow.0, 512);
        let heavy = pace.resize(size, 4, 4 << 20, Duration::from_millis(1));
        assert_eq!(heavy.0, 1);
    }

    #[tokio::test]
    async fn keeps_to_its_rate() {
        let mut pace = Pace::new(Duration::from_millis(100), Some(1000));
        assert_eq!(pace.rows(Size(MOST)), 250);
        let start = Instant::now();
        for chunk in 1..=8 {
            pace.read(start, 250);
            assert_eq!(pace.due(), Some(start + chunk * Duration::from_millis(250)));
        }
        assert_eq!(Pace::new(Duration::from_millis(1), Some(1)).rows(Size(MOST)), 1);
    }
}
