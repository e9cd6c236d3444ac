//! Serving, typed: decode, handle, answer, acknowledge. The one loop that every daemon runs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_wire::{Call, Context, Failure, MessageId, Reply, Request};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::bus::{Bus, Consumer, Subscription};
use crate::delivery::Delivery;
use crate::error::BusError;

/// How long a cast that failed rests before it is handed out again, and how long passes between tries to listen.
const REST: Duration = Duration::from_secs(1);

/// What a daemon does with a message.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// The messages it understands.
    type Call: Call;

    /// Does the work; the message is acknowledged when this returns. The same message may come again, and beside
    /// another of its kind.
    ///
    /// # Errors
    /// To a caller, a failure is the answer. A cast that fails comes again a second later, and is set aside when it
    /// failed three times; return an error only where that may help.
    async fn handle(&self, call: Self::Call, context: &Context) -> Result<Value, Failure>;
}

/// Listens to `subscription` and serves its messages, as many at once as its prefetch allows, until `stop`; then
/// finishes those begun. Where the broker is absent, now or later, it tries again for ever.
///
/// # Errors
/// Whatever [`Bus::consume`] says that waiting does not mend: all but [`BusError::Unavailable`].
pub async fn serve<H: Handler>(
    bus: Arc<dyn Bus>,
    subscription: Subscription,
    handler: Arc<H>,
    stop: CancellationToken,
) -> Result<(), BusError> {
    let mut begun = JoinSet::new();
    let ended = loop {
        let heard = tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            consumer = listen(&*bus, &subscription) => match consumer {
                Ok(consumer) => hand_out(&bus, consumer, &handler, &mut begun, &stop).await,
                Err(error) => break Err(error),
            },
        };
        match heard {
            Ok(()) => break Ok(()),
            Err(error) => {
                warn!(topic = %subscription.topic, error = %chain(&error), "Listening ended; trying again.");
                rest(&stop).await;
            }
        }
    };
    while let Some(done) = begun.join_next().await {
        report(done);
    }
    ended
}

/// Tries to listen until it succeeds. The first failure is said, not each.
async fn listen(bus: &dyn Bus, subscription: &Subscription) -> Result<Box<dyn Consumer>, BusError> {
    let mut said = false;
    loop {
        match bus.consume(subscription).await {
            Err(error @ BusError::Unavailable(_)) => {
                if !std::mem::replace(&mut said, true) {
                    warn!(topic = %subscription.topic, error = %chain(&error), "Cannot listen yet; trying for ever.");
                }
                tokio::time::sleep(REST).await;
            }
            outcome => return outcome,
        }
    }
}

/// Begins the work of each message until `stop`, or until there is nothing to hear any more.
async fn hand_out<H: Handler>(
    bus: &Arc<dyn Bus>,
    mut consumer: Box<dyn Consumer>,
    handler: &Arc<H>,
    begun: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<(), BusError> {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            Some(done) = begun.join_next() => report(done),
            next = consumer.next() => {
                begun.spawn(one(Arc::clone(bus), Arc::clone(handler), next?, stop.clone()));
            }
        }
    }
}

/// A pause that a stop cuts short.
async fn rest(stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(REST) => {}
    }
}

/// A handler that panicked has dropped its delivery, which has thereby gone back.
fn report(done: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = done {
        error!(error = %panic, "A message handler panicked; its message goes back.");
    }
}

async fn one<H: Handler>(bus: Arc<dyn Bus>, handler: Arc<H>, delivery: Delivery, stop: CancellationToken) {
    let request = match Request::<H::Call>::decode(delivery.body()) {
        Ok(request) => request,
        Err(refusal) => {
            let reason = chain(&refusal);
            error!(topic = %H::Call::TOPIC, reason, "A message makes no sense; set aside.");
            if let Some(id) = readable_id(delivery.body()) {
                answer(&*bus, &id, Reply::failure(Failure::new("BadMessage", refusal.to_string()))).await;
            }
            return settled(delivery.reject(&reason).await);
        }
    };
    let outcome = handler.handle(request.call, &request.context).await;
    match (outcome, request.id) {
        (Ok(result), Some(id)) => answer(&*bus, &id, Reply::success(result)).await,
        (Err(failure), Some(id)) => answer(&*bus, &id, Reply::failure(failure)).await,
        (Ok(_), None) => {}
        (Err(failure), None) => {
            warn!(topic = %H::Call::TOPIC, attempt = delivery.attempt(), error = %failure, "A message could not be handled.");
            rest(&stop).await;
            return drop(delivery);
        }
    }
    settled(delivery.ack().await);
}

async fn answer(bus: &dyn Bus, id: &MessageId, reply: Reply) {
    if let Err(error) = bus.reply(id, reply.encode().into()).await {
        warn!(message.id = %id, error = %chain(&error), "An answer could not be sent; its caller will look at the rows.");
    }
}

fn settled(outcome: Result<(), BusError>) {
    if let Err(error) = outcome {
        warn!(error = %chain(&error), "A message could not be acknowledged; it will come again.");
    }
}

/// The id of a call that is otherwise nonsense, so that its caller need not wait for the deadline.
fn readable_id(body: &[u8]) -> Option<MessageId> {
    let envelope: Value = serde_json::from_slice(body).ok()?;
    Some(MessageId::from(envelope.get("_msg_id")?.as_str()?.to_owned()))
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
