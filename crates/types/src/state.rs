//! The life of an instance: what the user sees, who must act, and every way from one state to the next.
//!
//! Design §5. Nothing else in Nova decides what may follow what.

/// What the user sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VmState {
    /// On the way to running, for the first time or again.
    Pending,
    /// The guest runs.
    Running,
    /// On the way to being powered off.
    Stopping,
    /// Powered off; its disk, address and capacity are kept.
    Stopped,
    /// On the way to being destroyed.
    ShuttingDown,
    /// Destroyed; the row is shown for an hour.
    Terminated,
    /// Could not be made. EC2 has no such state: it is shown as terminated, with the reason.
    Error,
}

impl VmState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Running,
        Self::Stopping,
        Self::Stopped,
        Self::ShuttingDown,
        Self::Terminated,
        Self::Error,
    ];

    /// Returns the word kept in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            other => other.ec2_name(),
        }
    }

    /// Reads the word kept in the database.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Returns EC2's `instanceState/code`.
    #[must_use]
    pub const fn ec2_code(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated | Self::Error => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }

    /// Returns EC2's `instanceState/name`.
    #[must_use]
    pub const fn ec2_name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated | Self::Error => "terminated",
        }
    }

    /// Returns the number that Bexar kept in `instances.state` (nova-core §5.2), for old readers.
    #[must_use]
    pub const fn bexar_power_state(self) -> i32 {
        match self {
            Self::Running => 1,
            Self::Pending | Self::Stopping | Self::ShuttingDown => 0,
            Self::Stopped | Self::Terminated => 5,
            Self::Error => 8,
        }
    }

    /// Tells whether the instance is over: it holds nothing and cannot come back.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Terminated | Self::Error)
    }
}

/// The work that is under way, and so who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// A host is to be found.
    Scheduling,
    /// The guest is to be made on its host.
    Building,
    /// The guest is to be restarted.
    Rebooting,
    /// The guest is to be powered off.
    Stopping,
    /// The guest is to be powered on.
    Starting,
    /// The guest is to be destroyed.
    Terminating,
    /// What a failed launch left is to be removed.
    Cleaning,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 7] = [
        Self::Scheduling,
        Self::Building,
        Self::Rebooting,
        Self::Stopping,
        Self::Starting,
        Self::Terminating,
        Self::Cleaning,
    ];

    /// Returns the word kept in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduling => "scheduling",
            Self::Building => "building",
            Self::Rebooting => "rebooting",
            Self::Stopping => "stopping",
            Self::Starting => "starting",
            Self::Terminating => "terminating",
            Self::Cleaning => "cleaning",
        }
    }

    /// Reads the word kept in the database.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.as_str() == word)
    }
}

/// Something that happened, or that a user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A host was chosen, capacity and address taken.
    Placed,
    /// No host or no address was to be had.
    NotPlaced,
    /// The guest runs.
    Booted,
    /// The guest could not be made, or not be started again.
    Failed,
    /// The remains of a failed launch are gone.
    Cleaned,
    /// The user asked for a restart.
    Reboot,
    /// The guest was restarted.
    Rebooted,
    /// The user asked to power off.
    Stop,
    /// The guest is off, asked for or not.
    Halted,
    /// The user asked to power on.
    Start,
    /// The same of an instance that has no host any more.
    StartAnew,
    /// The user asked to destroy.
    Terminate,
    /// The guest and all it had on its host are gone.
    Gone,
    /// An administrator took it from its host, which is gone.
    Evacuated,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 14] = [
        Self::Placed,
        Self::NotPlaced,
        Self::Booted,
        Self::Failed,
        Self::Cleaned,
        Self::Reboot,
        Self::Rebooted,
        Self::Stop,
        Self::Halted,
        Self::Start,
        Self::StartAnew,
        Self::Terminate,
        Self::Gone,
        Self::Evacuated,
    ];
}

/// An instance's two words together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// What the user sees.
    pub vm: VmState,
    /// The work under way, if any.
    pub task: Option<Task>,
}

impl State {
    /// Every instance begins so.
    pub const FIRST: Self = Self { vm: VmState::Pending, task: Some(Task::Scheduling) };

    /// Puts the two words together.
    #[must_use]
    pub const fn new(vm: VmState, task: Option<Task>) -> Self {
        Self { vm, task }
    }

