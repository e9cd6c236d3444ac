//! Periodic work that no error ends, and that a hint brings forward.

use std::error::Error;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use rand::RngExt;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::{Stop, chain};

/// Failing work rests at most this long between tries.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Says that there may be work, so that nobody waits for the next tick. Several hints before the work begins are one.
#[derive(Clone, Debug, Default)]
pub struct Hint(Arc<Notify>);

impl Hint {
    /// Lets the work run soon.
    pub fn give(&self) {
        self.0.notify_one();
    }
}

/// Work that is done in turns. A closure that returns a future is such work; so is a struct that keeps something from
/// turn to turn.
#[async_trait]
pub trait Turn: Send {
    /// What a turn can fail with.
    type Error: Error + 'static;

    /// Does the work once.
    ///
    /// # Errors
    /// Whatever keeps the work from being done; the next turn tries again.
    async fn turn(&mut self) -> Result<(), Self::Error>;
}

#[async_trait]
impl<F, R, E> Turn for F
where
    F: FnMut() -> R + Send,
    R: Future<Output = Result<(), E>> + Send,
    E: Error + 'static,
{
    type Error = E;

    async fn turn(&mut self) -> Result<(), E> {
        self().await
    }
}

/// Work to be done again and again: at once, then every period (10 % more or less, so that hosts spread), and when
/// hinted at.
#[derive(Clone, Debug)]
pub struct Ticks {
    name: &'static str,
    period: Duration,
    hint: Hint,
    spread: bool,
}

impl Ticks {
    /// Names the work, for logs and metrics, and its period.
    pub fn new(name: &'static str, period: Duration) -> Self {
        Self { name, period, hint: Hint::default(), spread: false }
    }

    /// Lets `hint` bring the work forward.
    #[must_use]
    pub fn hinted_by(mut self, hint: &Hint) -> Self {
        self.hint = hint.clone();
        self
    }

    /// Lets the first turn come somewhere within the first period, for work that many do at once.
    #[must_use]
    pub fn spread(mut self) -> Self {
        self.spread = true;
        self
    }

    /// Does `work` until `stop`; work that has begun is finished. An error or a panic is logged once, the end of a
    /// row of them too, and the next try comes later and later (up to 30 s, or the period).
    pub async fn run(self, stop: Stop, mut work: impl Turn) {
        let mut failures: u32 = 0;
        if self.spread {
            let first = self.period.mul_f64(rand::rng().random_range(0.0..1.0));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(first) => {}
                () = self.hint.0.notified() => {}
            }
        }
        while !stop.is_cancelled() {
            let began = Instant::now();
            let failure = match AssertUnwindSafe(work.turn()).catch_unwind().await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(chain(&error).to_string()),
                Err(panic) => Some(format!("panicked: {}", message(&*panic))),
            };
            metrics::histogram!("nova_tick_seconds", "tick" => self.name).record(began.elapsed().as_secs_f64());
            failures = self.note(failure, failures);
            let hinted = tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.rest(failures)) => false,
                // While it fails, hints do not drive it faster.
                () = self.hint.0.notified(), if failures == 0 => true,
            };
            debug!(tick = self.name, hinted, "Next turn.");
        }
    }

    /// Logs what changed, and counts.
    fn note(&self, failure: Option<String>, before: u32) -> u32 {
        let name = self.name;
        match (failure, before) {
            (None, 0) => 0,
            (None, failures) => {
                info!(tick = name, failures, "Periodic work {name} succeeds again.");
                0
            }
            (Some(error), before) => {
                metrics::counter!("nova_tick_failures_total", "tick" => name).increment(1);
                if before == 0 {
                    warn!(tick = name, error, "Periodic work {name} failed; trying again.");
                } else {
                    debug!(tick = name, error, failures = before + 1, "Periodic work {name} failed again.");
                }
                before + 1
            }
        }
    }

    fn rest(&self, failures: u32) -> Duration {
        let rest = match failures {
            0 => self.period,
            failures => (self.period * 2u32.saturating_pow(failures.min(10) - 1)).min(LONGEST_REST.max(self.period)),
        };
        rest.mul_f64(rand::rng().random_range(0.9..1.1))
    }
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}

