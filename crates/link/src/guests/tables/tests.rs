//! The tables made for guests, rule by rule.

use std::net::{IpAddr, Ipv4Addr};

use expect_test::{Expect, expect};
use nova_types::security_group::{GroupMembers, GroupRules, GuestIpv6, HostFirewall};
use nova_types::{Mac, SecurityGroupId};

use super::*;
use crate::guests::FirewallChange;

const POLICY: Policy = Policy { project_traffic: true, ipv6: false };
const BOTH: Policy = Policy { project_traffic: true, ipv6: true };

fn guest(number: u8, groups: &[u32]) -> GuestPort {
    GuestPort {
        instance: InstanceId::new(number.into()),
        project: "p".parse().unwrap(),
        mac: Mac::of_guest([0, 0, number]),
        address: Ipv4Addr::new(10, 0, 0, number),
        ipv6: None,
        bridge: "br100".into(),
        dhcp_server: Ipv4Addr::new(10, 0, 0, 1),
        groups: groups.iter().map(|id| SecurityGroupId::new(*id)).collect(),
    }
}

/// One with IPv6, and who its router is.
fn guest6(number: u8, groups: &[u32], router: Option<&str>) -> GuestPort {
    let address = format!("fd00::16:3eff:fe00:{number:x}").parse().unwrap();
    let ipv6 = GuestIpv6 { address, router: router.map(|router| router.parse().unwrap()) };
    GuestPort { ipv6: Some(ipv6), ..guest(number, groups) }
}

fn rule(protocol: &str, from: i64, to: i64, source: &str) -> GroupRule {
    let source = source
        .strip_prefix("group ")
        .map_or_else(|| Source::range(source).unwrap(), |id| Source::Group(SecurityGroupId::new(id.parse().unwrap())));
    GroupRule { traffic: Traffic::parse(protocol, Some(from), Some(to)).unwrap(), source }
}

fn group(id: u32, rules: Vec<GroupRule>) -> GroupRules {
    GroupRules { id: SecurityGroupId::new(id), rules }
}

/// Shows a chain, one rule to a line, in nft's own JSON but for the quotes.
fn shown(table: &Table, chain: &str) -> String {
    let line = |rule: &Rule| {
        let words: Vec<String> = rule.body.iter().map(|part| serde_json::to_string(part).unwrap()).collect();
        format!("{}\n", words.join(" ").replace('"', ""))
    };
    table.chains[chain].rules.iter().map(line).collect()
}

fn check(rules: Vec<GroupRule>, policy: Policy, written: Expect) {
    let wanted = HostFirewall { guests: vec![guest(3, &[1])], groups: vec![group(1, rules)], ..Default::default() };
    written.assert_eq(&shown(&inet(&Rules::of(&wanted), policy), "sg-00000001"));
}

