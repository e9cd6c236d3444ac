//! The two tables of a compute host, from its rules. Pure.

mod bridge;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use nftables::expr::MetaKey;
use nftables::schema::SetType;
use nftables::stmt::Statement;
use nftables::types::{NfChainType, NfFamily, NfHook};
use nova_types::net6::link_local;
use nova_types::rule::{Rule as GroupRule, Source, Traffic};
use nova_types::security_group::GuestPort;
use nova_types::{InstanceId, SecurityGroupId};

use super::Policy;
use super::family::{Family, families};
use super::rules::Rules;
use crate::conntrack::{CUT, Flow};
use crate::gateway::METADATA;
use crate::icmp6;
use crate::nft::expr::{
    accept, concat, ct_mark, ct_original, ct_state, drop, field, goto, has_flag, is, jump, meta, ports, set, text, vmap,
};
use crate::nft::{Chain, Hook, Rule, Set, SetKind, Table, TableName};

pub(super) use bridge::bridge;

pub(super) const BRIDGE: TableName = TableName { family: NfFamily::Bridge, name: "nova_compute" };
pub(super) const INET: TableName = TableName { family: NfFamily::INet, name: "nova_compute" };

pub(super) const DHCP_SERVER: u16 = 67;
pub(super) const DHCP_CLIENT: u16 = 68;
const DNS: u16 = 53;

/// What is let in to each guest: a verdict map from bridge and address to the chain of the guest, for each family.
///
/// With `bridge-nf-call-iptables` and its like for IPv6, packets between two guests of a bridge pass here too, and their
/// interface is the bridge.
pub(super) fn inet(rules: &Rules, policy: Policy) -> Table {
    let mut table = Table::default();
    let families = families(policy.ipv6);
    let cut = || vec![ct_mark(CUT), drop()];
    let known = || vec![ct_state(&["established", "related"]), accept()];
    let from_guest = |family: &Family| {
        let place = concat(vec![meta(MetaKey::Iifname), family.end("saddr")]);
        is(place, set(family.local_set()))
    };
    // The kernel takes any packet of TCP for the first of a connection. A connection that was forgotten because its rule
    // is gone would be the guest's own with the next packet from it, and so go on.
    let amid = |family: &Family| vec![from_guest(family), ct_state(&["new"]), has_flag("ack"), drop()];
    let entrance =
        |family: &Family| vec![vmap(concat(vec![meta(MetaKey::Oifname), family.end("daddr")]), family.guests_map())];
    let (mut forward, mut output) = (vec![cut(), known()], vec![cut(), known()]);
    forward.extend(families.iter().map(amid));
    forward.extend(families.iter().map(entrance));
    output.extend(families.iter().map(entrance));
    let input = families.iter().map(|family| vec![from_guest(family), goto("to-host")]).collect();
    for (name, hook, rules) in
        [("forward", NfHook::Forward, forward), ("output", NfHook::Output, output), ("input", NfHook::Input, input)]
    {
        table.chains.insert(name.to_owned(), base(NfChainType::Filter, hook, 0, rules));
    }
    table.chains.insert("to-host".to_owned(), of(host_rules(policy)));
    for family in families {
        let place = [SetType::Ifname, family.address_type()];
        table.sets.insert(family.guests_map().to_owned(), Set::verdicts(&place));
        table.sets.insert(family.local_set().to_owned(), Set::of(&place));
    }
    for guest in rules.guests.values() {
        let chain = guest_chain(guest.instance);
        for address in addresses(guest) {
            let (family, place) = (Family::of(&address), vec![guest.bridge.clone(), address.to_string()]);
            if let Some(local) = table.sets.get_mut(family.local_set()) {
                local.elements.insert(place.clone(), None);
            }
            if let Some(guests) = table.sets.get_mut(family.guests_map()) {
                guests.elements.insert(place, Some(chain.clone()));
            }
        }
        table.chains.insert(chain, of(guest_rules(guest, policy)));
    }
    for (id, rules) in &rules.groups {
        table.chains.insert(group_chain(*id), of(group_rules(rules, policy)));
    }
    for family in families {
        let members = rules.members.iter();
        table.sets.extend(members.map(|(id, all)| (family.members_set(*id), address_set(*family, all))));
        let projects = rules.projects.iter().filter(|_| policy.project_traffic);
        table.sets.extend(projects.map(|(id, all)| (family.project_set(id), address_set(*family, all))));
    }
    table
}

