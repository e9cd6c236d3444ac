//! What can go wrong between two daemons.

use std::time::Duration;

use nova_wire::{Failure, WireError};

/// Why a message was not handed over, or a call not answered.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No daemon has ever listened there. The message is nowhere.
    #[error("nobody listens on {0}")]
    Unroutable(String),
    /// The queue is as long as it may grow. The message is nowhere.
    #[error("the queue {0} is full")]
    Full(String),
    /// The broker cannot be reached, or did not confirm: the message may or may not have gone.
    #[error("the message broker is not available")]
    Unavailable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The answer did not come in time. The work may have been done all the same: look at the rows.
    #[error("{to} did not answer within {} ms", deadline.as_millis())]
    TimedOut {
        /// Who was asked.
        to: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// The callee answered that it could not, or would not.
    #[error("{to} refused")]
    Refused {
        /// Who was asked.
        to: String,
        /// What it said.
        #[source]
        failure: Failure,
    },
    /// The answer is not what that call returns.
    #[error("the answer of {to} cannot be read")]
    Unreadable {
        /// Who was asked.
        to: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The message cannot be written.
    #[error("the message cannot be written")]
    Unwritable(#[source] WireError),
}
