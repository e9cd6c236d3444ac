//! The bus of one process: the same bytes and the same promises as over a broker, in memory.

mod broker;
mod faults;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nova_wire::{Address, MessageId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::bus::{Bus, Consumer, Subscription};
use crate::delivery::{DeadLetter, Delivery, Settle};
use crate::error::BusError;
use broker::{Broker, Message};

#[cfg(any(test, feature = "failpoints"))]
pub(crate) use faults::Dice;
pub use faults::Faults;

/// A bus within this process. Clones are the same bus.
///
/// What it holds ends with the process, like the daemons it serves: the rows are the truth, and ticks find them.
#[derive(Clone, Debug, Default)]
pub struct InProcess {
    broker: Arc<Broker>,
}

impl InProcess {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the bus misbehave from now on; [`Faults::default`] ends it. For tests.
    pub fn misbehave(&self, faults: Faults) {
        self.broker.misbehave(faults);
    }

    fn send(&self, to: &Address, body: Bytes, expires: Option<Instant>) -> Result<(), BusError> {
        for delay in self.broker.publish(to, Message { body, returned: 0, expires })? {
            let (broker, late) = (Arc::clone(&self.broker), delay);
            tokio::spawn(async move {
                tokio::time::sleep(late.wait).await;
                broker.enqueue_late(late);
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Bus for InProcess {
    async fn publish(&self, to: &Address, body: Bytes) -> Result<(), BusError> {
        self.send(to, body, None)
    }

    async fn call(&self, to: &Address, id: &MessageId, body: Bytes, deadline: Duration) -> Result<Bytes, BusError> {
        let waiting = broker::Waiting::new(Arc::clone(&self.broker), id);
        self.send(to, body, Some(Instant::now() + deadline))?;
        match tokio::time::timeout(deadline, waiting.answer()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(BusError::Unavailable(None)),
            Err(_) => Err(BusError::TimedOut { to: to.to_string(), deadline }),
        }
    }

    async fn reply(&self, id: &MessageId, body: Bytes) -> Result<(), BusError> {
        self.broker.reply(id, body)
    }

    async fn consume(&self, wanted: &Subscription) -> Result<Box<dyn Consumer>, BusError> {
        let wake = Arc::new(Notify::new());
        let (number, queues) = self.broker.listen(wanted, &wake)?;
        let slots = Arc::new(Semaphore::new(wanted.prefetch.max(1).into()));
        Ok(Box::new(Listener { broker: Arc::clone(&self.broker), number, queues, turn: 0, slots, wake }))
    }

    async fn reachable(&self) -> Result<(), BusError> {
        Ok(())
    }

    async fn dead_letters(&self) -> Result<Vec<DeadLetter>, BusError> {
        Ok(self.broker.dead_letters())
    }
}

/// The receiving end: three queues, looked at in turn.
#[derive(Debug)]
struct Listener {
    broker: Arc<Broker>,
    number: u64,
    queues: [String; 3],
    turn: usize,
    slots: Arc<Semaphore>,
    wake: Arc<Notify>,
}

#[async_trait]
impl Consumer for Listener {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| BusError::Unavailable(None))?;
        loop {
            // A message that arrives between the look and the wait leaves a permit, so that the wait ends at once.
            for _ in 0..self.queues.len() {
                self.turn = (self.turn + 1) % self.queues.len();
                let queue = &self.queues[self.turn];
                if let Some(message) = self.broker.take(queue) {
                    let (body, attempt) = (message.body.clone(), message.returned + 1);
                    let held = Held { broker: Arc::clone(&self.broker), queue: queue.clone(), message, _slot: slot };
                    return Ok(Delivery::new(body, attempt, Box::new(held)));
                }
            }
            self.wake.notified().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.broker.unlisten(self.number, &self.queues);
    }
}

/// A message handed out and not yet settled. The slot counts against the listener's prefetch.
struct Held {
    broker: Arc<Broker>,
    queue: String,
    message: Message,
    _slot: OwnedSemaphorePermit,
}

#[async_trait]
impl Settle for Held {
    async fn ack(self: Box<Self>) -> Result<(), BusError> {
        Ok(())
    }

    async fn reject(self: Box<Self>, reason: &str) -> Result<(), BusError> {
        self.broker.set_aside(self.queue, self.message.body, reason);
        Ok(())
    }

    fn give_back(self: Box<Self>) {
        self.broker.give_back(self.queue, self.message);
    }
}

#[cfg(test)]
mod tests;