/// Every address that a guest is reached at.
pub(super) fn addresses(guest: &GuestPort) -> impl Iterator<Item = IpAddr> + use<> {
    let ipv6 = guest.ipv6.map(|ipv6| [ipv6.address, link_local(guest.mac)]);
    std::iter::once(IpAddr::V4(guest.address)).chain(ipv6.into_iter().flatten().map(IpAddr::V6))
}

/// What guests may ask of this host, whichever of its addresses they name: an address, names, metadata and an echo, and of
/// IPv6 what neighbours ask.
///
/// A network host has rules of its own besides. These hold where the bridge is not `nova-network`'s, too: under
/// `FlatManager`, and on a compute host whose own address is on the bridge.
fn host_rules(policy: Policy) -> Vec<Vec<Statement<'static>>> {
    let mut rules = vec![
        vec![ct_state(&["established", "related"]), accept()],
        vec![is(field("udp", "dport"), ports(DHCP_SERVER, DHCP_SERVER)), accept()],
        vec![is(field("udp", "dport"), ports(DNS, DNS)), accept()],
        vec![is(field("tcp", "dport"), ports(DNS, DNS)), accept()],
        vec![is(field("icmp", "type"), ports(8, 8)), accept()],
        vec![is(ct_original("ip daddr"), text(METADATA.to_string())), accept()],
    ];
    if policy.ipv6 {
        rules.extend([vec![icmp6::to_router(), accept()], vec![icmp6::any_of(&[icmp6::ECHO]), accept()]]);
    }
    rules.push(vec![drop()]);
    rules
}

fn guest_rules(guest: &GuestPort, policy: Policy) -> Vec<Vec<Statement<'static>>> {
    let mut rules = Vec::new();
    if policy.ipv6 && guest.ipv6.is_some() {
        rules.push(bridge::from_the_link());
    }
    rules.extend([
        vec![ct_state(&["invalid"]), drop()],
        vec![
            is(field("ip", "saddr"), text(guest.dhcp_server.to_string())),
            is(field("udp", "sport"), ports(DHCP_SERVER, DHCP_SERVER)),
            is(field("udp", "dport"), ports(DHCP_CLIENT, DHCP_CLIENT)),
            accept(),
        ],
    ]);
    let groups: BTreeSet<SecurityGroupId> = guest.groups.iter().copied().collect();
    rules.extend(groups.into_iter().map(|group| vec![jump(group_chain(group))]));
    if policy.project_traffic {
        let of_project = |family: &Family| is(family.end("saddr"), set(&family.project_set(&guest.project)));
        rules.extend(families(policy.ipv6).iter().map(|family| vec![of_project(family), accept()]));
    }
    rules.push(vec![drop()]);
    rules
}

