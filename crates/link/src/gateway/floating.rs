//! Floating addresses in the table of translations: two maps and a set, so that a packet costs the same however many
//! there are, and a change touches only elements.

use std::collections::BTreeSet;

use nftables::schema::SetType;
use nftables::stmt::Statement;

use super::Gateway;
use crate::conntrack::Flow;
use crate::nft::expr::{ct_original, dnat_by, field, goto, is, set, snat, snat_by};
use crate::nft::{Chain, Rule, Set, Table};

/// From a floating address to the guest's.
const INWARD: &str = "floating-inward";
/// From a guest's address to its floating one.
const OUTWARD: &str = "floating-outward";
/// All floating addresses.
const ALL: &str = "floating";
/// What a guest is towards another whom it addresses by a floating address.
const BETWEEN: &str = "between-guests";

/// Adds the maps, and the chain for guests who address others, or themselves, by a floating address.
pub(super) fn add(table: &mut Table, wanted: &Gateway) {
    let (mut inward, mut outward, mut all) = (Set::addresses(), Set::addresses(), Set::of(&[SetType::Ipv4Addr]));
    for (public, fixed) in &wanted.floating {
        let (public, fixed) = (public.to_string(), fixed.to_string());
        inward.elements.insert(vec![public.clone()], Some(fixed.clone()));
        outward.elements.insert(vec![fixed], Some(public.clone()));
        all.elements.insert(vec![public], None);
    }
    table.sets.extend([(INWARD.to_owned(), inward), (OUTWARD.to_owned(), outward), (ALL.to_owned(), all)]);
    // Without a floating address of its own it is this host, so that the answer comes by here and not over the bridge.
    let rules = [self::outward(), vec![snat(wanted.routing_source)]].map(Rule::new).to_vec();
    table.chains.insert(BETWEEN.to_owned(), Chain { hook: None, rules });
}

/// What is sent to a floating address goes to the guest.
pub(super) fn inward() -> Vec<Statement<'static>> {
    vec![dnat_by(field("ip", "daddr"), INWARD)]
}

/// What a guest with a floating address sends comes from that.
pub(super) fn outward() -> Vec<Statement<'static>> {
    vec![snat_by(field("ip", "saddr"), OUTWARD)]
}

/// A guest that addressed another by a floating address is translated even though both are inside.
pub(super) fn between_guests(from_guests: Statement<'static>) -> Vec<Statement<'static>> {
    vec![from_guests, is(ct_original("ip daddr"), set(ALL)), goto(BETWEEN)]
}

/// Connections that no longer go where they went, when `found` becomes `wanted`. Those of floating addresses that stay
/// where they are go on.
pub(super) fn changed(found: &Table, wanted: &Table) -> BTreeSet<Flow> {
    let none = Set::addresses();
    let (old, new) = (found.sets.get(INWARD).unwrap_or(&none), wanted.sets.get(INWARD).unwrap_or(&none));
    let mut flows = BTreeSet::new();
    for (key, target) in old.elements.iter().chain(&new.elements) {
        let differs = old.elements.get(key) != new.elements.get(key) && target.is_some();
        if let Some(public) = key.first().and_then(|text| text.parse().ok()).filter(|_| differs) {
            flows.extend([Flow::To(public), Flow::As(public)]);
        }
    }
    flows
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::gateway::example;

    #[test]
    fn only_connections_over_what_moved_are_forgotten() {
        let table = |pairs: &[(u8, u8)]| {
            let mut wanted = example();
            let pair =
                |(public, fixed): &(u8, u8)| (Ipv4Addr::new(192, 0, 2, *public), Ipv4Addr::new(192, 168, 0, *fixed));
            wanted.floating.extend(pairs.iter().map(pair));
            let mut table = Table::default();
            add(&mut table, &wanted);
            table
        };
        let moved = |public| {
            let public = Ipv4Addr::new(192, 0, 2, public).into();
            [Flow::To(public), Flow::As(public)]
        };
        let all = table(&[(1, 3), (2, 4), (3, 5)]);
        assert_eq!(changed(&all, &all), BTreeSet::new());
        let expected = moved(2).into_iter().chain(moved(3)).chain(moved(4)).collect();
        assert_eq!(changed(&all, &table(&[(1, 3), (2, 5), (4, 4)])), expected);
        assert_eq!(changed(&Table::default(), &table(&[(1, 3)])), moved(1).into_iter().collect());
    }
}
