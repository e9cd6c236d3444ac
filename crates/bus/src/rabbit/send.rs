//! Sending: each message is confirmed by the broker before its sender goes on, many of them at once.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel, Confirmation};
use nova_wire::{Address, MessageId};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::line::{Line, Link};
use super::names;
use super::options::RabbitOptions;
use crate::error::BusError;

/// The longest that a sender waits, whatever the broker does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How many messages may be under way at once. Each has a channel of its own: the broker says of a message that came
/// back only which channel it was sent over.
const AT_ONCE: usize = 32;
/// The broker keeps the message on its disk.
const PERSISTENT: u8 = 2;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The broker has it.
    Taken,
    /// There is no such queue.
    Unroutable,
    /// The queue is full.
    Refused,
}

/// A message, ready to go.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    /// Empty for straight into the queue named by `key`.
    pub(crate) exchange: String,
    pub(crate) key: String,
    pub(crate) mandatory: bool,
    pub(crate) properties: BasicProperties,
}

impl Parcel {
    /// To where `address` says; it survives the broker, and has an id by which its returns are counted.
    pub(crate) fn to(address: &Address, options: &RabbitOptions) -> Self {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(MessageId::random().to_string().into());
        match address {
            Address::Every(topic) => {
                Self { exchange: address.to_string(), key: topic.to_string(), mandatory: false, properties }
            }
            Address::Any(_) | Address::Host(..) => {
                Self { exchange: options.exchange.clone(), key: address.to_string(), mandatory: true, properties }
            }
        }
    }

    /// Straight into a queue, with these properties.
    pub(crate) fn into_queue(queue: &str, properties: BasicProperties) -> Self {
        Self { exchange: String::new(), key: queue.to_owned(), mandatory: true, properties }
    }
}

/// Puts `value` into the headers of a message.
pub(crate) fn with_header(properties: BasicProperties, name: &str, value: AMQPValue) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(name.into(), value);
    properties.with_headers(headers)
}

/// Everything that sends.
#[derive(Debug)]
pub(crate) struct Sender {
    options: Arc<RabbitOptions>,
    line: Line,
    turns: Semaphore,
}

impl Sender {
    pub(crate) fn new(options: Arc<RabbitOptions>, line: Line) -> Self {
        Self { options, line, turns: Semaphore::new(AT_ONCE) }
    }

    /// Sends a message and waits for the broker's word, never longer than [`PATIENCE`].
    pub(crate) async fn hand_over(&self, parcel: &Parcel, body: &[u8]) -> Result<Fate, BusError> {
        let until = Instant::now() + PATIENCE;
        let link = self.line.to_send(until).await?;
        let work = async {
            let turn = tokio::time::timeout_at(until, self.turns.acquire()).await.map_err(unavailable)?;
            // The semaphore is never closed.
            let _turn = turn.map_err(unavailable)?;
            let Ok(fate) = tokio::time::timeout_at(until, self.over(&link, parcel, body)).await else {
                // A broker that says nothing for so long is as good as away, and who sends next is told at once.
                link.cut();
                return Err(unavailable("it did not confirm the message in time"));
            };
            fate.map_err(|error| {
                // Whatever is wrong, nothing that was once declared need be there still.
                link.declared().clear();
                unavailable(error)
            })
        };
        tokio::select! {
            biased;
            fate = work => fate,
            error = self.line.unusable(&link) => Err(error),
        }
    }

    async fn over(&self, link: &Link, parcel: &Parcel, body: &[u8]) -> lapin::Result<Fate> {
        let mut channel = Lent::take(link).await?;
        self.prepare(link, &channel.channel, parcel).await?;
        let how = BasicPublishOptions { mandatory: parcel.mandatory, ..BasicPublishOptions::default() };
        let (exchange, key) = (names::short(&parcel.exchange)?, names::short(&parcel.key)?);
        let sent = channel.channel.basic_publish(exchange, key, how, body, parcel.properties.clone()).await?;
        let fate = match sent.await? {
            Confirmation::Ack(None) | Confirmation::NotRequested => Fate::Taken,
            Confirmation::Ack(Some(_)) => Fate::Unroutable,
            Confirmation::Nack(_) => Fate::Refused,
        };
        channel.quiet = true;
        Ok(fate)
    }

    /// Makes sure that there is something to send to, once for each connection.
    async fn prepare(&self, link: &Link, channel: &Channel, parcel: &Parcel) -> lapin::Result<()> {
        let dead_letters = names::dead_letters(&self.options);
        let name = if parcel.exchange.is_empty() { &parcel.key } else { &parcel.exchange };
        if link.declared().contains(name) {
            return Ok(());
        }
        if *name == self.options.exchange {
            names::exchange(channel, &self.options).await?;
        } else if *name == dead_letters {
            names::dead_letter_queue(link, &self.options).await?;
        } else if !parcel.exchange.is_empty() {
            names::fanout(channel, name).await?;
        } else {
            // Somebody's queue, which that somebody declares.
            return Ok(());
        }
        link.declared().insert(name.clone());
        Ok(())
    }

    /// A connection for looking at dead letters.
    pub(crate) async fn link(&self, deadline: Instant) -> Result<Arc<Link>, BusError> {
        self.line.to_send(deadline).await
    }
}

/// A channel lent to one message. It goes back only when nothing is under way on it any more; else it is closed.
struct Lent<'a> {
    link: &'a Link,
    channel: Channel,
    quiet: bool,
}

impl<'a> Lent<'a> {
    async fn take(link: &'a Link) -> lapin::Result<Self> {
        loop {
            let kept = link.idle().pop();
            let Some(channel) = kept else { break };
            if channel.status().connected() {
                return Ok(Self { link, channel, quiet: false });
            }
        }
        let channel = link.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { link, channel, quiet: false })
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if self.quiet {
            self.link.idle().push(self.channel.clone());
        }
    }
}

/// The broker did not say yes.
pub(crate) fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BusError {
    BusError::Unavailable(Some(error.into()))
}
