//! The two tables of a compute host, from its rules. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use nftables::expr::MetaKey;
use nftables::schema::SetType;
use nftables::stmt::Statement;
use nftables::types::{NfChainType, NfFamily, NfHook};
use nova_types::instance::Instance;
use nova_types::rule::{Icmp, Ports, Rule as GroupRule, Source, Traffic};
use nova_types::security_group::GuestPort;
use nova_types::{InstanceId, ProjectId, SecurityGroupId};

use super::rules::Rules;
use crate::conntrack::{CUT, Flow};
use crate::gateway::METADATA;
use crate::nft::expr::{
    accept, concat, ct_mark, ct_original, ct_state, drop, field, goto, has_flag, is, is_not, jump, meta, one_of, ports,
    prefix, set, text, vmap,
};
use crate::nft::{Chain, Hook, Rule, Set, SetKind, Table, TableName};

pub(super) const BRIDGE: TableName = TableName { family: NfFamily::Bridge, name: "nova_compute" };
pub(super) const INET: TableName = TableName { family: NfFamily::INet, name: "nova_compute" };

pub(super) const DHCP_SERVER: u16 = 67;
pub(super) const DHCP_CLIENT: u16 = 68;
const DNS: u16 = 53;
/// The guests of this host, by bridge and address.
const LOCAL: &str = "local";

/// What each tap may send and be sent: the guest's own addresses, and nothing that only a server may say.
///
/// The rules are few and fixed; guests are elements of their sets. What a tap sends is judged as it comes in, so it
/// holds towards other guests, the wire and this host alike.
pub(super) fn bridge(rules: &Rules) -> Table {
    let mut table = Table { chains: bridge_chains(), ..Table::default() };
    let tap = SetType::Ifname;
    let mut taps = Set::of(&[tap]);
    let mut macs = Set::of(&[tap, SetType::EtherAddr]);
    let mut senders = Set::of(&[tap, SetType::EtherAddr, SetType::Ipv4Addr]);
    let mut receivers = Set::of(&[tap, SetType::Ipv4Addr]);
    for guest in rules.guests.values() {
        let (tap, mac, address) =
            (Instance::tap_name(guest.instance), guest.mac.to_string(), guest.address.to_string());
        taps.elements.insert(vec![tap.clone()], None);
        macs.elements.insert(vec![tap.clone(), mac.clone()], None);
        senders.elements.insert(vec![tap.clone(), mac, address.clone()], None);
        receivers.elements.insert(vec![tap, address], None);
    }
    for (name, set) in [("taps", taps), ("macs", macs), ("senders", senders), ("receivers", receivers)] {
        table.sets.insert(name.to_owned(), set);
    }
    table
}

fn bridge_chains() -> BTreeMap<String, Chain> {
    let from = || meta(MetaKey::Iifname);
    let to = || meta(MetaKey::Oifname);
    let kind = |kind: &'static str| is(field("ether", "type"), text(kind));
    let sender =
        |mac: &'static str, address: &'static str| concat(vec![from(), field("ether", "saddr"), field(mac, address)]);
    let hook = |hook, priority, rule| base(NfChainType::Filter, hook, priority, vec![rule]);
    let nobody = || text("0.0.0.0");
    BTreeMap::from([
        ("prerouting".to_owned(), hook(NfHook::Prerouting, -300, vec![is(from(), set("taps")), goto("from-guest")])),
        ("forward".to_owned(), hook(NfHook::Forward, -200, vec![is(to(), set("taps")), goto("to-guest")])),
        ("output".to_owned(), hook(NfHook::Output, -200, vec![is(to(), set("taps")), goto("to-guest")])),
        chain(
            "from-guest",
            vec![
                vec![is_not(concat(vec![from(), field("ether", "saddr")]), set("macs")), drop()],
                vec![kind("arp"), goto("arp-from-guest")],
                vec![kind("ip"), goto("ip-from-guest")],
                vec![drop()],
            ],
        ),
        chain(
            "arp-from-guest",
            vec![
                vec![is_not(concat(vec![from(), field("arp", "saddr ether")]), set("macs")), drop()],
                // A guest that probes whether its address is free says 0.0.0.0.
                vec![is(field("arp", "saddr ip"), nobody()), accept()],
                vec![is(sender("arp", "saddr ip"), set("senders")), accept()],
                vec![drop()],
            ],
        ),
        chain(
            "ip-from-guest",
            vec![
                vec![is(field("udp", "sport"), ports(DHCP_SERVER, DHCP_SERVER)), drop()],
                vec![
                    is(field("ip", "saddr"), nobody()),
                    is(field("udp", "sport"), ports(DHCP_CLIENT, DHCP_CLIENT)),
                    is(field("udp", "dport"), ports(DHCP_SERVER, DHCP_SERVER)),
                    accept(),
                ],
                vec![is(sender("ip", "saddr"), set("senders")), accept()],
                vec![drop()],
            ],
        ),
        chain(
            "to-guest",
            vec![
                vec![kind("arp"), accept()],
                vec![is_not(field("ether", "type"), text("ip")), drop()],
                vec![is(concat(vec![to(), field("ip", "daddr")]), set("receivers")), accept()],
                // An offer may be broadcast. Guests cannot send one: see above.
                vec![
                    is(field("udp", "sport"), ports(DHCP_SERVER, DHCP_SERVER)),
                    is(field("udp", "dport"), ports(DHCP_CLIENT, DHCP_CLIENT)),
                    accept(),
                ],
                vec![drop()],
            ],
        ),
    ])
}

