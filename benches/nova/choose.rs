//! Choosing a host among 10,000, as a scheduler does between two transactions; a scan of all of them is the peer.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nova_db::compute_nodes::{Daemon, Snapshot};
use nova_scheduler::{Hosts, Place, Policy, Rules, Wish};
use nova_types::InstanceId;
use nova_types::service::{ComputeNode, Demand};

use crate::measure::Sample;

const HOSTS: u32 = 10_000;
const ROUNDS: u32 = 200;
/// Decisions made with one clock reading.
const DECISIONS: u32 = 50;
const SMALL: Demand = Demand { memory_mb: 2048, vcpus: 1, local_gb: 20 };

pub(crate) fn bench() {
    let usual = hosts(|n| n % 13);
    // All but the last host have a vcpu left and no memory for the wish: whoever looks at each of them is slow.
    let mut nearly_full = hosts(|n| n % 13);
    nearly_full.iter_mut().take(9_999).for_each(|node| node.memory_mb_used = node.memory_mb - 1024);
    for (cloud, nodes) in [("usual", usual), ("nearly full", nearly_full)] {
        let mut scan = Sample::default();
        for _ in 0..ROUNDS {
            scan.time_many(DECISIONS, || scanned(&nodes));
        }
        println!("  {:<34} {scan}", format!("{cloud}: scan (peer)"));
        for policy in [Policy::Spread, Policy::Fill, Policy::Chance] {
            let took = decisions(policy, &nodes);
            println!("  {:<34} {took}  = {:.3} scans", format!("{cloud}: {policy:?}"), took.ratio(scan.median()));
        }
    }
}

/// Decides again and again, each time with what was decided before.
fn decisions(policy: Policy, nodes: &[ComputeNode]) -> Sample {
    let now = Instant::now();
    let all = nodes.iter().map(|node| (node.clone(), Daemon::Enabled { silent_seconds: 1 })).collect();
    let mut table = Hosts::new(Rules { policy, max_cores: 0, down_after: Duration::from_secs(60) });
    table.update(Snapshot { at: None, nodes: all }, now);
    let wish = Wish { instance: InstanceId::new(1), demand: SMALL, place: Place::Any };
    let mut took = Sample::default();
    for _ in 0..ROUNDS {
        let mut fresh = table.clone();
        let began = Instant::now();
        for _ in 0..DECISIONS {
            black_box(fresh.plan(std::slice::from_ref(&wish), now));
        }
        took.push(began.elapsed() / DECISIONS);
    }
    took
}

/// What the choice would be without any order.
fn scanned(nodes: &[ComputeNode]) -> Option<usize> {
    let fit = nodes.iter().enumerate().filter(|(_, node)| node.room_for(SMALL) > 0);
    fit.min_by_key(|(_, node)| (node.vcpus_used, u32::MAX - (node.memory_mb - node.memory_mb_used))).map(|(at, _)| at)
}

fn hosts(vcpus_used: impl Fn(u32) -> u32) -> Vec<ComputeNode> {
    let node = |n: u32| {
        Some(ComputeNode {
            host: format!("host-{n}").parse().ok()?,
            availability_zone: format!("zone-{}", n % 4),
            memory_mb: 65_536,
            memory_mb_used: vcpus_used(n) * 4096,
            vcpus: 16,
            vcpus_used: vcpus_used(n),
            local_gb: 1000,
            local_gb_used: 0,
            hypervisor_type: "simulated".to_owned(),
            eligible: true,
        })
    };
    (0..HOSTS).filter_map(node).collect()
}
