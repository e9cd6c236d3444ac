//! Choices, told as texts.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use nova_types::InstanceId;

use super::*;

const UP: Daemon = Daemon::Enabled { silent_seconds: 3 };
const SMALL: Demand = Demand { memory_mb: 2048, vcpus: 1, local_gb: 20 };
const SPREAD: Rules = Rules { policy: Policy::Spread, max_cores: 0, down_after: Duration::from_secs(60) };
const FILL: Rules = Rules { policy: Policy::Fill, ..SPREAD };
const CHANCE: Rules = Rules { policy: Policy::Chance, ..SPREAD };

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

fn hosts(rules: Rules, nodes: impl IntoIterator<Item = (ComputeNode, Daemon)>, read: Instant) -> Hosts {
    let mut hosts = Hosts::new(rules);
    hosts.update(Snapshot { at: None, nodes: nodes.into_iter().collect() }, read);
    hosts
}

fn wishes(wishes: &[(Demand, &str)]) -> Vec<Wish> {
    let wish = |(id, (demand, place)): (u32, &(Demand, &str))| Wish {
        instance: InstanceId::new(id),
        demand: *demand,
        place: Place::read(Some(place)),
    };
    (1..).zip(wishes).map(wish).collect()
}

/// Plans, and tells who went where.
fn told(hosts: &mut Hosts, wanted: &[(Demand, &str)], now: Instant) -> String {
    let plan = hosts.plan(&wishes(wanted), now);
    let mut text = String::new();
    for (host, ids) in &plan.placed {
        let ids: Vec<String> = ids.iter().map(|id| format!("{:x}", id.number())).collect();
        let _ = write!(text, "{host}: {}; ", ids.join(" "));
    }
    for (id, why) in &plan.unplaced {
        let _ = write!(text, "{:x}: {why:?}; ", id.number());
    }
    text
}

fn check(rules: Rules, nodes: Vec<ComputeNode>, wanted: &[(Demand, &str)], expected: Expect) {
    let now = Instant::now();
    let mut hosts = hosts(rules, nodes.into_iter().map(|node| (node, UP)), now);
    expected.assert_eq(&told(&mut hosts, wanted, now));
}

#[test]
fn the_least_used_host_is_taken_and_a_batch_spreads() {
    let nodes = vec![node("a", "nova", 2), node("b", "nova", 0)];
    check(SPREAD, nodes, &[(SMALL, ""); 5], expect!["b: 1 2 4; a: 3 5; "]);
}

#[test]
fn a_cloud_that_is_filled_takes_the_fullest_host_with_room() {
    let nodes = || vec![node("a", "nova", 2), node("b", "nova", 6), node("c", "nova", 0)];
    check(FILL, nodes(), &[(SMALL, ""); 4], expect!["b: 1 2; a: 3 4; "]);
    let wide = Demand { vcpus: 3, ..SMALL };
    check(FILL, nodes(), &[(wide, ""), (SMALL, "")], expect!["a: 1; b: 2; "]);
    // Those with too little memory are passed over.
    let mut full = nodes();
    full[1].memory_mb_used = 7000;
    check(FILL, full, &[(SMALL, ""); 2], expect!["a: 1 2; "]);
}

#[test]
fn memory_vcpus_and_disk_all_count_whatever_the_policy() {
    for rules in [SPREAD, FILL, CHANCE] {
        let host = || vec![node("a", "nova", 0)];
        check(rules, host(), &[(SMALL, ""); 6], expect!["a: 1 2 3 4; 5: Full; 6: Full; "]);
        let tall = Demand { memory_mb: 1, vcpus: 5, local_gb: 0 };
        check(rules, host(), &[(tall, ""), (tall, ""), (SMALL, "")], expect!["a: 1 3; 2: Full; "]);
        let wide = Demand { memory_mb: 1, vcpus: 1, local_gb: 101 };
        check(rules, host(), &[(wide, "")], expect!["1: Full; "]);
        let short = Rules { max_cores: 2, ..rules };
        check(short, host(), &[(SMALL, ""); 3], expect!["a: 1 2; 3: Full; "]);
    }
}

#[test]
fn a_zone_or_a_host_that_was_asked_for_is_kept_whatever_the_policy() {
    for rules in [SPREAD, FILL, CHANCE] {
        check(
            rules,
            vec![node("a", "north", 0), node("b", "south", 5)],
            &[(SMALL, "south"), (SMALL, "north:b"), (SMALL, "south:"), (SMALL, "west"), (SMALL, "x:c")],
            expect!["b: 1 2 3; 4: Full; 5: NoSuchHost; "],
        );
    }
}

#[test]
fn of_equally_used_hosts_the_one_with_more_memory_is_taken() {
    let full = ComputeNode { memory_mb_used: 4096, ..node("a", "nova", 1) };
    check(SPREAD, vec![full, node("b", "nova", 1)], &[(SMALL, "")], expect!["b: 1; "]);
}

