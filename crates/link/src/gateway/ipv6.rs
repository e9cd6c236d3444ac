//! What guests may ask of a network host by IPv6: neighbours' talk, routers, and an echo.

use nftables::expr::MetaKey;
use nftables::stmt::Statement;
use nova_types::Prefix64;

use super::GuestNetwork;
use crate::nft::expr::{accept, ct_state, drop, field, goto, is, meta, one_of, ports, prefix, text};
use crate::nft::{Chain, Rule};

const ECHO: u16 = 128;
/// Reports of listeners, solicitations of routers and neighbours, and answers of neighbours.
const NEIGHBOURLY: [u16; 6] = [131, 132, 133, 135, 136, 143];

/// The chain for what guests of a network send.
pub(super) fn chain(network: &GuestNetwork) -> String {
    format!("from6-{}", network.bridge)
}

/// Sends to that chain what comes from guests. They have no other addresses: see the table of the compute host. Other hosts
/// on the same bridge are not judged.
pub(super) fn judged(network: &GuestNetwork, range: Prefix64) -> Vec<Statement<'static>> {
    let guests = one_of([range, Prefix64::LINK_LOCAL].map(|range| prefix(range.guests())).to_vec());
    vec![
        is(meta(MetaKey::Iifname), text(network.bridge.clone())),
        is(field("ip6", "saddr"), guests),
        goto(chain(network)),
    ]
}

pub(super) fn from_guests(range: Prefix64) -> Chain {
    let icmp6 = |kinds: &[u16]| is(field("icmpv6", "type"), one_of(kinds.iter().map(|k| ports(*k, *k)).collect()));
    let this_host = one_of(vec![text(range.gateway().to_string()), prefix(Prefix64::LINK_LOCAL.range())]);
    let rules = vec![
        vec![ct_state(&["established", "related"]), accept()],
        vec![icmp6(&NEIGHBOURLY), accept()],
        vec![is(field("ip6", "daddr"), this_host), icmp6(&[ECHO]), accept()],
        vec![drop()],
    ];
    Chain { hook: None, rules: rules.into_iter().map(Rule::new).collect() }
}
