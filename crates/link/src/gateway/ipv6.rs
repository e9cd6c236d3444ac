//! What guests may ask of a network host by IPv6: neighbours' talk, routers, and an echo.

use nftables::expr::MetaKey;
use nftables::stmt::Statement;
use nova_types::Prefix64;

use super::GuestNetwork;
use crate::icmp6::{ECHO, any_of, to_router};
use crate::nft::expr::{accept, ct_state, drop, field, goto, is, meta, one_of, prefix, text};
use crate::nft::{Chain, Rule};

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
    let this_host = one_of(vec![text(range.gateway().to_string()), prefix(Prefix64::LINK_LOCAL.range())]);
    let rules = vec![
        vec![ct_state(&["established", "related"]), accept()],
        vec![to_router(), accept()],
        vec![is(field("ip6", "daddr"), this_host), any_of(&[ECHO]), accept()],
        vec![drop()],
    ];
    Chain { hook: None, rules: rules.into_iter().map(Rule::new).collect() }
}
