//! Ways for the bus to misbehave, the same way each time for the same seed.

use std::ops::Range;
use std::time::Duration;

/// What may happen to a message on its way. Replies are left alone: a lost reply is what a deadline is for, and
/// dropping the call brings it about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Begins the sequence of dice.
    pub seed: u64,
    /// How likely a message is lost although its sender was told that it went, 0 to 1.
    pub drop: f64,
    /// How likely a message arrives twice, 0 to 1.
    pub double: f64,
    /// How likely a message overtakes others in its queue, 0 to 1.
    pub reorder: f64,
    /// How long each message is under way; an empty range means no time at all.
    pub delay: Range<Duration>,
    /// Whether the broker seems to be away: senders are told so, and nothing moves.
    pub away: bool,
}

/// A small generator (splitmix64), because a seed must mean the same in every release.
#[derive(Debug, Default)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True with a likelihood of 0 to 1. Rolls nothing where the answer is certain.
    pub(crate) fn chance(&mut self, likelihood: f64) -> bool {
        likelihood > 0.0 && (u32::try_from(self.roll() >> 32).map_or(0.0, f64::from) / 4_294_967_296.0) < likelihood
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.roll() % end).unwrap_or(0)
    }

    /// A time within `range`, or none where it is empty.
    pub(crate) fn within(&mut self, range: &Range<Duration>) -> Option<Duration> {
        let span = range.end.checked_sub(range.start).filter(|span| !span.is_zero())?;
        Some(range.start + span.mul_f64(f64::from(u32::try_from(self.roll() >> 32).unwrap_or(0)) / 4_294_967_296.0))
    }
}
