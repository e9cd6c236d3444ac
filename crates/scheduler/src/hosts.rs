//! The compute hosts as last seen, less what was given out since: kept in memory, changed where a row changed.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use nova_db::compute_nodes::{Daemon, Snapshot};
use nova_types::HostName;
use nova_types::service::{ComputeNode, Demand};
use rand::RngExt as _;

use crate::choose::{Place, Plan, Why, Wish};
use crate::order::{Order, Policy};

/// How hosts are judged.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Which of those with room is taken.
    pub policy: Policy,
    /// Vcpus in use at which a host is full; 0 for what it says of itself.
    pub max_cores: u32,
    /// How long a host may be silent and still get instances.
    pub down_after: Duration,
}

/// The table of hosts.
#[derive(Clone, Debug)]
pub struct Hosts {
    rules: Rules,
    known: Vec<Known>,
    by_name: HashMap<String, usize>,
    /// Those that get instances: all under no name, and each zone's under the zone's.
    orders: HashMap<Option<String>, Order>,
    /// When each of them will have been silent for too long, by the monotonic clock.
    ends: BTreeSet<(Instant, usize)>,
}

#[derive(Clone, Debug)]
struct Known {
    node: ComputeNode,
    standing: Standing,
}

/// Whether a host gets instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Gone,
    Disabled,
    Silent,
    /// While it does not fall silent.
    UpUntil(Instant),
}