/// What is let in to each guest: a verdict map from bridge and address to the chain of the guest.
///
/// With `bridge-nf-call-iptables` packets between two guests of a bridge pass here too, and their interface is the
/// bridge.
pub(super) fn inet(rules: &Rules, project_traffic: bool) -> Table {
    let mut table = Table::default();
    let cut = || vec![ct_mark(CUT), drop()];
    let known = || vec![ct_state(&["established", "related"]), accept()];
    let entrance = || vec![vmap(concat(vec![meta(MetaKey::Oifname), field("ip", "daddr")]), "guests")];
    let from_guest = || is(concat(vec![meta(MetaKey::Iifname), field("ip", "saddr")]), set(LOCAL));
    // The kernel takes any packet of TCP for the first of a connection. A connection that was forgotten because its rule
    // is gone would be the guest's own with the next packet from it, and so go on.
    let amid = vec![from_guest(), ct_state(&["new"]), has_flag("ack"), drop()];
    let hook = |hook, rules| base(NfChainType::Filter, hook, 0, rules);
    table.chains.insert("forward".to_owned(), hook(NfHook::Forward, vec![cut(), known(), amid, entrance()]));
    table.chains.insert("output".to_owned(), hook(NfHook::Output, vec![cut(), known(), entrance()]));
    table.chains.insert("input".to_owned(), hook(NfHook::Input, vec![vec![from_guest(), goto("to-host")]]));
    table.chains.insert("to-host".to_owned(), of(host_rules()));
    let mut guests = Set::verdicts(&[SetType::Ifname, SetType::Ipv4Addr]);
    let mut local = Set::of(&[SetType::Ifname, SetType::Ipv4Addr]);
    for guest in rules.guests.values() {
        let chain = guest_chain(guest.instance);
        let place = vec![guest.bridge.clone(), guest.address.to_string()];
        local.elements.insert(place.clone(), None);
        guests.elements.insert(place, Some(chain.clone()));
        table.chains.insert(chain, of(guest_rules(guest, project_traffic)));
    }
    table.sets.insert("guests".to_owned(), guests);
    table.sets.insert(LOCAL.to_owned(), local);
    for (id, rules) in &rules.groups {
        table.chains.insert(group_chain(*id), of(group_rules(rules)));
    }
    for (id, addresses) in &rules.members {
        table.sets.insert(members_set(*id), address_set(addresses));
    }
    if project_traffic {
        let projects = rules.projects.iter();
        table.sets.extend(projects.map(|(id, addresses)| (project_set(id), address_set(addresses))));
    }
    table
}

/// What guests may ask of this host, whichever of its addresses they name: an address, names, metadata and an echo.
///
/// A network host has rules of its own besides. These hold where the bridge is not `nova-network`'s, too: under
/// `FlatManager`, and on a compute host whose own address is on the bridge.
fn host_rules() -> Vec<Vec<Statement<'static>>> {
    vec![
        vec![ct_state(&["established", "related"]), accept()],
        vec![is(field("udp", "dport"), ports(DHCP_SERVER, DHCP_SERVER)), accept()],
        vec![is(field("udp", "dport"), ports(DNS, DNS)), accept()],
        vec![is(field("tcp", "dport"), ports(DNS, DNS)), accept()],
        vec![is(field("icmp", "type"), ports(8, 8)), accept()],
        vec![is(ct_original("ip daddr"), text(METADATA.to_string())), accept()],
        vec![drop()],
    ]
}

