//! A message in the hands of a consumer, and what becomes of it.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::BusError;

/// How often a message is handed out before it is set aside.
pub const MAX_DELIVERIES: u32 = 3;

/// How a kind of bus settles a message. Used through [`Delivery`].
#[async_trait]
pub trait Settle: Send + Sync {
    /// Forgets the message: its work is done.
    async fn ack(self: Box<Self>) -> Result<(), BusError>;
    /// Sets the message aside for a person to look at.
    async fn reject(self: Box<Self>, reason: &str) -> Result<(), BusError>;
    /// Puts the message back to the front of its queue, or aside if it was handed out [`MAX_DELIVERIES`] times.
    fn give_back(self: Box<Self>);
}

/// One message. Dropped without a word (a handler that fails, panics or is cancelled), it goes back to its queue.
pub struct Delivery {
    body: Bytes,
    attempt: u32,
    settle: Option<Box<dyn Settle>>,
}

impl Delivery {
    /// Wraps a message handed out for the `attempt`th time, counted from 1.
    pub fn new(body: Bytes, attempt: u32, settle: Box<dyn Settle>) -> Self {
        Self { body, attempt, settle: Some(settle) }
    }

    /// The bytes as they were sent.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// How often this message was handed out, this time included.
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Says that the work is done.
    ///
    /// # Errors
    /// [`BusError::Unavailable`]: the message will come again.
    pub async fn ack(mut self) -> Result<(), BusError> {
        match self.settle.take() {
            Some(settle) => settle.ack().await,
            None => Ok(()),
        }
    }

    /// Sets the message aside: it will never be understood.
    ///
    /// # Errors
    /// [`BusError::Unavailable`]: the message will come again.
    pub async fn reject(mut self, reason: &str) -> Result<(), BusError> {
        match self.settle.take() {
            Some(settle) => settle.reject(reason).await,
            None => Ok(()),
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle.give_back();
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("bytes", &self.body.len()).field("attempt", &self.attempt).finish()
    }
}

/// A message that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The queue it came from.
    pub queue: String,
    /// Why it was set aside.
    pub reason: String,
    /// The bytes as they were sent.
    pub body: Bytes,
}
