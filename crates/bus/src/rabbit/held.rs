//! A message that was received: how often it was handed out before, and what becomes of it.
//!
//! Classic queues count nothing, so returns are counted here: those of this process in its journal, by the message's id;
//! those that nobody told of, after a crash, in a header of a copy that takes the message's place (`docs/decisions`, 6).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::{AMQPValue, ShortString};
use lapin::{Acker, BasicProperties, Channel, message};
use nova_wire::MessageId;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{error, warn};

use super::Shared;
use super::send::{Fate, PATIENCE, Parcel, unavailable, with_header};
use crate::delivery::{Delivery, MAX_DELIVERIES, Settle};
use crate::error::BusError;
use crate::serve::chain;

/// The header with how often a message came back before this copy was made.
const RETURNED: &str = "x-nova-returned";
/// How long a message rests that could not be settled.
const REST: Duration = Duration::from_secs(1);

/// What is to be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Hand it out, for the so manyth time.
    HandOut(u32),
    /// Nothing: it will come again.
    Leave,
    /// Something that takes time.
    Settle(Aside),
}

/// What is done with a message that is not handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    /// It was handed out often enough.
    Dead,
    /// Somebody had it and vanished: a copy that says so takes its place.
    Count(u32),
}

/// A message received and not yet settled.
pub(crate) struct Held {
    shared: Arc<Shared>,
    queue: Arc<str>,
    body: Bytes,
    properties: BasicProperties,
    redelivered: bool,
    acker: Acker,
    attempt: u32,
    /// Keeps the channel open, over which alone the message can be acknowledged.
    _channel: Channel,
    /// Counts against the listener's prefetch.
    slot: Option<OwnedSemaphorePermit>,
}

impl Held {
    pub(crate) fn new(shared: Arc<Shared>, queue: Arc<str>, message: message::Delivery, channel: Channel) -> Self {
        let message::Delivery { data, properties, redelivered, acker, .. } = message;
        Self {
            shared,
            queue,
            body: data.into(),
            properties,
            redelivered,
            acker,
            attempt: 0,
            _channel: channel,
            slot: None,
        }
    }

    fn id(&self) -> Option<&str> {
        self.properties.message_id().as_ref().map(ShortString::as_str)
    }

    /// Decides what is to be done with it.
    pub(crate) fn judge(&self) -> Verdict {
        if !self.acker.usable() {
            // The connection is lost, and the message comes again through no fault of its own.
            if let Some(id) = self.id() {
                self.shared.journal.unharmed(id);
            }
            return Verdict::Leave;
        }
        let seen = self.id().and_then(|id| self.shared.journal.seen(id));
        verdict(returned(&self.properties), self.redelivered, seen, self.properties.reply_to().is_some())
    }

    /// Makes a delivery of it.
    pub(crate) fn hand_out(mut self, attempt: u32, slot: OwnedSemaphorePermit) -> Delivery {
        let journal = &self.shared.journal;
        if let Some(id) = self.id() {
            journal.note(id, attempt.saturating_sub(returned(&self.properties)));
        }
        if let (Some(queue), Some(call)) = (self.properties.reply_to(), self.properties.correlation_id()) {
            journal.expect_reply(call.as_str(), queue.as_str());
        }
        self.attempt = attempt;
        self.slot = Some(slot);
        Delivery::new(self.body.clone(), attempt, Box::new(self))
    }

    /// Sets it aside, or counts the return that nobody told of, while its listener goes on.
    pub(crate) fn settle(self, aside: Aside) {
        tokio::spawn(async move {
            let done = match aside {
                Aside::Dead => self.set_aside(&came_back()).await,
                Aside::Count(returned) => self.replace(returned).await,
            };
            if let Err(error) = done {
                self.rest(&error).await;
            }
        });
    }

    /// Puts a copy into the queue that bears the count, then takes the message out: a crash in between doubles it.
    async fn replace(&self, returned: u32) -> Result<(), BusError> {
        let counted = self.properties.clone().with_message_id(MessageId::random().to_string().into());
        let counted = with_header(counted, RETURNED, AMQPValue::LongLongInt(returned.into()));
        let parcel = Parcel::into_queue(&self.queue, counted);
        match self.shared.sender.hand_over(&parcel, &self.body).await? {
            Fate::Taken => self.acknowledge().await,
            Fate::Unroutable | Fate::Refused => Err(unavailable("the queue did not take the message back")),
        }
    }

    /// Puts it among the dead letters, then takes it out.
    async fn set_aside(&self, reason: &str) -> Result<(), BusError> {
        self.shared.dead.add(&self.shared.sender, &self.queue, reason, &self.body).await?;
        self.acknowledge().await
    }

