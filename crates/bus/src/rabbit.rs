//! The bus over RabbitMQ.
//!
//! Two connections, so that a broker that takes no messages for lack of memory still gets acknowledgements: one to send
//! over, one to receive over. Each is dialled again for ever by a task of its own; meanwhile senders are told at once.

mod calls;
mod dead;
mod dial;
mod held;
mod journal;
mod line;
mod listen;
mod names;
mod options;
mod send;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::BasicProperties;
use nova_wire::{Address, MessageId};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bus::{Bus, Consumer, Subscription};
use crate::delivery::DeadLetter;
use crate::error::BusError;
use calls::Calls;
use dead::DeadLetters;
use journal::Journal;
use line::Line;
use listen::Listener;
use send::{Fate, PATIENCE, Parcel, Sender, unavailable};

pub use options::RabbitOptions;

/// How many begin to listen at once.
const BEGIN_AT_ONCE: usize = 16;
/// How long a connection that is just being made again is waited for by whoever only asks whether there is one.
const GLANCE: Duration = Duration::from_secs(1);
/// The longest deadline of a call; what is longer ends then.
const LONGEST_CALL: Duration = Duration::from_secs(24 * 60 * 60);

/// A bus over RabbitMQ. Clones are the same bus, which ends with the last of them and of its consumers and deliveries.
#[derive(Clone, Debug)]
pub struct RabbitMq {
    shared: Arc<Shared>,
}

/// What a bus, its consumers and their deliveries have in common.
#[derive(Debug)]
struct Shared {
    options: Arc<RabbitOptions>,
    sender: Sender,
    listening: Line,
    /// How many may begin to listen at once: many at a time would all wait for the broker in vain.
    begin: Semaphore,
    calls: Calls,
    journal: Journal,
    dead: DeadLetters,
    _stop: DropGuard,
}

impl RabbitMq {
    /// A bus that connects in the background, for ever. Until it has, everything asked of it is
    /// [`Unavailable`](BusError::Unavailable).
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn open(options: RabbitOptions) -> Self {
        let (options, stop) = (Arc::new(options), CancellationToken::new());
        let line = |purpose| Line::open(Arc::clone(&options), purpose, stop.clone());
        let (sending, listening) = (line("sending"), line("receiving"));
        let shared = Shared {
            sender: Sender::new(Arc::clone(&options), sending),
            listening,
            begin: Semaphore::new(BEGIN_AT_ONCE),
            calls: Calls::default(),
            journal: Journal::default(),
            dead: DeadLetters::new(Arc::clone(&options)),
            options,
            _stop: stop.drop_guard(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sends a message to `to`, and says in the bus's words what became of it.
    async fn send(&self, to: &Address, parcel: &Parcel, body: &[u8]) -> Result<(), BusError> {
        match self.shared.sender.hand_over(parcel, body).await? {
            Fate::Taken => Ok(()),
            Fate::Unroutable => Err(BusError::Unroutable(to.to_string())),
            Fate::Refused => Err(BusError::Full(to.to_string())),
        }
    }

    /// Asks and waits for the answer, until `until`.
    async fn ask(&self, to: &Address, id: &MessageId, body: Bytes, until: Instant) -> Result<Bytes, BusError> {
        let Shared { options, listening, calls, .. } = &*self.shared;
        let link = listening.to_receive(until.min(Instant::now() + PATIENCE)).await?;
        let queue = tokio::time::timeout(PATIENCE, calls.reply_queue(&link)).await;
        let queue = queue.map_err(unavailable)?.map_err(unavailable)?;
        let mut waiting = calls.wait(id, queue.clone());
        let mut parcel = Parcel::to(to, options);
        let left = until.saturating_duration_since(Instant::now()).as_millis().max(1);
        parcel.properties = (parcel.properties.with_reply_to(queue))
            .with_correlation_id(names::short(&id.to_string()).map_err(unavailable)?)
            .with_expiration(left.to_string().into());
        self.send(to, &parcel, &body).await?;
        waiting.answer().await.ok_or_else(|| unavailable("the connection was lost before the answer came"))
    }
}

#[async_trait]
impl Bus for RabbitMq {
    async fn publish(&self, to: &Address, body: Bytes) -> Result<(), BusError> {
        self.send(to, &Parcel::to(to, &self.shared.options), &body).await
    }

    async fn call(&self, to: &Address, id: &MessageId, body: Bytes, deadline: Duration) -> Result<Bytes, BusError> {
        let until = Instant::now() + deadline.min(LONGEST_CALL);
        let answer = tokio::time::timeout_at(until, self.ask(to, id, body, until)).await;
        answer.unwrap_or_else(|_| Err(BusError::TimedOut { to: to.to_string(), deadline }))
    }

    async fn reply(&self, id: &MessageId, body: Bytes) -> Result<(), BusError> {
        let Some(queue) = self.shared.journal.reply_to(&id.to_string()) else { return Ok(()) };
        let id = names::short(&id.to_string()).map_err(unavailable)?;
        let properties =
            BasicProperties::default().with_content_type("application/json".into()).with_correlation_id(id);
        let parcel = Parcel::into_queue(&queue, properties);
        // A queue that is gone, or full, is that of a caller who takes no answers any more.
        self.shared.sender.hand_over(&parcel, &body).await.map(drop)
    }

    async fn consume(&self, wanted: &Subscription) -> Result<Box<dyn Consumer>, BusError> {
        let link = self.shared.listening.to_receive(Instant::now() + PATIENCE).await?;
        Ok(Box::new(Listener::begin(Arc::clone(&self.shared), wanted.clone(), &link).await?))
    }

    async fn reachable(&self) -> Result<(), BusError> {
        self.shared.sender.link(Instant::now() + GLANCE).await.map(drop)
    }

    async fn dead_letters(&self) -> Result<Vec<DeadLetter>, BusError> {
        let Shared { sender, dead, .. } = &*self.shared;
        dead.list(&*sender.link(Instant::now() + PATIENCE).await?).await
    }
}

#[cfg(test)]
mod tests;