fn guest_rules(guest: &GuestPort, project_traffic: bool) -> Vec<Vec<Statement<'static>>> {
    let mut rules = vec![
        vec![ct_state(&["invalid"]), drop()],
        vec![
            is(field("ip", "saddr"), text(guest.dhcp_server.to_string())),
            is(field("udp", "sport"), ports(DHCP_SERVER, DHCP_SERVER)),
            is(field("udp", "dport"), ports(DHCP_CLIENT, DHCP_CLIENT)),
            accept(),
        ],
    ];
    let groups: BTreeSet<SecurityGroupId> = guest.groups.iter().copied().collect();
    rules.extend(groups.into_iter().map(|group| vec![jump(group_chain(group))]));
    if project_traffic {
        rules.push(vec![is(field("ip", "saddr"), set(&project_set(&guest.project))), accept()]);
    }
    rules.push(vec![drop()]);
    rules
}

/// One rule for all ranges that may send the same traffic, and one for each source group.
fn group_rules(rules: &BTreeSet<GroupRule>) -> Vec<Vec<Statement<'static>>> {
    let mut by_traffic: BTreeMap<Traffic, (Vec<Ipv4Net>, Vec<SecurityGroupId>)> = BTreeMap::new();
    for rule in rules {
        let (ranges, groups) = by_traffic.entry(rule.traffic).or_default();
        match rule.source {
            Source::Range(IpNet::V4(range)) => ranges.push(range),
            // No IPv6 packet reaches a guest.
            Source::Range(IpNet::V6(_)) => {}
            Source::Group(group) => groups.push(group),
        }
    }
    let mut written = Vec::new();
    for (traffic, (ranges, groups)) in by_traffic {
        let rule = |source: Option<Statement<'static>>| {
            source.into_iter().chain(matches(traffic)).chain([accept()]).collect::<Vec<_>>()
        };
        let ranges = Ipv4Net::aggregate(&ranges);
        if ranges.iter().any(|range| range.prefix_len() == 0) {
            written.push(rule(None));
        } else if !ranges.is_empty() {
            let ranges = one_of(ranges.into_iter().map(prefix).collect());
            written.push(rule(Some(is(field("ip", "saddr"), ranges))));
        }
        let groups = groups.into_iter().map(|group| is(field("ip", "saddr"), set(&members_set(group))));
        written.extend(groups.map(|source| rule(Some(source))));
    }
    written
}

fn matches(traffic: Traffic) -> Vec<Statement<'static>> {
    let protocol = |name: &'static str| is(meta(MetaKey::L4proto), text(name));
    let number = |kind: &'static str, value: u8| is(field("icmp", kind), ports(value.into(), value.into()));
    match traffic {
        Traffic::All => Vec::new(),
        Traffic::Tcp(Ports::ALL) => vec![protocol("tcp")],
        Traffic::Udp(Ports::ALL) => vec![protocol("udp")],
        Traffic::Tcp(range) => vec![is(field("tcp", "dport"), ports(range.from, range.to))],
        Traffic::Udp(range) => vec![is(field("udp", "dport"), ports(range.from, range.to))],
        Traffic::Icmp(Icmp::Any) => vec![protocol("icmp")],
        Traffic::Icmp(Icmp::Type(kind)) => vec![number("type", kind)],
        Traffic::Icmp(Icmp::TypeAndCode(kind, code)) => vec![number("type", kind), number("code", code)],
    }
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
            flows.insert(Flow::To(guest.address));
        }
    }
    for (name, was) in found.sets.iter().filter(|(name, _)| *name != LOCAL) {
        let stays = |key: &Vec<String>| wanted.sets.get(name).is_some_and(|set| set.elements.contains_key(key));
        let gone = was.elements.keys().filter(|key| !stays(key)).filter_map(|key| key.last()?.parse().ok());
        flows.extend(gone.map(
            |address: Ipv4Addr| if was.kind == SetKind::Verdicts { Flow::To(address) } else { Flow::From(address) },
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

fn address_set(addresses: &BTreeSet<Ipv4Addr>) -> Set {
    let mut set = Set::of(&[SetType::Ipv4Addr]);
    set.elements.extend(addresses.iter().map(|address| (vec![address.to_string()], None)));
    set
}

fn guest_chain(instance: InstanceId) -> String {
    format!("inst-{:08x}", instance.number())
}

fn group_chain(group: SecurityGroupId) -> String {
    group.to_string()
}

fn members_set(group: SecurityGroupId) -> String {
    format!("members-{:08x}", group.number())
}

fn project_set(project: &ProjectId) -> String {
    format!("project-{project}")
}

#[cfg(test)]
mod tests;