#[test]
fn ranges_of_the_same_traffic_are_one_rule_and_what_holds_another_is_left_out() {
    let rules = [("10.0.0.0/8"), ("10.1.0.0/16"), ("192.168.1.1"), ("::/0")];
    check(
        rules.map(|range| rule("tcp", 22, 22, range)).to_vec(),
        POLICY,
        expect![[r#"
            {match:{left:{payload:{protocol:ip,field:saddr}},right:{set:[{prefix:{addr:10.0.0.0,len:8}},192.168.1.1]},op:==}} {match:{left:{payload:{protocol:tcp,field:dport}},right:22,op:==}} {accept:null}
        "#]],
    );
}

#[test]
fn every_kind_of_rule_says_what_it_means() {
    check(
        vec![
            rule("-1", 0, 0, "group 7"),
            rule("tcp", 80, 81, "0.0.0.0/0"),
            rule("udp", -1, -1, "0.0.0.0/0"),
            rule("icmp", 3, 4, "0.0.0.0/0"),
            rule("icmp", -1, -1, "10.0.0.0/8"),
        ],
        POLICY,
        expect![[r#"
            {match:{left:{payload:{protocol:ip,field:saddr}},right:@members-00000007,op:==}} {accept:null}
            {match:{left:{meta:{key:nfproto}},right:ipv4,op:==}} {match:{left:{payload:{protocol:tcp,field:dport}},right:{range:[80,81]},op:==}} {accept:null}
            {match:{left:{meta:{key:nfproto}},right:ipv4,op:==}} {match:{left:{meta:{key:l4proto}},right:udp,op:==}} {accept:null}
            {match:{left:{payload:{protocol:ip,field:saddr}},right:{prefix:{addr:10.0.0.0,len:8}},op:==}} {match:{left:{meta:{key:l4proto}},right:icmp,op:==}} {accept:null}
            {match:{left:{meta:{key:nfproto}},right:ipv4,op:==}} {match:{left:{payload:{protocol:icmp,field:type}},right:3,op:==}} {match:{left:{payload:{protocol:icmp,field:code}},right:4,op:==}} {accept:null}
        "#]],
    );
}

#[test]
fn a_group_whose_only_rules_are_of_ipv6_lets_nothing_in_where_that_is_off() {
    check(vec![rule("tcp", 22, 22, "::/0"), rule("icmpv6", -1, -1, "group 7")], POLICY, expect![""]);
}

#[test]
fn with_ipv6_each_rule_is_written_for_the_families_that_it_is_about() {
    check(
        vec![
            rule("-1", 0, 0, "group 7"),
            rule("tcp", 80, 80, "0.0.0.0/0"),
            rule("tcp", 80, 80, "::/0"),
            rule("udp", 53, 53, "fd00::/64"),
            rule("udp", 53, 53, "fd00::5"),
            rule("udp", 53, 53, "fd00:0:0:1::/64"),
            rule("icmp", 128, -1, "2001:db8::/32"),
            rule("icmp", 8, -1, "group 7"),
            rule("icmp", 3, 4, "group 7"),
            rule("icmpv6", -1, -1, "group 7"),
        ],
        BOTH,
        expect![[r#"
            {match:{left:{payload:{protocol:ip,field:saddr}},right:@members-00000007,op:==}} {accept:null}
            {match:{left:{payload:{protocol:ip6,field:saddr}},right:@members6-00000007,op:==}} {accept:null}
            {match:{left:{meta:{key:nfproto}},right:ipv4,op:==}} {match:{left:{payload:{protocol:tcp,field:dport}},right:80,op:==}} {accept:null}
            {match:{left:{meta:{key:nfproto}},right:ipv6,op:==}} {match:{left:{payload:{protocol:tcp,field:dport}},right:80,op:==}} {accept:null}
            {match:{left:{payload:{protocol:ip6,field:saddr}},right:{prefix:{addr:fd00::,len:63}},op:==}} {match:{left:{payload:{protocol:udp,field:dport}},right:53,op:==}} {accept:null}
            {match:{left:{payload:{protocol:ip,field:saddr}},right:@members-00000007,op:==}} {match:{left:{payload:{protocol:icmp,field:type}},right:8,op:==}} {accept:null}
            {match:{left:{payload:{protocol:ip6,field:saddr}},right:@members6-00000007,op:==}} {match:{left:{payload:{protocol:icmpv6,field:type}},right:128,op:==}} {accept:null}
            {match:{left:{payload:{protocol:ip6,field:saddr}},right:{prefix:{addr:2001:db8::,len:32}},op:==}} {match:{left:{payload:{protocol:icmpv6,field:type}},right:128,op:==}} {accept:null}
            {match:{left:{payload:{protocol:ip,field:saddr}},right:@members-00000007,op:==}} {match:{left:{payload:{protocol:icmp,field:type}},right:3,op:==}} {match:{left:{payload:{protocol:icmp,field:code}},right:4,op:==}} {accept:null}
            {match:{left:{payload:{protocol:ip6,field:saddr}},right:@members6-00000007,op:==}} {match:{left:{meta:{key:l4proto}},right:icmpv6,op:==}} {accept:null}
        "#]],
    );
}

#[test]
fn a_guest_with_ipv6_hears_its_neighbours_and_is_reached_at_both_its_addresses() {
    let wanted = HostFirewall { guests: vec![guest6(3, &[], None), guest(4, &[])], ..Default::default() };
    let table = inet(&Rules::of(&wanted), BOTH);
    let first = |chain: &str| shown(&table, chain).lines().next().unwrap_or_default().to_owned();
    assert!(first("inst-00000003").contains("{payload:{protocol:icmpv6,field:type}},right:{set:[134,135,136]}"));
    assert!(first("inst-00000004").contains("invalid"), "without an address of IPv6 there is nothing to hear");
    let keys: Vec<String> = table.sets["guests6"].elements.keys().map(|key| key.join(" ")).collect();
    assert_eq!(keys, ["br100 fd00::16:3eff:fe00:3", "br100 fe80::16:3eff:fe00:3"]);
}

#[test]
fn a_tap_sends_ipv6_as_its_guest_or_not_at_all() {
    let guests = vec![guest6(3, &[], None), guest6(4, &[], Some("fe80::1")), guest(5, &[])];
    let rules = Rules::of(&HostFirewall { guests, ..Default::default() });
    let table = bridge(&rules, true);
    let mut text = String::new();
    for name in ["senders6", "receivers6", "routers", "any-router", "targets"] {
        for (key, target) in &table.sets[name].elements {
            let target = target.as_ref().map_or_else(String::new, |target| format!(" → {target}"));
            text.push_str(&format!("{name}: {}{target}\n", key.join(" ")));
        }
    }
    text.push_str(&shown(&table, "neighbours-00000003"));
    expect![[r#"
        senders6: tap00000003 02:16:3e:00:00:03 fd00::16:3eff:fe00:3
        senders6: tap00000003 02:16:3e:00:00:03 fe80::16:3eff:fe00:3
        senders6: tap00000004 02:16:3e:00:00:04 fd00::16:3eff:fe00:4
        senders6: tap00000004 02:16:3e:00:00:04 fe80::16:3eff:fe00:4
        receivers6: tap00000003 fd00::16:3eff:fe00:3
        receivers6: tap00000003 fe80::16:3eff:fe00:3
        receivers6: tap00000004 fd00::16:3eff:fe00:4
        receivers6: tap00000004 fe80::16:3eff:fe00:4
        routers: tap00000004 fe80::1
        any-router: tap00000003
        targets: tap00000003 → neighbours-00000003
        targets: tap00000004 → neighbours-00000004
        {match:{left:{payload:{base:th,offset:64,len:128}},right:{set:[0xfd0000000000000000163efffe000003,0xfe8000000000000000163efffe000003]},op:==}} {accept:null}
        {drop:null}
    "#]].assert_eq(&text);
    let off = bridge(&rules, false);
    assert!(!off.chains.contains_key("ip6-from-guest") && !off.sets.contains_key("senders6"));
    assert!(!shown(&off, "from-guest").contains("ip6") && !shown(&off, "to-guest").contains("ip6"));
}

#[test]
fn a_guest_is_judged_by_its_groups_and_then_dropped() {
    let wanted = HostFirewall { guests: vec![guest(3, &[2, 1, 1])], ..Default::default() };
    let table = inet(&Rules::of(&wanted), POLICY);
    let chain = shown(&table, "inst-00000003");
    let jumps: Vec<&str> = chain.lines().skip(2).collect();
    assert_eq!(
        jumps,
        [
            "{jump:{target:sg-00000001}}",
            "{jump:{target:sg-00000002}}",
            "{match:{left:{payload:{protocol:ip,field:saddr}},right:@project-p,op:==}} {accept:null}",
            "{drop:null}",
        ]
    );
    assert!(chain.lines().nth(1).unwrap().contains("right:10.0.0.1"), "DHCP answers only from the gateway: {chain}");
    let entry = (vec!["br100".to_owned(), "10.0.0.3".to_owned()], Some("inst-00000003".to_owned()));
    assert_eq!(table.sets["guests"].elements.iter().next().map(|(k, v)| (k.clone(), v.clone())), Some(entry));
    let strict = inet(&Rules::of(&wanted), Policy { project_traffic: false, ipv6: false });
    assert!(!shown(&strict, "inst-00000003").contains("project-") && !strict.sets.contains_key("project-p"));
}

#[test]
fn what_a_change_takes_away_is_what_must_be_forgotten() {
    let tcp = rule("tcp", 22, 22, "0.0.0.0/0");
    let members = |addresses: &[u8]| GroupMembers {
        id: SecurityGroupId::new(7),
        addresses: addresses.iter().map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, *last))).collect(),
    };
    let before = Rules::of(&HostFirewall {
        guests: vec![guest(3, &[1]), guest(4, &[2]), guest(5, &[1])],
        groups: vec![
            group(1, vec![tcp, rule("tcp", 80, 80, "0.0.0.0/0")]),
            group(2, vec![rule("-1", 0, 0, "group 7")]),
        ],
        members: vec![members(&[8, 9])],
        ..Default::default()
    });
    let forgotten = |change: FirewallChange| {
        let after = before.after(&change);
        let (old, new) = before.differing(&after);
        let flows = narrowed(&inet(&old, POLICY), &inet(&new, POLICY), &after);
        flows.iter().map(|flow| format!("{flow:?}")).collect::<Vec<_>>().join(" ")
    };
    let set = |set: HostFirewall| FirewallChange { set, gone: Vec::new() };
    let wider = vec![tcp, rule("tcp", 80, 80, "0.0.0.0/0"), rule("udp", 53, 53, "0.0.0.0/0")];
    for (change, expected) in [
        (set(HostFirewall { groups: vec![group(1, wider)], ..Default::default() }), ""),
        (set(HostFirewall { groups: vec![group(1, vec![tcp])], ..Default::default() }), "To(10.0.0.3) To(10.0.0.5)"),
        (set(HostFirewall { members: vec![members(&[8])], ..Default::default() }), "From(10.0.0.9)"),
        (set(HostFirewall { guests: vec![guest(5, &[])], ..Default::default() }), "To(10.0.0.5)"),
        (FirewallChange { gone: vec![InstanceId::new(3)], ..Default::default() }, "To(10.0.0.3)"),
    ] {
        assert_eq!(forgotten(change.clone()), expected, "{change:?}");
    }
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    crate::guests::guest_firewall_contract(&crate::guests::FakeGuestFirewall::default()).await;
}
