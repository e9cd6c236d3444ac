//! Calls: one queue of replies for the whole process; each reply bears the id of its call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use futures::StreamExt as _;
use lapin::options::BasicConsumeOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use nova_wire::MessageId;
use tokio::sync::oneshot;

use super::line::Link;
use super::names;

/// The callers that wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<Mutex<HashMap<String, Caller>>>);

#[derive(Debug)]
struct Caller {
    queue: ShortString,
    answer: oneshot::Sender<Bytes>,
}

impl Calls {
    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Caller>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue to which replies are to go, made when the first call needs it.
    pub(crate) async fn reply_queue(&self, link: &Arc<Link>) -> lapin::Result<ShortString> {
        let made = link.replies.get_or_try_init(|| async {
            let channel = link.channel().await?;
            let queue = names::own_queue(&channel, &names::reply_queue()).await?;
            let once = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
            let replies = channel.basic_consume(queue.clone(), "".into(), once, FieldTable::default()).await?;
            tokio::spawn(self.clone().deliver(channel, replies, queue.clone(), Arc::downgrade(link)));
            Ok(queue)
        });
        made.await.cloned()
    }

    /// Gives each reply to its caller. Those that still wait when the queue ends wait in vain, and are told so.
    async fn deliver(self, channel: Channel, mut replies: Consumer, queue: ShortString, link: Weak<Link>) {
        while let Some(Ok(reply)) = replies.next().await {
            let call = reply.properties.correlation_id().as_ref().map(ShortString::as_str);
            if let Some(caller) = call.and_then(|call| self.waiting().remove(call)) {
                // A caller that has just given up takes no answer, as one that gave up before.
                let _ = caller.answer.send(reply.data.into());
            }
        }
        drop(channel);
        self.waiting().retain(|_, caller| caller.queue != queue);
        // Where only the queue ended, a new connection makes a new one.
        if let Some(link) = link.upgrade() {
            link.cut();
        }
    }

    /// Begins to wait for the reply to a call.
    pub(crate) fn wait(&self, id: &MessageId, queue: ShortString) -> Waiting {
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(id.to_string(), Caller { queue, answer: sender });
        Waiting { calls: self.clone(), id: id.to_string(), answer }
    }
}

/// A caller's claim on the answer to its call; given up when dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    calls: Calls,
    id: String,
    answer: oneshot::Receiver<Bytes>,
}

impl Waiting {
    /// The answer; `None` when the connection was lost, or another call took the same id.
    pub(crate) async fn answer(&mut self) -> Option<Bytes> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.calls.waiting().remove(&self.id);
    }
}
