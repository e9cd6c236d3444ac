//! What each tap may send and be sent: the guest's own addresses, and nothing that only a server or a router may say.
//!
//! The rules are few and fixed; guests are elements of their sets. What a tap sends is judged as it comes in, so it
//! holds towards other guests, the wire and this host alike.

mod ipv6;

pub(super) use ipv6::from_the_link;

use std::collections::BTreeMap;

use nftables::expr::{Expression, MetaKey};
use nftables::schema::SetType;
use nftables::stmt::Statement;
use nftables::types::{NfChainType, NfHook};
use nova_types::instance::Instance;

use super::super::rules::Rules;
use super::{DHCP_CLIENT, DHCP_SERVER, base, chain};
use crate::nft::expr::{accept, concat, drop, field, goto, is, is_not, meta, ports, set, text};
use crate::nft::{Chain, Set, Table};

pub(in super::super) fn bridge(rules: &Rules, ipv6: bool) -> Table {
    let mut table = Table { chains: chains(ipv6), ..Table::default() };
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
    if ipv6 {
        ipv6::add_guests(&mut table, rules);
    }
    table
}

fn from() -> Expression<'static> {
    meta(MetaKey::Iifname)
}

fn to() -> Expression<'static> {
    meta(MetaKey::Oifname)
}

/// The three by which a sender is known: its tap, its hardware address, and the address that it says.
fn sender(protocol: &'static str, address: &'static str) -> Expression<'static> {
    concat(vec![from(), field("ether", "saddr"), field(protocol, address)])
}

fn kind(kind: &'static str) -> Statement<'static> {
    is(field("ether", "type"), text(kind))
}

fn chains(ipv6: bool) -> BTreeMap<String, Chain> {
    let hook = |hook, priority, rule| base(NfChainType::Filter, hook, priority, vec![rule]);
    let nobody = || text("0.0.0.0");
    let only_with_ipv6 = |rule| ipv6.then_some(rule).into_iter();
    let mut from_guest = vec![
        vec![is_not(concat(vec![from(), field("ether", "saddr")]), set("macs")), drop()],
        vec![kind("arp"), goto("arp-from-guest")],
        vec![kind("ip"), goto("ip-from-guest")],
    ];
    from_guest.extend(only_with_ipv6(vec![kind("ip6"), goto("ip6-from-guest")]));
    from_guest.push(vec![drop()]);
    let mut to_guest = vec![vec![kind("arp"), accept()]];
    to_guest.extend(only_with_ipv6(vec![kind("ip6"), goto("ip6-to-guest")]));
    to_guest.extend([
        vec![is_not(field("ether", "type"), text("ip")), drop()],
        vec![is(concat(vec![to(), field("ip", "daddr")]), set("receivers")), accept()],
        // An offer may be broadcast. Guests cannot send one: see above.
        vec![
            is(field("udp", "sport"), ports(DHCP_SERVER, DHCP_SERVER)),
            is(field("udp", "dport"), ports(DHCP_CLIENT, DHCP_CLIENT)),
            accept(),
        ],
        vec![drop()],
    ]);
    let mut chains = BTreeMap::from([
        ("prerouting".to_owned(), hook(NfHook::Prerouting, -300, vec![is(from(), set("taps")), goto("from-guest")])),
        ("forward".to_owned(), hook(NfHook::Forward, -200, vec![is(to(), set("taps")), goto("to-guest")])),
        ("output".to_owned(), hook(NfHook::Output, -200, vec![is(to(), set("taps")), goto("to-guest")])),
        chain("from-guest", from_guest),
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
        chain("to-guest", to_guest),
    ]);
    if ipv6 {
        chains.extend(ipv6::chains());
    }
    chains
}