impl fmt::Display for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} every {} s", self.name, self.period.as_secs_f32())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// Runs work until its `turns`th turn, which stops it, and returns when each turn came, in ms.
    async fn turns(turns: usize, ticks: Ticks, mut fails: impl FnMut(usize) -> bool + Send) -> Vec<u128> {
        let (stop, began, mut came) = (Stop::new(), tokio::time::Instant::now(), Vec::new());
        let work = || {
            came.push(began.elapsed().as_millis());
            if came.len() == turns {
                stop.cancel();
            }
            // A panic is one of the future's, as in real work.
            let turn = came.len();
            let failed = std::panic::catch_unwind(AssertUnwindSafe(|| fails(turn)));
            async move {
                match failed {
                    Ok(true) => Err(io::Error::other("no")),
                    Ok(false) => Ok(()),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        };
        ticks.run(stop.clone(), work).await;
        came
    }

    #[tokio::test(start_paused = true)]
    async fn work_comes_at_once_and_then_about_every_period() {
        let came = turns(4, Ticks::new("t", Duration::from_secs(1)), |_| false).await;
        assert_eq!(came[0], 0);
        assert!(came.windows(2).all(|pair| (900..=1101).contains(&(pair[1] - pair[0]))), "{came:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_many_do_begins_within_the_first_period_or_when_hinted_at() {
        let ticks = Ticks::new("t", Duration::from_secs(100)).spread();
        let first = turns(1, ticks.clone(), |_| false).await[0];
        let second = turns(1, ticks.clone(), |_| false).await[0];
        assert!(first < 100_000 && second < 100_000 && first != second, "{first} {second}");
        ticks.hint.give();
        assert_eq!(turns(1, ticks, |_| false).await, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn neither_errors_nor_panics_end_the_work_but_slow_it_down() {
        let came = turns(6, Ticks::new("t", Duration::from_secs(1)), |turn| match turn {
            1 | 2 => true,
            3 => panic!("on purpose"),
            _ => false,
        })
        .await;
        let gaps: Vec<u128> = came.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (gap, about) in gaps.iter().zip([1000, 2000, 4000, 1000, 1000]) {
            assert!((about * 9 / 10 - 1..=about * 11 / 10 + 1).contains(gap), "{gaps:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_brings_the_work_forward() {
        let hint = Hint::default();
        let ticks = Ticks::new("t", Duration::from_secs(1000)).hinted_by(&hint);
        let came = turns(3, ticks, |_| {
            hint.give();
            hint.give();
            false
        })
        .await;
        assert_eq!(came, [0, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_does_not_wait_for_the_next_turn() {
        let (stop, began) = (Stop::new(), tokio::time::Instant::now());
        let soon = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            soon.cancel();
        });
        Ticks::new("t", Duration::from_secs(1000)).run(stop, || async { Ok::<(), io::Error>(()) }).await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn work_can_run_in_a_task_of_its_own_and_keep_what_it_captures() {
        let (stop, seen) = (Stop::new(), Arc::new(std::sync::Mutex::new(Vec::new())));
        let (until, note) = (stop.clone(), Arc::clone(&seen));
        struct Count {
            turn: u32,
            until: Stop,
            note: Arc<std::sync::Mutex<Vec<u32>>>,
        }
        #[async_trait]
        impl Turn for Count {
            type Error = io::Error;
            async fn turn(&mut self) -> io::Result<()> {
                tokio::time::sleep(Duration::from_millis(1)).await;
                self.turn += 1;
                self.note.lock().unwrap().push(self.turn);
                if self.turn == 3 {
                    self.until.cancel();
                }
                Ok(())
            }
        }
        let task = tokio::spawn(Ticks::new("t", Duration::from_secs(1)).run(stop, Count { turn: 0, until, note }));
        task.await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [1, 2, 3]);
    }
}
