//! Samples of durations, and how they are told.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long one thing took, again and again.
#[derive(Debug, Default)]
pub(crate) struct Sample(Vec<Duration>);

impl Sample {
    /// Times `work` once and hands its outcome on.
    pub(crate) async fn time<T>(&mut self, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let outcome = work.await;
        self.0.push(began.elapsed());
        outcome
    }

    /// Times `work` that is too quick for the clock: `times` runs of it count as one, by their mean.
    pub(crate) fn time_many<T>(&mut self, times: u32, work: impl Fn() -> T) {
        let began = Instant::now();
        for _ in 0..times {
            black_box(work());
        }
        self.0.push(began.elapsed() / times);
    }

    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn median(&self) -> Duration {
        self.quantile(50)
    }

    /// How many times as long as `peer` it took, by the medians.
    pub(crate) fn ratio(&self, peer: Duration) -> f64 {
        self.median().as_secs_f64() / peer.as_secs_f64()
    }

    fn quantile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p99, count) = (told(self.median()), told(self.quantile(99)), self.0.len());
        write!(f, "median {median:>9}  p99 {p99:>9}  n {count}")
    }
}

/// A duration with three digits.
fn told(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    let (value, unit) = if us < 1e3 { (us, "µs") } else { (us / 1e3, "ms") };
    let places = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.places$} {unit}")
}
