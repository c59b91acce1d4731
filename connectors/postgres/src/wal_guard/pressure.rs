//! How much of what may be kept is kept, how fast that grows, and what that means. Pure.

use headgate_sdk::amount::{Bytes, duration};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// The rate is an average over about so long: a checkpoint's burst shall not look like the end.
const MEMORY: Duration = Duration::from_secs(60);
/// How far below a level's share it must fall before the level counts as left, in percent.
const SLACK: u64 = 5;
/// Below this share (in percent) of what may be kept, time alone alarms nobody: a log that is confirmed late on purpose
/// is always some seconds behind.
const LITTLE: u64 = 10;

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// As it should be.
    #[default]
    Calm = 0,
    /// Half of what may be kept is kept, or the rest lasts less than an hour.
    Raised = 1,
    /// Three quarters, or less than 15 minutes.
    High = 2,
    /// Nine tenths, or less than 5 minutes.
    Critical = 3,
}

impl Level {
    /// From the worst to the mildest, with the share (in percent) and the time that begin it.
    const STEPS: [(Self, u64, Duration); 3] = [
        (Self::Critical, 90, Duration::from_secs(5 * 60)),
        (Self::High, 75, Duration::from_secs(15 * 60)),
        (Self::Raised, 50, Duration::from_secs(60 * 60)),
    ];
}

/// One look at the slot and the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// When.
    pub(crate) at: Instant,
    /// The end of the server's log.
    pub(crate) server_log: u64,
    /// Bytes of log that are kept for the slot.
    pub(crate) retained: u64,
    /// Bytes until the server invalidates it (`safe_wal_size`); `None` without a limit.
    pub(crate) safe: Option<u64>,
}

/// What a look means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forecast {
    /// Bytes of log that the server writes in a second.
    pub(crate) rate: u64,
    /// Bytes that are kept.
    pub(crate) retained: u64,
    /// Bytes that may be kept, the lower of the server's limit and our own.
    pub(crate) limit: Option<u64>,
    /// How long the rest lasts if nothing is released meanwhile.
    pub(crate) lasts: Option<Duration>,
    /// How bad that is.
    pub(crate) level: Level,
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the database keeps {} of log for this source", Bytes(self.retained))?;
        if let Some(limit) = self.limit {
            let share = self.retained.saturating_mul(100) / limit.max(1);
            write!(f, ", {share} % of the {} that it may keep", Bytes(limit))?;
        }
        if let Some(lasts) = self.lasts {
            write!(f, "; at {}/s the rest lasts {}", Bytes(self.rate), duration(lasts))?;
        }
        Ok(())
    }
}

/// What was seen so far.
#[derive(Debug)]
pub(crate) struct Pressure {
    own_limit: Option<u64>,
    last: Option<(Instant, u64)>,
    rate: Option<f64>,
    level: Level,
}

impl Pressure {
    /// With a limit of our own beside the server's.
    pub(crate) fn new(own_limit: Option<u64>) -> Self {
        Self { own_limit, last: None, rate: None, level: Level::Calm }
    }

    /// Takes a look in. Looks come in the order of their time.
    pub(crate) fn observe(&mut self, look: &Look) -> Forecast {
        if let Some((at, log)) = self.last {
            let seconds = look.at.saturating_duration_since(at).as_secs_f64();
            if seconds > 0.0 {
                let now = look.server_log.saturating_sub(log) as f64 / seconds;
                let weight = 1.0 - (-seconds / MEMORY.as_secs_f64()).exp();
                self.rate = Some(self.rate.map_or(now, |rate| rate + (now - rate) * weight));
            }
        }
        self.last = Some((look.at, look.server_log));
        let rate = self.rate.unwrap_or(0.0) as u64;
        let servers = look.safe.map(|safe| look.retained.saturating_add(safe));
        let limit = match (servers, self.own_limit) {
            (Some(servers), Some(own)) => Some(servers.min(own)),
            (servers, own) => servers.or(own),
        };
        let left = limit.map(|limit| limit.saturating_sub(look.retained));
        let lasts = left.filter(|_| rate > 0).map(|left| Duration::from_secs(left / rate));
        self.level = limit.map_or(Level::Calm, |limit| self.judge(look.retained, limit, lasts));
        Forecast { rate, retained: look.retained, limit, lasts, level: self.level }
    }

    /// Whether more is kept than our own limit allows.
    pub(crate) fn is_over_limit(&self, forecast: &Forecast) -> bool {
        self.own_limit.is_some_and(|limit| forecast.retained >= limit)
    }

