//! What this process remembers of messages it received: how often it handed each out, and where replies go.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::names;

/// How many messages are remembered; the oldest are forgotten first.
const MOST: usize = 10_000;

/// A map that forgets its oldest entries.
#[derive(Debug)]
struct Recent<V> {
    entries: HashMap<String, V>,
    order: VecDeque<String>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<V> Recent<V> {
    fn put(&mut self, key: String, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        // What was taken out since leaves its key in the order, which therefore is cut, too.
        while self.order.len() > MOST {
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }

    fn take(&mut self, key: &str) -> Option<V> {
        self.entries.remove(key)
    }
}

/// What this process remembers.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    handed_out: Mutex<Recent<u32>>,
    replies: Mutex<Recent<String>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// How often this process handed the message out; `None` when it never received it.
    pub(crate) fn seen(&self, id: &str) -> Option<u32> {
        lock(&self.handed_out).entries.get(id).copied()
    }

    /// Notes how often a message was handed out so far.
    pub(crate) fn note(&self, id: &str, times: u32) {
        lock(&self.handed_out).put(id.to_owned(), times);
    }

    /// Notes that a message which was never handed out comes again.
    pub(crate) fn unharmed(&self, id: &str) {
        let mut handed_out = lock(&self.handed_out);
        if !handed_out.entries.contains_key(id) {
            handed_out.put(id.to_owned(), 0);
        }
    }

    /// The message will not come again.
    pub(crate) fn forget(&self, id: &str) {
        lock(&self.handed_out).take(id);
    }

    /// Notes where the reply to a call goes.
    pub(crate) fn expect_reply(&self, call: &str, queue: &str) {
        if names::is_reply_queue(queue) {
            lock(&self.replies).put(call.to_owned(), queue.to_owned());
        }
    }

    /// Where the reply to a call goes, once.
    pub(crate) fn reply_to(&self, call: &str) -> Option<String> {
        lock(&self.replies).take(call)
    }
}

#[cfg(test)]
mod tests {
    use super::{Journal, MOST};

    #[test]
    fn the_oldest_are_forgotten() {
        let journal = Journal::default();
        for n in 0..=MOST {
            journal.note(&n.to_string(), 1);
        }
        assert_eq!((journal.seen("0"), journal.seen("1")), (None, Some(1)));
        journal.note("1", 2);
        assert_eq!(journal.seen("1"), Some(2));
        journal.forget("1");
        assert_eq!(journal.seen("1"), None);
    }

    #[test]
    fn a_reply_goes_to_a_queue_of_replies_once() {
        let journal = Journal::default();
        journal.expect_reply("a", "compute.host");
        journal.expect_reply("b", "reply.1");
        assert_eq!(journal.reply_to("a"), None);
        assert_eq!(journal.reply_to("b").as_deref(), Some("reply.1"));
        assert_eq!(journal.reply_to("b"), None);
    }
}
