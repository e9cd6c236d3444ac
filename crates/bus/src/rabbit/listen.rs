//! Listening: three queues over one channel, taken up again after each loss of the connection.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueBindOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, message};
use nova_wire::{Address, MessageId};
use tokio::sync::Semaphore;
use tracing::warn;

use super::Shared;
use super::held::{Held, Verdict};
use super::line::Link;
use super::names;
use super::send::{PATIENCE, unavailable};
use crate::bus::{Consumer, Subscription};
use crate::delivery::Delivery;
use crate::error::BusError;
use crate::serve::chain;

/// How long passes between tries to listen over a connection that is up.
const REST: Duration = Duration::from_secs(1);

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Listener {
    shared: Arc<Shared>,
    wanted: Subscription,
    slots: Arc<Semaphore>,
    ear: Option<Ear>,
}

/// What is heard of one queue.
enum Heard {
    Message(Arc<str>, Box<message::Delivery>),
    Ended(Option<lapin::Error>),
}

/// A channel with its three queues.
struct Ear {
    channel: Channel,
    tags: Vec<ShortString>,
    heard: SelectAll<BoxStream<'static, Heard>>,
}

impl std::fmt::Debug for Ear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ear").field("tags", &self.tags).finish_non_exhaustive()
    }
}

impl Listener {
    /// Begins to listen over this connection.
    pub(crate) async fn begin(shared: Arc<Shared>, wanted: Subscription, link: &Arc<Link>) -> Result<Self, BusError> {
        let ear = Ear::open(&shared, &wanted, link).await?;
        let slots = Arc::new(Semaphore::new(wanted.prefetch.max(1).into()));
        Ok(Self { shared, wanted, slots, ear: Some(ear) })
    }

    /// The ear, opened again where it was lost.
    async fn ear(&mut self) -> Result<&mut Ear, BusError> {
        while self.ear.is_none() {
            let Some(link) = self.shared.listening.back().await else {
                return Err(unavailable("the bus was shut down"));
            };
            match Ear::open(&self.shared, &self.wanted, &link).await {
                Ok(ear) => self.ear = Some(ear),
                Err(error) => {
                    warn!(topic = %self.wanted.topic, error = %chain(&error), "Cannot listen; trying again.");
                    tokio::time::sleep(REST).await;
                }
            }
        }
        self.ear.as_mut().ok_or(BusError::Unavailable(None))
    }
}

#[async_trait]
impl Consumer for Listener {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(unavailable)?;
        loop {
            let ear = self.ear().await?;
            match ear.heard.next().await {
                Some(Heard::Message(queue, message)) => {
                    let channel = ear.channel.clone();
                    let held = Held::new(Arc::clone(&self.shared), queue, *message, channel);
                    match held.judge() {
                        Verdict::HandOut(attempt) => return Ok(held.hand_out(attempt, slot)),
                        Verdict::Leave => {}
                        Verdict::Settle(aside) => held.settle(aside),
                    }
                }
                Some(Heard::Ended(reason)) => {
                    let reason = reason.map(|error| error.to_string());
                    warn!(topic = %self.wanted.topic, reason, "Listening ended; taking it up again.");
                    self.ear = None;
                }
                None => self.ear = None,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let (Some(ear), Ok(runtime)) = (self.ear.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(PATIENCE, ear.close(Arc::clone(&self.shared))));
        }
    }
}

impl Ear {
    async fn open(shared: &Shared, wanted: &Subscription, link: &Link) -> Result<Self, BusError> {
        let _turn = shared.begin.acquire().await.map_err(unavailable)?;
        let opening = Self::try_open(shared, wanted, link);
        tokio::time::timeout(PATIENCE, opening).await.map_err(unavailable)?.map_err(unavailable)
    }

    async fn try_open(shared: &Shared, wanted: &Subscription, link: &Link) -> lapin::Result<Self> {
        let channel = link.channel().await?;
        // For each queue: a limit on all of them together is what quorum queues do not have. The slots are that limit.
        channel.basic_qos(wanted.prefetch.max(1), BasicQosOptions::default()).await?;
        names::exchange(&channel, &shared.options).await?;
        let host = Address::Host(wanted.topic, wanted.host.clone()).to_string();
        let any = Address::Any(wanted.topic).to_string();
        for queue in [&host, &any] {
            names::queue(link, &channel, &shared.options, queue).await?;
        }
        let every = Address::Every(wanted.topic).to_string();
        names::fanout(&channel, &every).await?;
        let own = format!("{every}_{}", MessageId::random());
        let queue = names::own_queue(&channel, &own).await?;
        let (exchange, bind) = (names::short(&every)?, QueueBindOptions::default());
        channel.queue_bind(queue, exchange, names::short(wanted.topic.name())?, bind, FieldTable::default()).await?;
        let mut ear = Self { channel, tags: Vec::new(), heard: SelectAll::new() };
        for queue in [host, any, own] {
            ear.add(queue).await?;
        }
        Ok(ear)
    }

    async fn add(&mut self, queue: String) -> lapin::Result<()> {
        let name = names::short(&queue)?;
        let how = BasicConsumeOptions::default();
        let consumer = self.channel.basic_consume(name, "".into(), how, FieldTable::default()).await?;
        self.tags.push(consumer.tag());
        let queue: Arc<str> = queue.into();
        let heard = consumer.map(move |heard| match heard {
            Ok(message) => Heard::Message(Arc::clone(&queue), Box::new(message)),
            Err(error) => Heard::Ended(Some(error)),
        });
        self.heard.push(heard.chain(stream::once(async { Heard::Ended(None) })).boxed());
        Ok(())
    }

    /// Ends the listening, and returns at once what was received and not handed out. What was is still acknowledged
    /// over the channel, which ends with the last of it.
    async fn close(mut self, shared: Arc<Shared>) {
        for tag in std::mem::take(&mut self.tags) {
            if self.channel.basic_cancel(tag, BasicCancelOptions::default()).await.is_err() {
                return;
            }
        }
        while let Some(heard) = self.heard.next().now_or_never().flatten() {
            if let Heard::Message(_, message) = heard {
                if let Some(id) = message.properties.message_id() {
                    shared.journal.unharmed(id.as_str());
                }
                let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
                // Where that fails, the connection is lost, and the broker does the same by itself.
                let _ = message.acker.nack(requeue).await;
            }
        }
    }
}
