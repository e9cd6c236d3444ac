//! All rules of a host, with each thing once, and the part of two states in which they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nova_types::rule::{Rule, Source};
use nova_types::security_group::{GuestPort, HostFirewall};
use nova_types::{InstanceId, ProjectId, SecurityGroupId};

use super::FirewallChange;

/// Everything that is enforced. Each group and set that something refers to is there, if only empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rules {
    pub(super) guests: BTreeMap<InstanceId, GuestPort>,
    pub(super) groups: BTreeMap<SecurityGroupId, BTreeSet<Rule>>,
    pub(super) members: BTreeMap<SecurityGroupId, BTreeSet<IpAddr>>,
    pub(super) projects: BTreeMap<ProjectId, BTreeSet<IpAddr>>,
}

impl Rules {
    pub(super) fn of(wanted: &HostFirewall) -> Self {
        let mut rules = Self::default();
        rules.set(wanted);
        rules.tidy();
        rules
    }

    pub(super) fn after(&self, change: &FirewallChange) -> Self {
        let mut rules = self.clone();
        for gone in &change.gone {
            rules.guests.remove(gone);
        }
        rules.set(&change.set);
        rules.tidy();
        rules
    }

    fn set(&mut self, wanted: &HostFirewall) {
        self.guests.extend(wanted.guests.iter().map(|guest| (guest.instance, guest.clone())));
        self.groups.extend(wanted.groups.iter().map(|group| (group.id, group.rules.iter().copied().collect())));
        self.members.extend(wanted.members.iter().map(|group| (group.id, group.addresses.iter().copied().collect())));
        let projects = wanted.projects.iter();
        self.projects.extend(projects.map(|(id, addresses)| (id.clone(), addresses.iter().copied().collect())));
    }

    /// Drops what nothing refers to, and gives an empty entry to what is referred to and unknown.
    fn tidy(&mut self) {
        let groups: BTreeSet<_> = self.guests.values().flat_map(|guest| guest.groups.iter().copied()).collect();
        keep(&mut self.groups, groups);
        let projects: BTreeSet<_> = self.guests.values().map(|guest| guest.project.clone()).collect();
        keep(&mut self.projects, projects);
        let sources = self.groups.values().flatten().filter_map(|rule| match rule.source {
            Source::Group(group) => Some(group),
            Source::Range(_) => None,
        });
        let sources: BTreeSet<_> = sources.collect();
        keep(&mut self.members, sources);
    }

    /// Cuts two states down to the entries in which they differ.
    pub(super) fn differing(&self, other: &Self) -> (Self, Self) {
        let (guests, other_guests) = differing(&self.guests, &other.guests);
        let (groups, other_groups) = differing(&self.groups, &other.groups);
        let (members, other_members) = differing(&self.members, &other.members);
        let (projects, other_projects) = differing(&self.projects, &other.projects);
        (
            Self { guests, groups, members, projects },
            Self { guests: other_guests, groups: other_groups, members: other_members, projects: other_projects },
        )
    }
}

fn keep<K: Ord, V: Default>(entries: &mut BTreeMap<K, V>, wanted: BTreeSet<K>) {
    entries.retain(|key, _| wanted.contains(key));
    for key in wanted {
        entries.entry(key).or_default();
    }
}

fn differing<K: Ord + Clone, V: PartialEq + Clone>(
    one: &BTreeMap<K, V>,
    other: &BTreeMap<K, V>,
) -> (BTreeMap<K, V>, BTreeMap<K, V>) {
    let unlike = |here: &BTreeMap<K, V>, there: &BTreeMap<K, V>| {
        let entries = here.iter().filter(|(key, value)| there.get(*key) != Some(*value));
        entries.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    (unlike(one, other), unlike(other, one))
}