    async fn acknowledge(&self) -> Result<(), BusError> {
        let said = tokio::time::timeout(PATIENCE, self.acker.ack(BasicAckOptions::default())).await;
        if said.map_err(unavailable)?.map_err(unavailable)? {
            if let Some(id) = self.id() {
                self.shared.journal.forget(id);
            }
            return Ok(());
        }
        Err(unavailable("the connection over which the message came was lost"))
    }

    /// Puts it back to where it was in its queue.
    async fn requeue(&self) {
        let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        // Where that fails, the connection is lost, and the broker does the same by itself.
        let _ = tokio::time::timeout(PATIENCE, self.acker.nack(requeue)).await;
    }

    /// Could not be settled: it comes again, but not at once.
    async fn rest(&self, error: &BusError) {
        warn!(queue = %self.queue, error = %chain(error), "A message could not be settled; it will come again.");
        tokio::time::sleep(REST).await;
        self.requeue().await;
    }
}

#[async_trait]
impl Settle for Held {
    async fn ack(self: Box<Self>) -> Result<(), BusError> {
        self.acknowledge().await
    }

    async fn reject(self: Box<Self>, reason: &str) -> Result<(), BusError> {
        let done = self.set_aside(reason).await;
        if done.is_err() {
            // The channel may live for long, and with it the broker's belief that the message is being worked on.
            tokio::spawn(async move { self.requeue().await });
        }
        done
    }

    fn give_back(self: Box<Self>) {
        // Without a runtime there is no connection any more, and the message is in its queue again.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if self.attempt < MAX_DELIVERIES {
                return self.requeue().await;
            }
            error!(queue = %self.queue, deliveries = self.attempt, "A message came back too often; set aside.");
            if let Err(error) = self.set_aside(&came_back()).await {
                self.rest(&error).await;
            }
        });
    }
}

fn came_back() -> String {
    format!("came back {MAX_DELIVERIES} times")
}

/// How often the message had come back when this copy of it was made.
fn returned(properties: &BasicProperties) -> u32 {
    let header = properties.headers().as_ref().and_then(|headers| headers.inner().get(RETURNED));
    header.and_then(AMQPValue::as_long_long_int).map_or(0, |count| u32::try_from(count).unwrap_or(MAX_DELIVERIES))
}

/// What to do with a message that came back `returned` times before this copy was made, and was handed out `seen` times
/// since, as far as this process knows.
fn verdict(returned: u32, redelivered: bool, seen: Option<u32>, is_call: bool) -> Verdict {
    let since = match seen {
        Some(times) => times,
        None if !redelivered => 0,
        // A copy would live longer than its caller waits; a call ends by itself.
        None if is_call => 1,
        None if returned + 1 < MAX_DELIVERIES => return Verdict::Settle(Aside::Count(returned + 1)),
        None => return Verdict::Settle(Aside::Dead),
    };
    let attempt = returned.saturating_add(since).saturating_add(1);
    if attempt > MAX_DELIVERIES { Verdict::Settle(Aside::Dead) } else { Verdict::HandOut(attempt) }
}

#[cfg(test)]
mod tests {
    use super::{Aside, Verdict, verdict};

    #[test]
    fn three_deliveries_and_no_more_whoever_fails() {
        let (fresh, back) = (false, true);
        for (returned, redelivered, seen, is_call, expected) in [
            (0, fresh, None, false, Verdict::HandOut(1)),
            // Given back by this process.
            (0, back, Some(1), false, Verdict::HandOut(2)),
            (0, back, Some(2), false, Verdict::HandOut(3)),
            (0, back, Some(3), false, Verdict::Settle(Aside::Dead)),
            // Received and never handed out when the connection was lost.
            (0, back, Some(0), false, Verdict::HandOut(1)),
            // Its consumer vanished.
            (0, back, None, false, Verdict::Settle(Aside::Count(1))),
            (1, fresh, None, false, Verdict::HandOut(2)),
            (1, back, Some(1), false, Verdict::HandOut(3)),
            (1, back, None, false, Verdict::Settle(Aside::Count(2))),
            (2, fresh, None, false, Verdict::HandOut(3)),
            (2, back, None, false, Verdict::Settle(Aside::Dead)),
            (u32::MAX - 1, fresh, None, false, Verdict::Settle(Aside::Dead)),
            // Calls end by themselves.
            (0, back, None, true, Verdict::HandOut(2)),
        ] {
            let why = format!("{returned} {redelivered} {seen:?} {is_call}");
            assert_eq!(verdict(returned, redelivered, seen, is_call), expected, "{why}");
        }
    }
}
