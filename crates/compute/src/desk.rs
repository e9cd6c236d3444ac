//! Who is being worked on. A row is in one pair of hands at a time, whether a message, a tick or a change of the guest
//! brought it up; and what could not be done now rests a while before it is tried again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nova_service::Hint;
use nova_types::InstanceId;
use nova_types::state::Task;
use tokio::sync::Notify;
use tokio::time::Instant;

const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Who was worked on is remembered for so long; nothing looks back further.
const REMEMBERED: Duration = Duration::from_secs(120);

/// The instances in hand, at rest, and lately put down.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    state: Mutex<State>,
    /// Somebody should look at the rows.
    look: Hint,
}

#[derive(Debug, Default)]
struct State {
    in_hand: HashMap<InstanceId, Weak<Hand>>,
    at_rest: HashMap<InstanceId, Rest>,
    put_down: HashMap<InstanceId, Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    task: Option<Task>,
    until: Instant,
    length: Duration,
}

#[derive(Debug)]
struct Hand {
    id: InstanceId,
    desk: Arc<Desk>,
    /// News of this instance came in while it was in hand.
    news: Notify,
    /// Whether that ever happened, or the row was left in a state that is due again.
    look_again: AtomicBool,
}

/// The right to work on one instance. It lasts until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Ticket(Arc<Hand>);

impl Ticket {
    /// Waits for news of the instance: a message that names it.
    pub(crate) async fn news(&self) {
        self.0.news.notified().await;
    }

    /// Lets the rows be looked at as soon as the instance is put down.
    pub(crate) fn look_again(&self) {
        self.0.look_again.store(true, Ordering::SeqCst);
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let mut state = self.desk.state();
        state.in_hand.remove(&self.id);
        state.put_down.insert(self.id, Instant::now());
        if self.look_again.load(Ordering::SeqCst) {
            self.desk.look.give();
        }
    }
}

impl Desk {
    /// Takes an instance in hand for a task, unless it is in hand or at rest after failing at that task.
    pub(crate) fn take(self: &Arc<Self>, id: InstanceId, task: Option<Task>) -> Option<Ticket> {
        let mut state = self.state();
        if state.in_hand.contains_key(&id) {
            return None;
        }
        if state.at_rest.get(&id).is_some_and(|rest| rest.task == task && rest.until > Instant::now()) {
            return None;
        }
        let hand =
            Arc::new(Hand { id, desk: Arc::clone(self), news: Notify::new(), look_again: AtomicBool::new(false) });
        state.in_hand.insert(id, Arc::downgrade(&hand));
        Some(Ticket(hand))
    }

    /// Tells of news: whoever has one of these in hand, and whoever waits to look.
    pub(crate) fn tell(&self, ids: impl IntoIterator<Item = InstanceId>) {
        let hands: Vec<Arc<Hand>> = {
            let state = self.state();
            ids.into_iter().filter_map(|id| state.in_hand.get(&id)?.upgrade()).collect()
        };
        for hand in hands {
            hand.look_again.store(true, Ordering::SeqCst);
            hand.news.notify_one();
        }
        self.look.give();
    }

    /// Given when the rows should be looked at.
    pub(crate) fn hint(&self) -> &Hint {
        &self.look
    }

    /// Lets an instance rest after it could not be worked on now, longer each time.
    pub(crate) fn rest(&self, id: InstanceId, task: Option<Task>) -> Duration {
        let mut state = self.state();
        let before = state.at_rest.get(&id).filter(|rest| rest.task == task).map(|rest| rest.length);
        let length = before.map_or(FIRST_REST, |length| (length * 2).min(LONGEST_REST));
        state.at_rest.insert(id, Rest { task, until: Instant::now() + length, length });
        length
    }

    /// Forgets that an instance had to rest.
    pub(crate) fn rested(&self, id: InstanceId) {
        self.state().at_rest.remove(&id);
    }

    /// Counts the instances in hand.
    pub(crate) fn in_hand(&self) -> usize {
        self.state().in_hand.len()
    }

    /// Lists the instances that are in hand or were since `then`. Whatever was seen of them meanwhile proves nothing.
    pub(crate) fn busy_since(&self, then: Instant) -> HashSet<InstanceId> {
        let mut state = self.state();
        let now = Instant::now();
        state.put_down.retain(|_, at| now.duration_since(*at) < REMEMBERED);
        state.at_rest.retain(|_, rest| now < rest.until + REMEMBERED);
        let put_down = state.put_down.iter().filter(|(_, at)| **at >= then).map(|(id, _)| *id);
        state.in_hand.keys().copied().chain(put_down).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: InstanceId = InstanceId::new(1);
    const BUILD: Option<Task> = Some(Task::Building);
    const END: Option<Task> = Some(Task::Terminating);

    #[tokio::test(start_paused = true)]
    async fn an_instance_is_in_one_hand_until_the_last_clone_is_dropped() {
        let desk = Arc::new(Desk::default());
        let ticket = desk.take(ONE, BUILD).unwrap();
        let clone = ticket.clone();
        assert!(desk.take(ONE, END).is_none());
        drop(ticket);
        assert!(desk.take(ONE, END).is_none());
        assert_eq!(desk.in_hand(), 1);
        let before = Instant::now();
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(clone);
        assert!(desk.busy_since(before).contains(&ONE));
        assert!(!desk.busy_since(Instant::now() + Duration::from_millis(1)).contains(&ONE));
        assert!(desk.take(ONE, END).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_grows_and_holds_only_for_the_task_that_failed() {
        let desk = Arc::new(Desk::default());
        let rests: Vec<u64> = (0..7).map(|_| desk.rest(ONE, BUILD).as_secs()).collect();
        assert_eq!(rests, [1, 2, 4, 8, 16, 30, 30]);
        assert!(desk.take(ONE, BUILD).is_none());
        assert!(desk.take(ONE, END).is_some());
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert!(desk.take(ONE, BUILD).is_some());
        desk.rested(ONE);
        assert_eq!(desk.rest(ONE, BUILD).as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn news_reach_whoever_has_the_instance_in_hand_and_make_somebody_look() {
        let desk = Arc::new(Desk::default());
        let ticket = desk.take(ONE, BUILD).unwrap();
        let (stop, begun) = (nova_service::Stop::new(), Instant::now());
        let looks = std::sync::atomic::AtomicU32::new(0);
        let looking = nova_service::Ticks::new("t", Duration::from_secs(1000)).hinted_by(desk.hint());
        let looking = looking.run(stop.clone(), || {
            looks.fetch_add(1, Ordering::SeqCst);
            async { Ok::<(), std::io::Error>(()) }
        });
        let telling = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            desk.tell([ONE, InstanceId::new(2)]);
            ticket.news().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(ticket);
            tokio::time::sleep(Duration::from_millis(1)).await;
            stop.cancel();
        };
        tokio::join!(looking, telling);
        assert_eq!((looks.load(Ordering::SeqCst), begun.elapsed().as_secs()), (3, 0));
    }
}
