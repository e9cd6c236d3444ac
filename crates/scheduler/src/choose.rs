//! Which host gets which instance. Pure: hosts as last seen in, a plan out.

use nova_types::service::{ComputeNode, Demand};
use nova_types::{HostName, InstanceId};

/// An instance that needs a host.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) instance: InstanceId,
    pub(crate) demand: Demand,
    pub(crate) place: Place,
}

/// Where an instance may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Anywhere.
    Any,
    /// To a host of this zone.
    Zone(String),
    /// To this host. Only administrators can ask for that; the API sees to it.
    Host(String),
}

impl Place {
    /// Reads what was asked for: `zone`, `zone:host` or nothing. As ever, the zone before a host does not count.
    pub(crate) fn read(asked: Option<&str>) -> Self {
        match asked.map(|asked| asked.split_once(':').ok_or(asked)) {
            None | Some(Err("")) => Self::Any,
            Some(Err(zone)) => Self::Zone(zone.to_owned()),
            Some(Ok((zone, ""))) => Self::read(Some(zone)),
            Some(Ok((_, host))) => Self::Host(host.to_owned()),
        }
    }

    fn allows(&self, node: &ComputeNode) -> bool {
        match self {
            Self::Any => true,
            Self::Zone(zone) => node.availability_zone == *zone,
            Self::Host(host) => node.host.as_str() == host,
        }
    }
}

/// What becomes of some wishes.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// For each host its new instances, in the order they were asked for.
    pub(crate) placed: Vec<(HostName, Vec<InstanceId>)>,
    /// Those that fit nowhere.
    pub(crate) unplaced: Vec<InstanceId>,
}

/// The hosts as last seen, less what was given out since.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    nodes: Vec<ComputeNode>,
}

impl Hosts {
    /// Keeps those that may get new instances. `max_cores` is the flag: vcpus in use at which a host is full, 0 for
    /// what it says of itself.
    pub(crate) fn new(mut nodes: Vec<ComputeNode>, max_cores: u32) -> Self {
        nodes.retain(|node| node.eligible);
        if max_cores > 0 {
            nodes.iter_mut().for_each(|node| node.vcpus = node.vcpus.min(max_cores));
        }
        Self { nodes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Finds a host for each wish: the one with the fewest vcpus in use of those with room, as the first Nova's simple
    /// scheduler did; among equals the one with most memory left. What is given out counts at once.
    pub(crate) fn plan(&mut self, wishes: &[Wish]) -> Plan {
        let mut plan = Plan::default();
        let mut at: Vec<Option<usize>> = vec![None; self.nodes.len()];
        for wish in wishes {
            let Some(index) = self.best(wish) else {
                plan.unplaced.push(wish.instance);
                continue;
            };
            let node = &mut self.nodes[index];
            take(node, wish.demand);
            match at[index] {
                Some(place) => plan.placed[place].1.push(wish.instance),
                None => {
                    at[index] = Some(plan.placed.len());
                    plan.placed.push((node.host.clone(), vec![wish.instance]));
                }
            }
        }
        plan
    }

    fn best(&self, wish: &Wish) -> Option<usize> {
        let fit = |node: &ComputeNode| wish.place.allows(node) && node.room_for(wish.demand) > 0;
        let candidates = self.nodes.iter().enumerate().filter(|(_, node)| fit(node));
        let order = |node: &ComputeNode| {
            (node.vcpus_used, std::cmp::Reverse(node.memory_mb.saturating_sub(node.memory_mb_used)))
        };
        candidates.min_by_key(|(_, node)| order(node)).map(|(index, _)| index)
    }
}

fn take(node: &mut ComputeNode, demand: Demand) {
    node.vcpus_used += demand.vcpus;
    node.memory_mb_used += demand.memory_mb;
    node.local_gb_used += demand.local_gb;
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::fmt::Write;

    fn node(host: &str, zone: &str, vcpus_used: u32) -> ComputeNode {
        ComputeNode {
            host: host.parse().unwrap(),
            availability_zone: zone.to_owned(),
            memory_mb: 8192,
            memory_mb_used: 0,
            vcpus: 8,
            vcpus_used,
            local_gb: 100,
            local_gb_used: 0,
            hypervisor_type: "simulated".to_owned(),
            eligible: true,
        }
    }

    const SMALL: Demand = Demand { memory_mb: 2048, vcpus: 1, local_gb: 20 };

    fn check(hosts: Vec<ComputeNode>, max_cores: u32, wishes: &[(Demand, &str)], expected: Expect) {
        let wishes: Vec<Wish> = (1..)
            .zip(wishes)
            .map(|(id, (demand, place))| Wish {
                instance: InstanceId::new(id),
                demand: *demand,
                place: Place::read(Some(place)),
            })
            .collect();
        let plan = Hosts::new(hosts, max_cores).plan(&wishes);
        let mut text = String::new();
        let list = |ids: &[InstanceId]| ids.iter().map(|id| format!("{:x}", id.number())).collect::<Vec<_>>().join(" ");
        for (host, ids) in &plan.placed {
            let _ = write!(text, "{host}: {}; ", list(ids));
        }
        let _ = write!(text, "nowhere: {}", list(&plan.unplaced));
        expected.assert_eq(&text);
    }

    #[test]
    fn the_least_used_host_is_taken_and_a_batch_spreads() {
        let hosts = || vec![node("a", "nova", 2), node("b", "nova", 0)];
        check(hosts(), 0, &[(SMALL, ""); 5], expect!["b: 1 2 4; a: 3 5; nowhere: "]);
    }

    #[test]
    fn memory_vcpus_and_disk_all_count() {
        let host = || vec![node("a", "nova", 0)];
        check(host(), 0, &[(SMALL, ""); 6], expect!["a: 1 2 3 4; nowhere: 5 6"]);
        let tall = Demand { memory_mb: 1, vcpus: 5, local_gb: 0 };
        check(host(), 0, &[(tall, ""), (tall, ""), (SMALL, "")], expect!["a: 1 3; nowhere: 2"]);
        let wide = Demand { memory_mb: 1, vcpus: 1, local_gb: 101 };
        check(host(), 0, &[(wide, "")], expect!["nowhere: 1"]);
        check(host(), 2, &[(SMALL, ""); 3], expect!["a: 1 2; nowhere: 3"]);
    }

    #[test]
    fn a_zone_or_a_host_that_was_asked_for_is_kept() {
        let hosts = || vec![node("a", "north", 0), node("b", "south", 5)];
        check(
            hosts(),
            0,
            &[(SMALL, "south"), (SMALL, "north:b"), (SMALL, "south:"), (SMALL, "west"), (SMALL, "x:c")],
            expect!["b: 1 2 3; nowhere: 4 5"],
        );
    }

    #[test]
    fn a_host_that_is_down_or_disabled_gets_nothing() {
        let down = ComputeNode { eligible: false, ..node("a", "nova", 0) };
        check(vec![down, node("b", "nova", 7)], 0, &[(SMALL, ""), (SMALL, "nova:a")], expect!["b: 1; nowhere: 2"]);
    }

    #[test]
    fn of_equally_used_hosts_the_one_with_more_memory_is_taken() {
        let full = ComputeNode { memory_mb_used: 4096, ..node("a", "nova", 1) };
        check(vec![full, node("b", "nova", 1)], 0, &[(SMALL, "")], expect!["b: 1; nowhere: "]);
    }
}
