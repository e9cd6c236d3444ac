//! The kinds of ICMPv6 without which there is no IPv6 (RFC 2710, 3810, 4443, 4861), as matches of rules.

use nftables::stmt::Statement;

use crate::nft::expr::{field, is, one_of, ports};

pub(crate) const ECHO: u16 = 128;
pub(crate) const LISTENER_QUERY: u16 = 130;
pub(crate) const LISTENER_REPORT: u16 = 131;
pub(crate) const LISTENER_DONE: u16 = 132;
pub(crate) const ROUTER_SOLICITATION: u16 = 133;
pub(crate) const ROUTER_ADVERTISEMENT: u16 = 134;
pub(crate) const NEIGHBOUR_SOLICITATION: u16 = 135;
pub(crate) const NEIGHBOUR_ADVERTISEMENT: u16 = 136;
pub(crate) const REDIRECT: u16 = 137;
pub(crate) const LISTENER_REPORT_2: u16 = 143;

/// One of these kinds.
pub(crate) fn any_of(kinds: &[u16]) -> Statement<'static> {
    is(field("icmpv6", "type"), one_of(kinds.iter().map(|kind| ports(*kind, *kind)).collect()))
}

/// What a guest says to its router: what it listens to, that it looks for one, and neighbours' talk.
pub(crate) fn to_router() -> Statement<'static> {
    any_of(&[
        LISTENER_REPORT,
        LISTENER_DONE,
        ROUTER_SOLICITATION,
        NEIGHBOUR_SOLICITATION,
        NEIGHBOUR_ADVERTISEMENT,
        LISTENER_REPORT_2,
    ])
}