#[test]
fn chance_takes_every_host_sooner_or_later_and_finds_the_last_place() {
    let now = Instant::now();
    let all = (0..200).map(|n| (node(&format!("h{n}"), "nova", 0), UP));
    let mut hosts = hosts(CHANCE, all, now);
    let plan = hosts.plan(&wishes(&[(SMALL, ""); 800]), now);
    assert_eq!((plan.placed.len(), plan.unplaced.len()), (200, 0));
    assert!(plan.placed.iter().all(|(_, ids)| ids.len() == 4));
    let first: Vec<&HostName> = plan.placed.iter().map(|(host, _)| host).take(20).collect();
    assert!(!first.is_sorted(), "they are not taken in order: {first:?}");
}

#[test]
fn a_host_that_is_disabled_or_silent_gets_nothing_and_the_reason_says_so() {
    let now = Instant::now();
    let nodes = [
        (node("off", "nova", 0), Daemon::Disabled),
        (node("lone", "nova", 0), Daemon::Unknown),
        (node("late", "nova", 0), Daemon::Enabled { silent_seconds: 61 }),
        (node("up", "nova", 7), Daemon::Enabled { silent_seconds: 60 }),
    ];
    let mut hosts = hosts(SPREAD, nodes, now);
    let wanted = [(SMALL, ""), (SMALL, "x:off"), (SMALL, "x:lone"), (SMALL, "x:late"), (SMALL, "x:up")];
    expect!["up: 1; 2: Disabled; 3: Silent; 4: Silent; 5: Full; "].assert_eq(&told(&mut hosts, &wanted, now));
}

#[test]
fn silence_is_counted_on_although_no_row_changes() {
    let now = Instant::now();
    let mut hosts = hosts(
        SPREAD,
        [(node("a", "nova", 0), UP), (node("b", "nova", 1), Daemon::Enabled { silent_seconds: 40 })],
        now,
    );
    let (later, latest) = (now + Duration::from_secs(30), now + Duration::from_secs(60));
    expect!["a: 1; b: 2; "].assert_eq(&told(&mut hosts, &[(SMALL, ""), (SMALL, "x:b")], now));
    expect!["a: 1; 2: Silent; "].assert_eq(&told(&mut hosts, &[(SMALL, ""), (SMALL, "x:b")], later));
    assert!(!hosts.is_empty(later));
    assert!(hosts.is_empty(latest));
    // A report brings a host back.
    hosts.update(Snapshot { at: None, nodes: vec![(node("b", "nova", 1), UP)] }, latest);
    expect!["b: 1; "].assert_eq(&told(&mut hosts, &[(SMALL, "")], latest));
}

#[test]
fn what_was_read_anew_counts_and_a_host_that_is_gone_is_forgotten() {
    let now = Instant::now();
    let mut hosts = hosts(SPREAD, [(node("a", "nova", 0), UP), (node("b", "nova", 4), UP)], now);
    let moved = ComputeNode { availability_zone: "south".to_owned(), ..node("a", "nova", 6) };
    hosts.update(Snapshot { at: None, nodes: vec![(moved, UP)] }, now);
    expect!["b: 1; a: 2; 3: Full; "].assert_eq(&told(
        &mut hosts,
        &[(SMALL, ""), (SMALL, "south"), (Demand { vcpus: 5, ..SMALL }, "nova")],
        now,
    ));
    hosts.forget(&"b".parse().unwrap());
    expect!["a: 1; 2: NoSuchHost; "].assert_eq(&told(&mut hosts, &[(SMALL, ""), (SMALL, "x:b")], now));
    hosts.replace(Snapshot { at: None, nodes: vec![(node("c", "nova", 0), UP)] }, now);
    expect!["c: 1; 2: NoSuchHost; "].assert_eq(&told(&mut hosts, &[(SMALL, ""), (SMALL, "x:a")], now));
}

#[test]
fn a_random_walk_never_gives_a_host_more_than_it_has() {
    for rules in [SPREAD, FILL, CHANCE] {
        let now = Instant::now();
        let mut hosts = hosts(rules, (0..20).map(|n| (node(&format!("h{n}"), "nova", n % 5), UP)), now);
        for turn in 0_u32..300 {
            let demand = Demand { memory_mb: 256 << (turn % 4), vcpus: 1 + turn % 3, local_gb: turn % 30 };
            let plan = hosts.plan(&wishes(&[(demand, ""); 2]), now);
            let full = |known: &Known| known.node.room_for(demand) == 0;
            assert!(plan.unplaced.is_empty() || hosts.known.iter().all(full), "{rules:?} overlooked a place");
            if turn % 7 == 0 {
                let at = usize::try_from(turn).unwrap() % 20;
                let emptied = ComputeNode { vcpus_used: 0, memory_mb_used: 0, ..hosts.known[at].node.clone() };
                hosts.update(Snapshot { at: None, nodes: vec![(emptied, UP)] }, now);
            }
            for Known { node, .. } in &hosts.known {
                assert!(node.vcpus_used <= node.vcpus && node.memory_mb_used <= node.memory_mb, "{node:?}");
                assert!(node.local_gb_used <= node.local_gb, "{node:?}");
            }
        }
    }
}