/// One rule for all ranges that may send the same traffic, and one for each source group, in each family.
fn group_rules(rules: &BTreeSet<GroupRule>, policy: Policy) -> Vec<Vec<Statement<'static>>> {
    let mut by_traffic: BTreeMap<Traffic, (Vec<IpNet>, Vec<SecurityGroupId>)> = BTreeMap::new();
    for rule in rules {
        let (ranges, groups) = by_traffic.entry(rule.traffic).or_default();
        match rule.source {
            Source::Range(range) => ranges.push(range),
            Source::Group(group) => groups.push(group),
        }
    }
    let mut written = Vec::new();
    for (traffic, (ranges, groups)) in by_traffic {
        for family in families(policy.ipv6) {
            let ranges = family.sent_from(&ranges).map(|source| (source, false));
            let members = |group: &SecurityGroupId| is(family.end("saddr"), set(&family.members_set(*group)));
            let groups = groups.iter().map(|group| (members(group), true));
            for (source, by_group) in ranges.into_iter().chain(groups) {
                let Some(matches) = family.matches(traffic, by_group) else { continue };
                written.push([source].into_iter().chain(matches).chain([accept()]).collect());
            }
        }
    }
    written
}

/// Lists the connections that `found` may have let in and `wanted` does not, by the guests of `rules`.
///
/// These may be too many: of those, what is still allowed goes on.
pub(super) fn narrowed(found: &Table, wanted: &Table, rules: &Rules) -> BTreeSet<Flow> {
    // Found once and not for each guest: a group of a thousand may have a hundred rules.
    let lost: BTreeSet<&str> = found
        .chains
        .iter()
        .filter(|(name, was)| lost(was, wanted.chains.get(*name)))
        .map(|(name, _)| name.as_str())
        .collect();
    let mut flows = BTreeSet::new();
    for guest in rules.guests.values().filter(|_| !lost.is_empty()) {
        let mut chains = guest.groups.iter().map(|group| group_chain(*group));
        if lost.contains(&*guest_chain(guest.instance)) || chains.any(|chain| lost.contains(&*chain)) {
            flows.extend(addresses(guest).map(Flow::To));
        }
    }
    for (name, was) in found.sets.iter().filter(|(name, _)| !is_local(name)) {
        let stays = |key: &Vec<String>| wanted.sets.get(name).is_some_and(|set| set.elements.contains_key(key));
        let gone = was.elements.keys().filter(|key| !stays(key)).filter_map(|key| key.last()?.parse().ok());
        flows.extend(gone.map(
            |address: IpAddr| if was.kind == SetKind::Verdicts { Flow::To(address) } else { Flow::From(address) },
        ));
    }
    flows
}

/// Whether a chain that stays has rules no longer.
fn lost(was: &Chain, is: Option<&Chain>) -> bool {
    let Some(is) = is else { return false };
    let kept: BTreeSet<&str> = is.rules.iter().map(|rule| rule.mark.as_str()).collect();
    was.rules.iter().any(|rule| !kept.contains(rule.mark.as_str()))
}

fn base(kind: NfChainType, hook: NfHook, priority: i32, rules: Vec<Vec<Statement<'static>>>) -> Chain {
    Chain { hook: Some(Hook { kind, hook, priority }), ..of(rules) }
}

fn chain(name: &str, rules: Vec<Vec<Statement<'static>>>) -> (String, Chain) {
    (name.to_owned(), of(rules))
}

fn of(rules: Vec<Vec<Statement<'static>>>) -> Chain {
    Chain { hook: None, rules: rules.into_iter().map(Rule::new).collect() }
}

fn address_set(family: Family, addresses: &BTreeSet<IpAddr>) -> Set {
    let mut set = Set::of(&[family.address_type()]);
    let addresses = addresses.iter().filter(|address| Family::of(address) == family);
    set.elements.extend(addresses.map(|address| (vec![address.to_string()], None)));
    set
}

/// Whether a set only tells which guests are here.
fn is_local(set: &str) -> bool {
    families(true).iter().any(|family| family.local_set() == set)
}

fn guest_chain(instance: InstanceId) -> String {
    format!("inst-{:08x}", instance.number())
}

fn group_chain(group: SecurityGroupId) -> String {
    group.to_string()
}

/// The chain of the bridge's table that knows for which addresses a guest may answer.
fn neighbours_chain(instance: InstanceId) -> String {
    format!("neighbours-{:08x}", instance.number())
}

#[cfg(test)]
mod tests;
