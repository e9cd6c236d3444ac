//! The instances that messages named: looked at at once, and by the scheduler that got the message.

use std::sync::{Arc, Mutex, PoisonError};

use nova_service::Hint;
use nova_types::InstanceId;

/// More than so many are not remembered: the next tick finds them.
const MOST: usize = 10_000;

/// Where messages put what they name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inbox {
    waiting: Arc<Mutex<Vec<InstanceId>>>,
    hint: Hint,
}

impl Inbox {
    /// Notes some instances and makes the scheduler look.
    pub(crate) fn put(&self, ids: impl IntoIterator<Item = InstanceId>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST.saturating_sub(waiting.len());
        waiting.extend(ids.into_iter().take(room));
        drop(waiting);
        self.hint.give();
    }

    /// Takes all that was noted, each once, in the order of ids.
    pub(crate) fn take(&self) -> Vec<InstanceId> {
        let mut taken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        taken.sort_unstable();
        taken.dedup();
        taken
    }

    pub(crate) fn hint(&self) -> &Hint {
        &self.hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_given_out_once_and_too_many_are_left_to_the_tick() {
        let inbox = Inbox::default();
        inbox.put([3, 1, 3].map(InstanceId::new));
        inbox.put([2].map(InstanceId::new));
        assert_eq!(inbox.take(), [1, 2, 3].map(InstanceId::new));
        assert_eq!(inbox.take(), []);
        inbox.put((0..20_000).map(InstanceId::new));
        assert_eq!(inbox.take().len(), MOST);
    }
}
