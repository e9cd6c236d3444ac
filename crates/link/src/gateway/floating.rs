//! Floating addresses in the table of translations: two maps and a set, so that a packet costs the same however many
//! there are, and a change touches only elements.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

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
/// Those over which connections are still to be forgotten.
const MOVED: &str = "floating-moved";
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
    let moved = Set::of(&[SetType::Ipv4Addr]);
    let sets = [(INWARD, inward), (OUTWARD, outward), (ALL, all), (MOVED, moved)];
    table.sets.extend(sets.map(|(name, set)| (name.to_owned(), set)));
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

/// Floating addresses whose connections no longer go where they went, when `found` becomes `wanted`, and those that `found`
/// says are still to be forgotten. Connections over all others go on.
pub(super) fn moved(found: &Table, wanted: &Table) -> BTreeSet<Ipv4Addr> {
    let none = Set::addresses();
    let (old, new) = (found.sets.get(INWARD).unwrap_or(&none), wanted.sets.get(INWARD).unwrap_or(&none));
    let keys = old.elements.keys().chain(new.elements.keys());
    let differ = keys.filter(|key| old.elements.get(*key) != new.elements.get(*key));
    let noted = found.sets.get(MOVED).into_iter().flat_map(|set| set.elements.keys());
    differ.chain(noted).filter_map(|key| key.first()?.parse().ok()).collect()
}

/// The table with a note of these addresses in it.
pub(super) fn noting(mut table: Table, moved: &BTreeSet<Ipv4Addr>) -> Table {
    let mut note = Set::of(&[SetType::Ipv4Addr]);
    note.elements.extend(moved.iter().map(|address| (vec![address.to_string()], None)));
    table.sets.insert(MOVED.to_owned(), note);
    table
}

/// The connections over these addresses.
pub(super) fn flows(moved: &BTreeSet<Ipv4Addr>) -> BTreeSet<Flow> {
    moved.iter().map(|public| IpAddr::V4(*public)).flat_map(|public| [Flow::To(public), Flow::As(public)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::example;

    fn table(pairs: &[(u8, u8)]) -> Table {
        let mut wanted = example();
        let pair = |(public, fixed): &(u8, u8)| (address(*public), Ipv4Addr::new(192, 168, 0, *fixed));
        wanted.floating.extend(pairs.iter().map(pair));
        let mut table = Table::default();
        add(&mut table, &wanted);
        table
    }

    fn address(public: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, public)
    }

    #[test]
    fn only_connections_over_what_moved_are_forgotten() {
        let all = table(&[(1, 3), (2, 4), (3, 5)]);
        assert_eq!(moved(&all, &all), BTreeSet::new());
        let expected = [2, 3, 4].map(address).into();
        assert_eq!(moved(&all, &table(&[(1, 3), (2, 5), (4, 4)])), expected);
        assert_eq!(moved(&Table::default(), &table(&[(1, 3)])), [address(1)].into());
        assert_eq!(flows(&[address(1)].into()), [Flow::To(address(1).into()), Flow::As(address(1).into())].into());
    }

    #[test]
    fn what_was_noted_and_not_forgotten_is_forgotten_by_whoever_comes_next() {
        let (was, is) = (table(&[(1, 3), (2, 4)]), table(&[(1, 3)]));
        let noted = noting(is.clone(), &moved(&was, &is));
        assert_eq!(moved(&noted, &is), [address(2)].into());
        assert_eq!(moved(&is, &is), BTreeSet::new(), "done with");
    }
}
