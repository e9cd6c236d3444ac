//! IPv6 of a tap: its address on the link and the one that it made from the prefix, its own in answers to "who has", and
//! routers only from the wire or from this host.

use nftables::expr::Expression;
use nftables::schema::SetType;
use nftables::stmt::Statement;
use nova_types::instance::Instance;
use nova_types::net6::link_local;

use super::super::{chain, neighbours_chain, of};
use super::{from, sender, to};
use crate::guests::rules::Rules;
use crate::icmp6::{
    LISTENER_DONE, LISTENER_QUERY, LISTENER_REPORT, LISTENER_REPORT_2, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION,
    REDIRECT, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION, any_of,
};
use crate::nft::expr::{
    accept, concat, drop, field, goto, is, neighbour_target, one_of, ports, prefix, set, text, vmap,
};
use crate::nft::{Chain, Set, Table};

const DHCP_SERVER: u16 = 547;

/// Adds the sets with the guests that have IPv6, and the chain of each with the targets that it may answer for.
pub(super) fn add_guests(table: &mut Table, rules: &Rules) {
    let tap = SetType::Ifname;
    let mut senders = Set::of(&[tap, SetType::EtherAddr, SetType::Ipv6Addr]);
    let mut receivers = Set::of(&[tap, SetType::Ipv6Addr]);
    let mut routers = Set::of(&[tap, SetType::Ipv6Addr]);
    let mut any_router = Set::of(&[tap]);
    let mut targets = Set::verdicts(&[tap]);
    for guest in rules.guests.values() {
        let Some(ipv6) = &guest.ipv6 else { continue };
        let (tap, mac) = (Instance::tap_name(guest.instance), guest.mac.to_string());
        let own = [ipv6.address, link_local(guest.mac)];
        for address in own.map(|address| address.to_string()) {
            senders.elements.insert(vec![tap.clone(), mac.clone(), address.clone()], None);
            receivers.elements.insert(vec![tap.clone(), address], None);
        }
        match ipv6.router {
            Some(router) => routers.elements.insert(vec![tap.clone(), router.to_string()], None),
            None => any_router.elements.insert(vec![tap.clone()], None),
        };
        let neighbours = neighbours_chain(guest.instance);
        targets.elements.insert(vec![tap], Some(neighbours.clone()));
        let own = own.map(|address| text(format!("{:#034x}", u128::from(address)))).to_vec();
        let is_own = vec![is(neighbour_target(), one_of(own)), accept()];
        table.chains.insert(neighbours, of(vec![is_own, vec![drop()]]));
    }
    for (name, set) in [
        ("senders6", senders),
        ("receivers6", receivers),
        ("routers", routers),
        ("any-router", any_router),
        ("targets", targets),
    ] {
        table.sets.insert(name.to_owned(), set);
    }
}

pub(super) fn chains() -> [(String, Chain); 4] {
    let as_itself = || is(sender("ip6", "saddr"), set("senders6"));
    let as_nobody = || is(field("ip6", "saddr"), text("::"));
    let own_target = || vmap(from(), "targets");
    [
        chain(
            "ip6-from-guest",
            vec![
                vec![is(field("udp", "sport"), ports(DHCP_SERVER, DHCP_SERVER)), drop()],
                vec![any_of(&[LISTENER_QUERY, ROUTER_ADVERTISEMENT, REDIRECT]), drop()],
                vec![any_of(&[NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT]), goto("neighbours-from-guest")],
                vec![as_itself(), accept()],
                // Who has no address yet looks for a router, and says which groups it listens to.
                vec![
                    as_nobody(),
                    any_of(&[LISTENER_REPORT, LISTENER_DONE, ROUTER_SOLICITATION, LISTENER_REPORT_2]),
                    accept(),
                ],
                vec![drop()],
            ],
        ),
        chain(
            "neighbours-from-guest",
            vec![
                vec![any_of(&[NEIGHBOUR_SOLICITATION]), as_itself(), accept()],
                // Whether an address is free is asked by nobody, and only of the own one: who asks of another's would take it.
                vec![any_of(&[NEIGHBOUR_SOLICITATION]), as_nobody(), own_target()],
                vec![any_of(&[NEIGHBOUR_ADVERTISEMENT]), as_itself(), own_target()],
                vec![drop()],
            ],
        ),
        chain(
            "ip6-to-guest",
            vec![
                vec![any_of(&[ROUTER_ADVERTISEMENT, REDIRECT]), goto("router-to-guest")],
                vec![is(receiver(), set("receivers6")), accept()],
                vec![any_of(&[LISTENER_QUERY, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT]), accept()],
                vec![drop()],
            ],
        ),
        // No guest of any host gets this far: what taps send of it was dropped as it came in.
        chain(
            "router-to-guest",
            vec![
                vec![is(concat(vec![to(), field("ip6", "saddr")]), set("routers")), accept()],
                vec![is(to(), set("any-router")), is(field("ip6", "saddr"), on_link()), accept()],
                vec![drop()],
            ],
        ),
    ]
}

fn receiver() -> Expression<'static> {
    concat(vec![to(), field("ip6", "daddr")])
}

fn on_link() -> Expression<'static> {
    prefix(nova_types::Prefix64::LINK_LOCAL.range())
}

/// What neighbours and routers say to a guest alone, once it is known to come from them; from no further than the link.
pub(in super::super) fn from_the_link() -> Vec<Statement<'static>> {
    const NOT_FORWARDED: u16 = 255;
    let kinds = any_of(&[ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT]);
    vec![is(field("ip6", "hoplimit"), ports(NOT_FORWARDED, NOT_FORWARDED)), kinds, accept()]
}
