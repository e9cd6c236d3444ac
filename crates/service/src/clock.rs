//! The wall clock of this machine.

use nova_types::Clock;
use time::OffsetDateTime;

/// Tells the time that the machine's clock shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}
