//! Hosts in the order in which they are taken, so that a choice does not look at all of them.

use std::collections::BTreeSet;
use std::ops::Bound;

use nova_types::service::{ComputeNode, Demand};

/// How many hosts are drawn before a choice by chance goes by order instead: then nearly all are full.
const DRAWS: u32 = 32;

/// Which of the hosts with room is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The one with the fewest vcpus in use; among equals the one with most memory left.
    Spread,
    /// The one with the fewest vcpus left; among equals the one with least memory left.
    Fill,
    /// Any.
    Chance,
}

/// Where a host stands: two words by the policy, and its place in the table.
type Key = (u32, u32, usize);

/// Some hosts in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// Those with a vcpu and a MiB left; every instance takes some of both.
    keys: BTreeSet<Key>,
    /// All, for drawing.
    members: Vec<usize>,
}

impl Order {
    pub(crate) fn join(&mut self, policy: Policy, index: usize, node: &ComputeNode) {
        self.members.push(index);
        self.enter(policy, index, node);
    }

    pub(crate) fn leave(&mut self, policy: Policy, index: usize, node: &ComputeNode) {
        if let Some(at) = self.members.iter().position(|member| *member == index) {
            self.members.swap_remove(at);
        }
        self.withdraw(policy, index, node);
    }

    pub(crate) fn enter(&mut self, policy: Policy, index: usize, node: &ComputeNode) {
        if vcpus_left(node) > 0 && memory_left(node) > 0 {
            self.keys.insert(key(policy, index, node));
        }
    }

    pub(crate) fn withdraw(&mut self, policy: Policy, index: usize, node: &ComputeNode) {
        self.keys.remove(&key(policy, index, node));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Finds the host to take. `node` gives the host at a place in the table, `draw` a number below the one given.
    pub(crate) fn best<'a>(
        &self,
        policy: Policy,
        demand: Demand,
        node: impl Fn(usize) -> &'a ComputeNode,
        mut draw: impl FnMut(usize) -> usize,
    ) -> Option<usize> {
        if policy == Policy::Chance && !self.keys.is_empty() {
            let drawn = (0..DRAWS).map(|_| self.members[draw(self.members.len())]);
            if let Some(found) = drawn.into_iter().find(|index| node(*index).room_for(demand) > 0) {
                return Some(found);
            }
        }
        let mut from = match policy {
            Policy::Spread | Policy::Chance => Bound::Unbounded,
            Policy::Fill => Bound::Included((demand.vcpus, 0, 0)),
        };
        // All hosts of one first word stand together, by memory: those with too little are passed over at once.
        loop {
            let found = *self.keys.range((from, Bound::Unbounded)).next()?;
            let host = node(found.2);
            let short = memory_left(host) < demand.memory_mb;
            from = match policy {
                _ if !short && host.room_for(demand) > 0 => return Some(found.2),
                Policy::Spread | Policy::Chance if short => Bound::Excluded((found.0, u32::MAX, usize::MAX)),
                Policy::Fill if short => Bound::Included((found.0, demand.memory_mb, 0)),
                _ => Bound::Excluded(found),
            };
        }
    }
}

fn key(policy: Policy, index: usize, node: &ComputeNode) -> Key {
    match policy {
        Policy::Spread | Policy::Chance => (node.vcpus_used, u32::MAX - memory_left(node), index),
        Policy::Fill => (vcpus_left(node), memory_left(node), index),
    }
}

fn vcpus_left(node: &ComputeNode) -> u32 {
    node.vcpus.saturating_sub(node.vcpus_used)
}

fn memory_left(node: &ComputeNode) -> u32 {
    node.memory_mb.saturating_sub(node.memory_mb_used)
}
