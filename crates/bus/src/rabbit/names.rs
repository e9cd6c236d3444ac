//! What is declared at the broker. The names are the first Nova's; here everything that is shared outlives a restart.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ErrorKind, ExchangeKind};
use nova_wire::MessageId;
use tracing::warn;

use super::line::Link;
use super::options::RabbitOptions;

/// How many messages may wait in one queue. Hints beyond that help nobody.
const LONGEST_QUEUE: u32 = 100_000;
/// How many messages set aside are kept.
pub(crate) const MOST_DEAD_LETTERS: u32 = 1_000;
/// A quorum queue puts a returned message back to the front only if it has a limit of returns. Ours counts otherwise.
const NO_LIMIT: u32 = 1_000_000;
/// With what queues of replies begin; nothing else is ever sent to where a message wants its reply.
const REPLIES: &str = "reply.";

/// A name for the broker. Addresses are short: a topic and a host name of 64 characters.
pub(crate) fn short(name: &str) -> lapin::Result<ShortString> {
    ShortString::try_new(name).map_err(|error| std::io::Error::other(error.to_string()).into())
}

/// A fresh name for this process's queue of replies.
pub(crate) fn reply_queue() -> String {
    format!("{REPLIES}{}", MessageId::random())
}

/// Whether a message's wish for a reply may be followed.
pub(crate) fn is_reply_queue(name: &str) -> bool {
    name.starts_with(REPLIES)
}

/// The queue of dead letters.
pub(crate) fn dead_letters(options: &RabbitOptions) -> String {
    format!("{}_dead", options.exchange)
}

/// Makes sure of the exchange of all messages.
pub(crate) async fn exchange(channel: &Channel, options: &RabbitOptions) -> lapin::Result<()> {
    declare_exchange(channel, &options.exchange, ExchangeKind::Topic).await
}

/// Makes sure of the exchange of messages for every one.
pub(crate) async fn fanout(channel: &Channel, name: &str) -> lapin::Result<()> {
    declare_exchange(channel, name, ExchangeKind::Fanout).await
}

async fn declare_exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(short(name)?, kind, durable, FieldTable::default()).await
}

/// Makes sure of a queue for messages, and that they find it.
pub(crate) async fn queue(link: &Link, channel: &Channel, options: &RabbitOptions, name: &str) -> lapin::Result<()> {
    let mut arguments = kept(options);
    arguments.insert("x-max-length".into(), number(LONGEST_QUEUE));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    declare_or_take(link, name, arguments).await?;
    let (name, exchange) = (short(name)?, short(&options.exchange)?);
    channel.queue_bind(name.clone(), exchange, name, QueueBindOptions::default(), FieldTable::default()).await
}

/// Makes sure of the queue of dead letters, which loses its oldest when it is full.
pub(crate) async fn dead_letter_queue(link: &Link, options: &RabbitOptions) -> lapin::Result<()> {
    let mut arguments = kept(options);
    arguments.insert("x-max-length".into(), number(MOST_DEAD_LETTERS));
    declare_or_take(link, &dead_letters(options), arguments).await
}

/// Makes a queue that ends with the connection, and loses its oldest messages when it is full.
pub(crate) async fn own_queue(channel: &Channel, name: &str) -> lapin::Result<ShortString> {
    let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let (name, mut arguments) = (short(name)?, FieldTable::default());
    arguments.insert("x-max-length".into(), number(LONGEST_QUEUE));
    channel.queue_declare(name.clone(), exclusive, arguments).await?;
    Ok(name)
}

fn kept(options: &RabbitOptions) -> FieldTable {
    let mut arguments = FieldTable::default();
    if options.quorum {
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-delivery-limit".into(), number(NO_LIMIT));
    }
    arguments
}

fn number(of: u32) -> AMQPValue {
    AMQPValue::LongLongInt(i64::from(of))
}

/// Declares a durable queue. One that exists in another form is taken as it is: its messages are worth more.
async fn declare_or_take(link: &Link, name: &str, arguments: FieldTable) -> lapin::Result<()> {
    // A refusal ends the channel, so it is one of its own.
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = link.channel().await?.queue_declare(short(name)?, durable, arguments).await;
    match declared {
        Err(error) if is(&error, AMQPSoftError::PRECONDITIONFAILED) => {
            warn!(queue = name, reason = %error, "The queue exists in another form and is used as it is.");
            let passive = QueueDeclareOptions { passive: true, ..durable };
            link.channel().await?.queue_declare(short(name)?, passive, FieldTable::default()).await.map(drop)
        }
        declared => declared.map(drop),
    }
}

/// Whether the broker answered with this error.
pub(crate) fn is(error: &lapin::Error, soft: AMQPSoftError) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(answer) if *answer.kind() == AMQPErrorKind::Soft(soft))
}
