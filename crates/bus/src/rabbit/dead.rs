//! Dead letters: messages set aside for a person to look at.

use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::options::BasicGetOptions;
use lapin::types::AMQPValue;
use tokio::sync::Mutex;

use super::line::Link;
use super::names;
use super::options::RabbitOptions;
use super::send::{Fate, PATIENCE, Parcel, Sender, unavailable, with_header};
use crate::delivery::DeadLetter;
use crate::error::BusError;

/// Headers of a dead letter.
const QUEUE: &str = "x-nova-queue";
const REASON: &str = "x-nova-reason";
/// How much of a reason is kept.
const LONGEST_REASON: usize = 1_000;

/// The queue of dead letters.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    options: Arc<RabbitOptions>,
    /// Who looks at them holds them all, so one looks at a time.
    looking: Mutex<()>,
}

impl DeadLetters {
    pub(crate) fn new(options: Arc<RabbitOptions>) -> Self {
        Self { options, looking: Mutex::default() }
    }

    /// Sets a message aside. When this succeeds, the broker has it on its disk.
    pub(crate) async fn add(&self, sender: &Sender, queue: &str, reason: &str, body: &[u8]) -> Result<(), BusError> {
        let reason: String = reason.chars().take(LONGEST_REASON).collect();
        let properties = BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
        let properties = with_header(properties, QUEUE, AMQPValue::LongString(queue.into()));
        let properties = with_header(properties, REASON, AMQPValue::LongString(reason.into()));
        let parcel = Parcel::into_queue(&names::dead_letters(&self.options), properties);
        match sender.hand_over(&parcel, body).await? {
            Fate::Taken => Ok(()),
            // Somebody deleted the queue; the next try makes it again.
            Fate::Unroutable | Fate::Refused => Err(unavailable("the queue of dead letters did not take the message")),
        }
    }

    /// Takes them all out in one channel, whose end puts them back where they were.
    pub(crate) async fn list(&self, link: &Link) -> Result<Vec<DeadLetter>, BusError> {
        let _looking = self.looking.lock().await;
        tokio::time::timeout(PATIENCE, self.look(link)).await.map_err(unavailable)?.map_err(unavailable)
    }

    async fn look(&self, link: &Link) -> lapin::Result<Vec<DeadLetter>> {
        names::dead_letter_queue(link, &self.options).await?;
        let (name, mut letters) = (names::short(&names::dead_letters(&self.options))?, Vec::new());
        let channel = link.channel().await?;
        for _ in 0..names::MOST_DEAD_LETTERS {
            let Some(message) = channel.basic_get(name.clone(), BasicGetOptions::default()).await? else { break };
            let header = |name| text(&message.properties, name).unwrap_or_default();
            let (queue, reason) = (header(QUEUE), header(REASON));
            letters.push(DeadLetter { queue, reason, body: Bytes::copy_from_slice(&message.data) });
        }
        channel.close(200, "OK".into()).await?;
        Ok(letters)
    }
}

/// A header that is text.
fn text(properties: &BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        _ => None,
    }
}
