//! The wall clock, as something that is handed in.
//!
//! Signatures and display read it; time-outs use the monotonic clock and leases the database's.

use std::sync::atomic::{AtomicI64, Ordering};

use time::OffsetDateTime;

/// Tells the wall-clock time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Returns the present moment in UTC.
    fn now(&self) -> OffsetDateTime;
}

/// A clock that stands still until it is moved; for tests.
#[derive(Debug)]
pub struct FixedClock(AtomicI64);

impl FixedClock {
    /// Stops the clock at `unix_seconds`.
    #[must_use]
    pub const fn at(unix_seconds: i64) -> Self {
        Self(AtomicI64::new(unix_seconds))
    }

    /// Moves the clock by `seconds`, backwards if negative.
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.0.load(Ordering::SeqCst)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_moves_only_when_told() {
        let clock = FixedClock::at(1_000);
        assert_eq!(clock.now(), clock.now());
        clock.advance(-10);
        assert_eq!(clock.now().unix_timestamp(), 990);
    }
}
