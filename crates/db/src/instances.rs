//! Instances: launched in batches, found by who must act, moved on by conditional updates.

mod change;
mod create;
mod evacuate;
mod finish;
mod read;

#[cfg(test)]
mod tests;

use nova_types::instance::Instance;
use nova_types::state::State;

pub use change::{apply, apply_all, place, place_all, request, waiting};
pub use create::{create, insert_batch, macs_in_use};
pub use evacuate::{Evacuated, evacuate};
pub use finish::{Released, cleaned, expire, fail, finish_terminate};
pub use read::{
    Due, describe, due_of, due_on_host, due_scheduler, get, hosts_with_tasks, images_in_use, living, of_reservation,
    on_host, page,
};

/// What the writer believes of a row. A row that is different has moved on, and nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The two words as read.
    pub state: State,
    /// The epoch as read: another host has taken over since if it differs.
    pub epoch: i32,
}

impl Guard {
    /// The guard of an instance as it was read.
    #[must_use]
    pub fn of(instance: &Instance) -> Self {
        Self { state: instance.state, epoch: instance.epoch }
    }
}

/// Rows that hold capacity and quota: all but those that are over and cleaned up. `i` is the instance.
macro_rules! holding {
    () => {
        "i.deleted = false and i.vm_state <> 'terminated' and (i.vm_state <> 'error' or i.task_state is not null)"
    };
}
pub(crate) use holding;