    /// Returns the state after `event`, or `None` where `event` is not allowed.
    #[must_use]
    #[rustfmt::skip]
    pub const fn after(self, event: Event) -> Option<Self> {
        use Event as E;
        use VmState::{Error, Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
        let (vm, next) = match (self.vm, self.task, event) {
            (Pending,      Some(Task::Scheduling),  E::Placed)    => (Pending,      Some(Task::Building)),
            (Pending,      Some(Task::Scheduling),  E::NotPlaced) => (Error,        None),
            (Pending,      Some(Task::Building),    E::Booted)    => (Running,      None),
            (Pending,      Some(Task::Building),    E::Failed)    => (Error,        Some(Task::Cleaning)),
            (Error,        Some(Task::Cleaning),    E::Cleaned)   => (Error,        None),
            (Running,      None,                    E::Reboot)    => (Running,      Some(Task::Rebooting)),
            (Running,      Some(Task::Rebooting),   E::Reboot)    => (Running,      Some(Task::Rebooting)),
            (Running,      Some(Task::Rebooting),   E::Rebooted)  => (Running,      None),
            (Running,      Some(Task::Rebooting),   E::Failed)    => (Stopped,      None),
            (Running,      _,                       E::Stop)      => (Stopping,     Some(Task::Stopping)),
            (Running,      None,                    E::Halted)    => (Stopped,      None),
            (Stopping,     Some(Task::Stopping),    E::Stop)      => (Stopping,     Some(Task::Stopping)),
            (Stopping,     Some(Task::Stopping),    E::Halted)    => (Stopped,      None),
            (Stopped,      None,                    E::Stop)      => (Stopped,      None),
            (Stopped,      None,                    E::Start)     => (Pending,      Some(Task::Starting)),
            (Pending,      Some(Task::Starting),    E::Start)     => (Pending,      Some(Task::Starting)),
            (Running,      None,                    E::Start)     => (Running,      None),
            (Stopped,      None,                    E::StartAnew) => (Pending,      Some(Task::Scheduling)),
            (Pending,      Some(Task::Starting),    E::Booted)    => (Running,      None),
            (Pending,      Some(Task::Starting),    E::Failed)    => (Stopped,      None),
            (Pending,      Some(Task::Starting),    E::Stop)      => (Stopping,     Some(Task::Stopping)),
            (Pending | Running | Stopping | Stopped, _, E::Terminate) => (ShuttingDown, Some(Task::Terminating)),
            (Error,        Some(Task::Cleaning),    E::Terminate) => (ShuttingDown, Some(Task::Terminating)),
            (Error,        None,                    E::Terminate) => (Terminated,   None),
            (ShuttingDown, Some(Task::Terminating), E::Terminate) => (ShuttingDown, Some(Task::Terminating)),
            (ShuttingDown, Some(Task::Terminating), E::Gone)      => (Terminated,   None),
            (Terminated,   None,                    E::Terminate) => (Terminated,   None),
            (Pending,      Some(Task::Building | Task::Starting), E::Evacuated) => (Pending, Some(Task::Scheduling)),
            (Running,      _,                       E::Evacuated) => (Pending,      Some(Task::Scheduling)),
            (Stopping | Stopped, _,                 E::Evacuated) => (Stopped,      None),
            (ShuttingDown, Some(Task::Terminating), E::Evacuated) => (ShuttingDown, Some(Task::Terminating)),
            (Error,        Some(Task::Cleaning),    E::Evacuated) => (Error,        None),
            _ => return None,
        };
        Some(Self { vm, task: next })
    }

    /// Returns the text that Bexar kept in `instances.state_description` (nova-core §5.2), for old readers.
    #[must_use]
    pub const fn bexar_description(self) -> &'static str {
        match (self.vm, self.task) {
            (_, Some(Task::Scheduling)) => "scheduling",
            (_, Some(Task::Building)) => "spawning",
            (_, Some(Task::Rebooting)) => "rebooting",
            (_, Some(Task::Terminating)) => "terminating",
            (VmState::Error, _) => "failed to spawn",
            (VmState::Stopped, None) => "shutdown",
            (vm, _) => vm.ec2_name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the table from the first state; what it cannot reach does not exist.
    fn reachable() -> Vec<State> {
        let mut seen = vec![State::FIRST];
        let mut next = 0;
        while let Some(&state) = seen.get(next) {
            next += 1;
            for after in Event::ALL.into_iter().filter_map(|event| state.after(event)) {
                if !seen.contains(&after) {
                    seen.push(after);
                }
            }
        }
        seen
    }

    #[test]
    fn words_are_read_back() {
        for state in VmState::ALL {
            assert_eq!(VmState::from_word(state.as_str()), Some(state));
        }
        for task in Task::ALL {
            assert_eq!(Task::from_word(task.as_str()), Some(task));
        }
    }

    #[test]
    fn every_instance_can_be_terminated_from_wherever_it_is() {
        for state in reachable() {
            assert!(state.after(Event::Terminate).is_some(), "{state:?}");
        }
    }

    #[test]
    fn every_task_ends() {
        for state in reachable().into_iter().filter(|state| state.task.is_some()) {
            let done =
                Event::ALL.into_iter().filter_map(|event| state.after(event)).any(|next| next.task != state.task);
            assert!(done, "{state:?}");
        }
    }

    #[test]
    fn what_is_over_stays_over() {
        for event in Event::ALL {
            let after = State::new(VmState::Terminated, None).after(event);
            assert!(after.is_none_or(|state| state.vm == VmState::Terminated), "{event:?}");
        }
    }

    #[test]
    fn the_table_is_this() {
        let mut lines: Vec<String> = Vec::new();
        for state in reachable() {
            for event in Event::ALL {
                if let Some(next) = state.after(event) {
                    lines.push(format!("{} + {event:?} = {}", show(state), show(next)));
                }
            }
        }
        expect_test::expect_file!["state/table.txt"].assert_eq(&(lines.join("\n") + "\n"));
    }

    fn show(state: State) -> String {
        match state.task {
            Some(task) => format!("{}/{}", state.vm.as_str(), task.as_str()),
            None => state.vm.as_str().to_owned(),
        }
    }
}
