//! Another bus, made worse: each message comes twice, and none in its turn. For tests of daemons.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nova_wire::{Address, MessageId};
use tokio::time::Instant;

use crate::bus::{Bus, Consumer, Subscription};
use crate::delivery::{DeadLetter, Delivery, Settle};
use crate::error::BusError;
use crate::in_process::Dice;

/// How late a message may be: far more than lies between two messages under load.
const LATE: std::ops::Range<Duration> = Duration::ZERO..Duration::from_millis(300);
/// How many more messages are taken from the bus than a consumer asked for, so that there are some to mix.
const MORE: u16 = 64;

/// A bus whose every message comes twice, each time after a delay of its own. The same seed makes the same delays.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Bus>,
    /// Begins the dice of the next consumer.
    seed: AtomicU64,
}

impl Faulty {
    /// Makes `inner` worse.
    pub fn new(inner: Arc<dyn Bus>, seed: u64) -> Self {
        Self { inner, seed: AtomicU64::new(seed) }
    }
}

#[async_trait]
impl Bus for Faulty {
    async fn publish(&self, to: &Address, body: Bytes) -> Result<(), BusError> {
        self.inner.publish(to, body).await
    }

    async fn call(&self, to: &Address, id: &MessageId, body: Bytes, deadline: Duration) -> Result<Bytes, BusError> {
        self.inner.call(to, id, body, deadline).await
    }

    async fn reply(&self, id: &MessageId, body: Bytes) -> Result<(), BusError> {
        self.inner.reply(id, body).await
    }

    async fn consume(&self, wanted: &Subscription) -> Result<Box<dyn Consumer>, BusError> {
        let wanted = Subscription { prefetch: wanted.prefetch.saturating_add(MORE), ..wanted.clone() };
        let inner = self.inner.consume(&wanted).await?;
        let dice = Dice::new(self.seed.fetch_add(1, Ordering::Relaxed));
        Ok(Box::new(Mixer { inner, dice, under_way: Vec::new() }))
    }

    async fn dead_letters(&self) -> Result<Vec<DeadLetter>, BusError> {
        self.inner.dead_letters().await
    }

    async fn reachable(&self) -> Result<(), BusError> {
        self.inner.reachable().await
    }
}

/// Holds messages back, and hands out what is due.
#[derive(Debug)]
struct Mixer {
    inner: Box<dyn Consumer>,
    dice: Dice,
    under_way: Vec<(Instant, Delivery)>,
}

impl Mixer {
    /// Keeps a message, and a copy of it that nobody needs to settle.
    fn keep(&mut self, delivery: Delivery) {
        let copy = Delivery::new(delivery.body().clone(), delivery.attempt(), Box::new(Doubled));
        for delivery in [delivery, copy] {
            let late = self.dice.within(&LATE).unwrap_or_default();
            self.under_way.push((Instant::now() + late, delivery));
        }
    }

    /// Which message is due first, and when.
    fn first(&self) -> Option<(usize, Instant)> {
        self.under_way.iter().map(|(due, _)| *due).enumerate().min_by_key(|(_, due)| *due)
    }
}

#[async_trait]
impl Consumer for Mixer {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            let first = self.first();
            let due = async {
                match first {
                    Some((index, due)) => {
                        tokio::time::sleep_until(due).await;
                        index
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                index = due => return Ok(self.under_way.swap_remove(index).1),
                delivery = self.inner.next() => self.keep(delivery?),
            }
        }
    }
}

/// Settles a copy: the message itself is settled by itself.
struct Doubled;

#[async_trait]
impl Settle for Doubled {
    async fn ack(self: Box<Self>) -> Result<(), BusError> {
        Ok(())
    }

    async fn reject(self: Box<Self>, _reason: &str) -> Result<(), BusError> {
        Ok(())
    }

    fn give_back(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use nova_wire::Topic;

    use super::*;
    use crate::InProcess;

    #[tokio::test(start_paused = true)]
    async fn each_message_comes_twice_and_few_in_their_turn() {
        let bus = Faulty::new(Arc::new(InProcess::new()), 7);
        let wanted = Subscription { topic: Topic::Compute, host: "a".to_owned(), prefetch: 4 };
        let mut there = bus.consume(&wanted).await.unwrap();
        let to = Address::Host(Topic::Compute, "a".to_owned());
        for n in 0..20_u8 {
            bus.publish(&to, Bytes::from(vec![n])).await.unwrap();
        }
        let mut came = Vec::new();
        for _ in 0..40 {
            let delivery = there.next().await.unwrap();
            came.push(delivery.body()[0]);
            delivery.ack().await.unwrap();
        }
        assert!(!came.is_sorted(), "in order: {came:?}");
        came.sort_unstable();
        assert_eq!(came, (0..20).flat_map(|n| [n, n]).collect::<Vec<u8>>());
        let more = tokio::time::timeout(Duration::from_secs(5), there.next()).await;
        assert!(more.is_err(), "a third time: {more:?}");
        assert_eq!(bus.dead_letters().await.unwrap(), []);
    }
}