    fn judge(&self, retained: u64, limit: u64, lasts: Option<Duration>) -> Level {
        let share = retained.saturating_mul(100).checked_div(limit).unwrap_or(100);
        for (level, from, time) in Level::STEPS {
            // A level that was reached is left a little later than it was entered, so that it is told of once.
            let held = self.level >= level;
            let from = if held { from - SLACK } else { from };
            let time = if held { time + time / 2 } else { time };
            if share >= from || (share >= LITTLE && lasts.is_some_and(|lasts| lasts < time)) {
                return level;
            }
        }
        Level::Calm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    struct Server {
        begun: Instant,
        pressure: Pressure,
    }

    impl Server {
        fn new(own: Option<u64>) -> Self {
            Self { begun: Instant::now(), pressure: Pressure::new(own) }
        }

        fn look(&mut self, seconds: u64, log: u64, retained: u64, safe: Option<u64>) -> Forecast {
            let at = self.begun + Duration::from_secs(seconds);
            self.pressure.observe(&Look { at, server_log: log, retained, safe })
        }
    }

    #[test]
    fn a_slot_that_nobody_reads_is_warned_of_step_by_step_and_told_how_long_it_lasts() {
        let mut server = Server::new(None);
        let mut levels = Vec::new();
        // 1 MiB/s into a limit of 10 GiB.
        for minute in 0..170 {
            let kept = minute * 60 * MIB;
            let forecast = server.look(minute * 60, kept, kept, Some(10 * GIB - kept));
            if levels.last() != Some(&forecast.level) {
                levels.push(forecast.level);
            }
            if minute == 85 {
                assert_eq!((forecast.rate, forecast.limit), (MIB, Some(10 * GIB)));
                assert_eq!(forecast.lasts, Some(Duration::from_secs(10 * 1024 - 85 * 60)));
            }
        }
        assert_eq!(levels, [Level::Calm, Level::Raised, Level::High, Level::Critical]);
    }

    #[test]
    fn a_source_that_keeps_up_alarms_nobody_however_much_is_written() {
        let mut server = Server::new(None);
        for second in 0..600 {
            // 100 MiB/s, of which 20 s are always on the way: 4 % of 50 GiB, which lasts 8 minutes.
            let forecast = server.look(second, second * 100 * MIB, 2_000 * MIB, Some(50 * GIB));
            assert_eq!(forecast.level, Level::Calm);
        }
    }

    #[test]
    fn a_level_is_entered_once_although_the_share_swings_about_its_border() {
        let mut server = Server::new(None);
        let mut entered = 0;
        let mut before = Level::Calm;
        for minute in 0..60 {
            let kept = if minute % 2 == 0 { 51 } else { 49 } * GIB;
            let level = server.look(minute * 60, 0, kept, Some(100 * GIB - kept)).level;
            entered += u32::from(level > before);
            before = level;
        }
        assert_eq!(entered, 1);
        assert_eq!(server.look(4_000, 0, 44 * GIB, Some(56 * GIB)).level, Level::Calm);
    }

    #[test]
    fn our_own_limit_counts_where_the_server_has_none_or_a_higher_one() {
        let mut server = Server::new(Some(GIB));
        let forecast = server.look(0, 0, 512 * MIB, None);
        assert_eq!((forecast.limit, forecast.level), (Some(GIB), Level::Raised));
        assert!(!server.pressure.is_over_limit(&forecast));
        let forecast = server.look(1, 0, GIB, Some(8 * GIB));
        assert_eq!((forecast.limit, forecast.level), (Some(GIB), Level::Critical));
        assert!(server.pressure.is_over_limit(&forecast));
        let mut unlimited = Server::new(None);
        let forecast = unlimited.look(0, 0, 900 * GIB, None);
        assert_eq!((forecast.limit, forecast.level, forecast.lasts), (None, Level::Calm, None));
        assert!(!unlimited.pressure.is_over_limit(&forecast));
    }

    #[test]
    fn a_slot_at_its_end_is_critical_and_nothing_divides_by_zero() {
        let mut server = Server::new(Some(0));
        assert_eq!(server.look(0, 0, 0, Some(0)).level, Level::Critical);
        // A log that goes back (another server behind the name) has a rate of zero, and looks at one moment have none.
        server.look(1, 100, 10, None);
        server.look(1, 200, 10, None);
        assert!(server.look(2, 0, 10, None).rate <= 100);
    }
}
