//! What every kind of bus does.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nova_wire::{Address, MessageId, Topic};

use crate::delivery::{DeadLetter, Delivery};
use crate::error::BusError;

/// Carries messages between daemons, at least once each: a duplicate is normal, a loss is not, but even a loss only
/// costs time.
#[async_trait]
pub trait Bus: Send + Sync + fmt::Debug {
    /// Hands a message over. When this returns, the broker has it, and waits with it for a daemon that is down.
    ///
    /// To [`Address::Every`] it succeeds even where nobody listens.
    ///
    /// # Errors
    /// [`BusError::Unroutable`], [`BusError::Full`], [`BusError::Unavailable`]; never later than a few seconds.
    async fn publish(&self, to: &Address, body: Bytes) -> Result<(), BusError>;

    /// Hands over a message that bears `id` and waits for the reply. A message not taken by the deadline is never taken.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and [`BusError::TimedOut`].
    async fn call(&self, to: &Address, id: &MessageId, body: Bytes, deadline: Duration) -> Result<Bytes, BusError>;

    /// Answers the call that bore `id`. Nothing happens where nobody waits for it any more.
    ///
    /// # Errors
    /// [`BusError::Unavailable`].
    async fn reply(&self, id: &MessageId, body: Bytes) -> Result<(), BusError>;

    /// Begins to listen to a topic: to what is for any daemon of it, for the one on this host, and for every one.
    /// From here on messages to that host are kept, also while nobody listens.
    ///
    /// # Errors
    /// [`BusError::Unavailable`], which [`serve`](crate::serve) rides out.
    async fn consume(&self, wanted: &Subscription) -> Result<Box<dyn Consumer>, BusError>;

    /// Tells whether messages can be sent at this moment; for whoever asks how the daemon is.
    ///
    /// # Errors
    /// [`BusError::Unavailable`], at the latest after a few seconds.
    async fn reachable(&self) -> Result<(), BusError>;

    /// Lists the messages set aside, oldest first; the newest thousand are kept.
    ///
    /// # Errors
    /// [`BusError::Unavailable`].
    async fn dead_letters(&self) -> Result<Vec<DeadLetter>, BusError>;
}

/// What a daemon listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The daemon's kind.
    pub topic: Topic,
    /// The host it serves.
    pub host: String,
    /// How many messages it may hold unacknowledged, at least 1.
    pub prefetch: u16,
}

/// The receiving end. Dropping it ends the listening; deliveries already handed out can still be acknowledged.
#[async_trait]
pub trait Consumer: Send + fmt::Debug {
    /// Waits for the next message. Rides out restarts of the broker. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// [`BusError::Unavailable`] when the bus was shut down for good.
    async fn next(&mut self) -> Result<Delivery, BusError>;
}
