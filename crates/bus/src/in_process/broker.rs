//! The queues themselves, under one lock that is never held across a wait.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use nova_wire::{Address, MessageId, Topic};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tracing::error;

use super::faults::{Dice, Faults};
use crate::bus::Subscription;
use crate::delivery::{DeadLetter, MAX_DELIVERIES};
use crate::error::BusError;

/// How many messages may wait in one queue. Hints beyond that help nobody.
pub(crate) const LONGEST_QUEUE: usize = 100_000;
/// How many messages set aside are kept.
const MOST_DEAD_LETTERS: usize = 1_000;

/// One message in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) body: Bytes,
    /// How often it was handed out and came back.
    pub(crate) returned: u32,
    /// When its sender stops waiting; nobody need take it after that.
    pub(crate) expires: Option<Instant>,
}

/// A message that a fault holds up.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) wait: Duration,
    queue: String,
    message: Message,
}

/// Everything that is under way.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queues: HashMap<String, Queue>,
    fanouts: HashMap<Topic, Vec<String>>,
    calls: HashMap<MessageId, oneshot::Sender<Bytes>>,
    dead: VecDeque<DeadLetter>,
    listeners: u64,
    faults: Faults,
    dice: Dice,
}

#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<Message>,
    listeners: Vec<(u64, Arc<Notify>)>,
}

impl Queue {
    fn wake(&self) {
        for (_, listener) in &self.listeners {
            listener.notify_one();
        }
    }
}

impl Broker {
    /// Nothing under the lock can panic half-way, so a poisoned lock holds a whole state.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn misbehave(&self, faults: Faults) {
        let mut state = self.state();
        state.dice = Dice::new(faults.seed);
        state.faults = faults;
        // What rested while the broker was away moves on.
        state.queues.values().for_each(Queue::wake);
    }

    /// Puts a message where it belongs; returns the copies that a fault holds up.
    pub(crate) fn publish(&self, to: &Address, message: Message) -> Result<Vec<Late>, BusError> {
        let mut state = self.state();
        if state.faults.away {
            return Err(BusError::Unavailable(None));
        }
        let queues = match to {
            Address::Every(topic) => state.fanouts.get(topic).cloned().unwrap_or_default(),
            Address::Any(_) | Address::Host(..) => vec![to.to_string()],
        };
        let mut late = Vec::new();
        for queue in queues {
            match state.queues.get(&queue).map(|queue| queue.ready.len()) {
                None => return Err(BusError::Unroutable(queue)),
                Some(waiting) if waiting >= LONGEST_QUEUE => return Err(BusError::Full(queue)),
                Some(_) => state.send(&queue, &message, &mut late),
            }
        }
        Ok(late)
    }

    /// Lets a message through that was held up.
    pub(crate) fn enqueue_late(&self, late: Late) {
        self.state().enqueue(&late.queue, late.message, usize::MAX);
    }

    /// Takes the first message of a queue whose sender still waits.
    pub(crate) fn take(&self, queue: &str) -> Option<Message> {
        let mut state = self.state();
        if state.faults.away {
            return None;
        }
        let ready = &mut state.queues.get_mut(queue)?.ready;
        loop {
            let message = ready.pop_front()?;
            if message.expires.is_none_or(|expires| expires > Instant::now()) {
                return Some(message);
            }
        }
    }

    /// Puts a message back to the front, or aside if it was handed out too often.
    pub(crate) fn give_back(&self, queue: String, mut message: Message) {
        message.returned += 1;
        if message.returned < MAX_DELIVERIES {
            self.state().enqueue(&queue, message, 0);
        } else {
            error!(queue, deliveries = message.returned, "A message came back too often; set aside.");
            self.set_aside(queue, message.body, &format!("came back {MAX_DELIVERIES} times"));
        }
    }

    pub(crate) fn set_aside(&self, queue: String, body: Bytes, reason: &str) {
        let mut state = self.state();
        if state.dead.len() >= MOST_DEAD_LETTERS {
            state.dead.pop_front();
        }
        state.dead.push_back(DeadLetter { queue, reason: reason.to_owned(), body });
    }

    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        self.state().dead.iter().cloned().collect()
    }

    #[cfg(test)]
    pub(crate) fn calls_waiting(&self) -> usize {
        self.state().calls.len()
    }

    /// Makes the three queues of a subscription, and the listener's number.
    pub(crate) fn listen(&self, wanted: &Subscription, wake: &Arc<Notify>) -> Result<(u64, [String; 3]), BusError> {
        let mut state = self.state();
        if state.faults.away {
            return Err(BusError::Unavailable(None));
        }
        state.listeners += 1;
        let number = state.listeners;
        let fanout = format!("{}_{number}", Address::Every(wanted.topic));
        state.fanouts.entry(wanted.topic).or_default().push(fanout.clone());
        let host = Address::Host(wanted.topic, wanted.host.clone()).to_string();
        let queues = [host, Address::Any(wanted.topic).to_string(), fanout];
        for queue in &queues {
            state.queues.entry(queue.clone()).or_default().listeners.push((number, Arc::clone(wake)));
        }
        Ok((number, queues))
    }

    /// Ends a listener: its own queue goes, the shared ones wait for the next.
    pub(crate) fn unlisten(&self, number: u64, queues: &[String; 3]) {
        let mut state = self.state();
        let [host, any, fanout] = queues;
        state.queues.remove(fanout);
        state.fanouts.values_mut().for_each(|names| names.retain(|name| name != fanout));
        for name in [host, any] {
            if let Some(queue) = state.queues.get_mut(name) {
                queue.listeners.retain(|(listener, _)| *listener != number);
                queue.wake();
            }
        }
    }

    pub(crate) fn reply(&self, id: &MessageId, body: Bytes) -> Result<(), BusError> {
        let mut state = self.state();
        if state.faults.away {
            return Err(BusError::Unavailable(None));
        }
        if let Some(caller) = state.calls.remove(id) {
            // A caller that has just given up takes no answer, as one that gave up before.
            let _ = caller.send(body);
        }
        Ok(())
    }
}

impl State {
    /// Sends one message on its way to one queue, through the faults.
    fn send(&mut self, queue: &str, message: &Message, late: &mut Vec<Late>) {
        let Self { faults, dice, .. } = self;
        if dice.chance(faults.drop) {
            return;
        }
        let copies = if dice.chance(faults.double) { 2 } else { 1 };
        for _ in 0..copies {
            let Self { faults, dice, queues, .. } = self;
            if let Some(wait) = dice.within(&faults.delay) {
                late.push(Late { wait, queue: queue.to_owned(), message: message.clone() });
                continue;
            }
            let waiting = queues.get(queue).map_or(0, |queue| queue.ready.len());
            let place = if dice.chance(faults.reorder) { dice.below(waiting + 1) } else { waiting };
            self.enqueue(queue, message.clone(), place);
        }
    }

    fn enqueue(&mut self, queue: &str, message: Message, place: usize) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.ready.insert(place.min(queue.ready.len()), message);
            queue.wake();
        }
    }
}

/// A caller's claim on the answer to its call; given up when dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    broker: Arc<Broker>,
    id: MessageId,
    answer: oneshot::Receiver<Bytes>,
}

impl Waiting {
    pub(crate) fn new(broker: Arc<Broker>, id: &MessageId) -> Self {
        let (sender, answer) = oneshot::channel();
        broker.state().calls.insert(id.clone(), sender);
        Self { broker, id: id.clone(), answer }
    }

    /// The answer; `None` when another call took the same id.
    pub(crate) async fn answer(mut self) -> Option<Bytes> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.broker.state().calls.remove(&self.id);
    }
}
