//! Who may speak to VXLANs, as a table. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use nftables::schema::SetType;
use nftables::types::{NfChainType, NfFamily, NfHook};

use crate::links::flood::PORT;
use crate::nft::expr::{drop, field, is, is_not, ports, set};
use crate::nft::{Chain, Hook, Rule, Set, Table, TableName};

/// The same for the network's host and for those of its guests, which may be one: each makes it what it must be.
pub(super) const TABLE: TableName = TableName { family: NfFamily::INet, name: "nova_vxlan" };

const PEERS: &str = "peers";

pub(super) fn table(peers: &BTreeSet<Ipv4Addr>) -> Table {
    let mut table = Table::default();
    let mut hosts = Set::of(&[SetType::Ipv4Addr]);
    hosts.elements.extend(peers.iter().map(|host| (vec![host.to_string()], None)));
    table.sets.insert(PEERS.to_owned(), hosts);
    let port = || is(field("udp", "dport"), ports(PORT, PORT));
    let stranger = || is_not(field("ip", "saddr"), set(PEERS));
    let mut base = |name: &str, hook, rule| {
        let hook = Some(Hook { kind: NfChainType::Filter, hook, priority: 0 });
        table.chains.insert(name.to_owned(), Chain { hook, rules: vec![Rule::new(rule)] });
    };
    base("input", NfHook::Input, vec![port(), stranger(), drop()]);
    // A router of hosts may forward what they say to each other.
    base("forward", NfHook::Forward, vec![port(), is(field("ip", "daddr"), set(PEERS)), stranger(), drop()]);
    table
}
