//! Failures on demand: the next few calls, or a share of all, by a seed.

use std::collections::{HashMap, VecDeque};

use nova_types::InstanceId;

use crate::HypervisorError;

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`ensure_running`](crate::Hypervisor::ensure_running), also as the second half of a reboot.
    EnsureRunning,
    /// [`stop`](crate::Hypervisor::stop), also as the first half of a reboot.
    Stop,
    /// [`reboot`](crate::Hypervisor::reboot).
    Reboot,
    /// [`destroy`](crate::Hypervisor::destroy).
    Destroy,
    /// [`list`](crate::Hypervisor::list).
    List,
    /// [`console`](crate::Hypervisor::console).
    Console,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The hypervisor cannot be asked.
    Unreachable,
    /// The hypervisor refuses.
    Refused,
}

impl Fault {
    pub(crate) fn error(self, call: Call, id: InstanceId) -> HypervisorError {
        let verb = match call {
            Call::EnsureRunning => "boot",
            Call::Stop => "stop",
            Call::Reboot => "reboot",
            Call::Destroy => "destroy",
            Call::List => "list",
            Call::Console => "read the console of",
        };
        match self {
            Self::Unreachable => HypervisorError::unreachable("simulated: it does not answer"),
            Self::Refused => HypervisorError::Refused { verb, id, reason: "simulated: it refuses".to_owned() },
        }
    }
}

#[derive(Debug)]
pub(crate) struct Faults {
    next: HashMap<Call, VecDeque<Fault>>,
    often: HashMap<Call, (Fault, u32)>,
    random: u64,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { next: HashMap::new(), often: HashMap::new(), random: seed }
    }

    pub(crate) fn next(&mut self, call: Call, fault: Fault, times: u32) {
        self.next.entry(call).or_default().extend((0..times).map(|_| fault));
    }

    pub(crate) fn often(&mut self, call: Call, fault: Fault, per_mille: u32) {
        self.often.insert(call, (fault, per_mille));
    }

    /// Decides whether this call fails.
    pub(crate) fn draw(&mut self, call: Call) -> Option<Fault> {
        if let Some(fault) = self.next.get_mut(&call).and_then(VecDeque::pop_front) {
            return Some(fault);
        }
        let (fault, per_mille) = *self.often.get(&call)?;
        (self.roll() % 1000 < u64::from(per_mille)).then_some(fault)
    }

    /// SplitMix64: repeatable, and good enough for a lottery.
    fn roll(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_fails_the_same_calls_and_about_as_many_as_asked() {
        let run = |seed| {
            let mut faults = Faults::new(seed);
            faults.often(Call::Stop, Fault::Refused, 250);
            (0..1000).map(|_| faults.draw(Call::Stop).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let failed = run(1).into_iter().filter(|failed| *failed).count();
        assert!((200..300).contains(&failed), "{failed}");
    }
}