impl Hosts {
    /// Knows no host.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, known: Vec::new(), by_name: HashMap::new(), orders: HashMap::new(), ends: BTreeSet::new() }
    }

    /// Takes all that was read for what there is: a host that is not in it is gone.
    pub fn replace(&mut self, all: Snapshot, read: Instant) {
        *self = Self::new(self.rules);
        self.update(all, read);
    }

    /// Takes over what was read at `read`; other hosts stay as they are.
    pub fn update(&mut self, changed: Snapshot, read: Instant) {
        for (node, daemon) in changed.nodes {
            self.set(node, daemon, read);
        }
    }

    /// Forgets a host whose row is gone.
    pub(crate) fn forget(&mut self, host: &HostName) {
        if let Some(&index) = self.by_name.get(host.as_str()) {
            self.leave(index);
            self.known[index].standing = Standing::Gone;
        }
    }

    /// Tells whether no host at all gets instances at `now`.
    pub(crate) fn is_empty(&mut self, now: Instant) -> bool {
        self.let_go_of_silent(now);
        self.orders.get(&None).is_none_or(Order::is_empty)
    }

    /// Finds a host for each wish. What is given out counts at once.
    pub fn plan(&mut self, wishes: &[Wish], now: Instant) -> Plan {
        self.let_go_of_silent(now);
        let mut plan = Plan::default();
        let mut shares: HashMap<usize, usize> = HashMap::new();
        // What fits nowhere does not fit later in the same plan either, for nothing is given back in it.
        let mut hopeless: Vec<(&Place, Demand)> = Vec::new();
        for wish in wishes {
            let same = |(place, demand): &(&Place, Demand)| *place == &wish.place && *demand == wish.demand;
            let found = if hopeless.iter().any(same) { None } else { self.best(wish) };
            let Some(index) = found else {
                if !hopeless.iter().any(same) {
                    hopeless.push((&wish.place, wish.demand));
                }
                plan.unplaced.push((wish.instance, self.why(&wish.place)));
                continue;
            };
            self.take(index, wish.demand);
            let share = *shares.entry(index).or_insert(plan.placed.len());
            match plan.placed.get_mut(share) {
                Some((_, ids)) => ids.push(wish.instance),
                None => plan.placed.push((self.known[index].node.host.clone(), vec![wish.instance])),
            }
        }
        plan
    }

    fn best(&self, wish: &Wish) -> Option<usize> {
        let node = |index: usize| &self.known[index].node;
        let fits = |index: &usize| {
            matches!(self.known[*index].standing, Standing::UpUntil(_)) && node(*index).room_for(wish.demand) > 0
        };
        let order = match &wish.place {
            Place::Any => self.orders.get(&None),
            Place::Zone(zone) => self.orders.get(&Some(zone.clone())),
            Place::Host(host) => return self.by_name.get(host.as_str()).copied().filter(fits),
        };
        order?.best(self.rules.policy, wish.demand, node, |below| rand::rng().random_range(0..below))
    }

    /// Says why a wish for a place could not be fulfilled.
    fn why(&self, place: &Place) -> Why {
        let Place::Host(host) = place else { return Why::Full };
        match self.by_name.get(host.as_str()).map(|index| self.known[*index].standing) {
            None | Some(Standing::Gone) => Why::NoSuchHost,
            Some(Standing::Disabled) => Why::Disabled,
            Some(Standing::Silent) => Why::Silent,
            Some(Standing::UpUntil(_)) => Why::Full,
        }
    }

    fn set(&mut self, mut node: ComputeNode, daemon: Daemon, read: Instant) {
        if self.rules.max_cores > 0 {
            node.vcpus = node.vcpus.min(self.rules.max_cores);
        }
        let standing = match daemon {
            Daemon::Disabled => Standing::Disabled,
            Daemon::Unknown => Standing::Silent,
            Daemon::Enabled { silent_seconds } => {
                let silent = Duration::from_secs(u64::try_from(silent_seconds).unwrap_or(0));
                // A whole second more: the database counts whole ones.
                let left = (self.rules.down_after + Duration::from_secs(1)).checked_sub(silent);
                left.filter(|left| !left.is_zero()).map_or(Standing::Silent, |left| Standing::UpUntil(read + left))
            }
        };
        let index = match self.by_name.get(node.host.as_str()) {
            Some(&index) => {
                self.leave(index);
                self.known[index] = Known { node, standing };
                index
            }
            None => {
                let index = self.known.len();
                self.by_name.insert(node.host.to_string(), index);
                self.known.push(Known { node, standing });
                index
            }
        };
        if let Standing::UpUntil(end) = standing {
            let node = &self.known[index].node;
            for name in [None, Some(node.availability_zone.clone())] {
                self.orders.entry(name).or_default().join(self.rules.policy, index, node);
            }
            self.ends.insert((end, index));
        }
    }

    /// Takes a host out of all orders.
    fn leave(&mut self, index: usize) {
        let Known { node, standing: Standing::UpUntil(end) } = &self.known[index] else { return };
        for name in [None, Some(node.availability_zone.clone())] {
            if let Some(order) = self.orders.get_mut(&name) {
                order.leave(self.rules.policy, index, node);
            }
        }
        self.ends.remove(&(*end, index));
    }

    fn let_go_of_silent(&mut self, now: Instant) {
        while let Some(&(end, index)) = self.ends.first()
            && end <= now
        {
            self.leave(index);
            self.known[index].standing = Standing::Silent;
        }
    }

    fn take(&mut self, index: usize, demand: Demand) {
        self.change(index, |node| {
            node.vcpus_used = node.vcpus_used.saturating_add(demand.vcpus);
            node.memory_mb_used = node.memory_mb_used.saturating_add(demand.memory_mb);
            node.local_gb_used = node.local_gb_used.saturating_add(demand.local_gb);
        });
    }

    /// Changes what is in use on a host, and with it its place in the orders.
    fn change(&mut self, index: usize, change: impl FnOnce(&mut ComputeNode)) {
        let policy = self.rules.policy;
        let up = matches!(self.known[index].standing, Standing::UpUntil(_));
        let names = [None, Some(self.known[index].node.availability_zone.clone())];
        let node = &mut self.known[index].node;
        for order in names.iter().filter(|_| up) {
            if let Some(order) = self.orders.get_mut(order) {
                order.withdraw(policy, index, node);
            }
        }
        change(node);
        for order in names.iter().filter(|_| up) {
            if let Some(order) = self.orders.get_mut(order) {
                order.enter(policy, index, node);
            }
        }
    }
}

#[cfg(test)]
mod tests;
