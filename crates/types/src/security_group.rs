//! Security groups.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::rule::Rule;
use crate::{GroupName, InstanceId, Mac, ProjectId, SecurityGroupId, UserId};

/// A set of rules that instances share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Its id.
    pub id: SecurityGroupId,
    /// Whose it is.
    pub project: ProjectId,
    /// Who made it.
    pub user: UserId,
    /// Its name, unique in the project.
    pub name: GroupName,
    /// What it is for.
    pub description: String,
    /// What it lets in, in the order the rules were made.
    pub rules: Vec<GrantedRule>,
}

/// A rule, with the source group spelled out for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedRule {
    /// The rule.
    pub rule: Rule,
    /// Where the source is a group: whose it is, and its name.
    pub source_group: Option<(ProjectId, GroupName)>,
}

/// One guest of a host, as its firewall needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPort {
    /// The guest.
    pub instance: InstanceId,
    /// Whose it is.
    pub project: ProjectId,
    /// Its hardware address.
    pub mac: Mac,
    /// Its fixed address.
    pub address: Ipv4Addr,
    /// What it has of IPv6, if its network has it.
    pub ipv6: Option<GuestIpv6>,
    /// The bridge it is on.
    pub bridge: String,
    /// The address that its DHCP answers come from: the network's gateway.
    pub dhcp_server: Ipv4Addr,
    /// Its groups.
    pub groups: Vec<SecurityGroupId>,
}

/// What a guest has of IPv6, beside its address on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestIpv6 {
    /// The address that it makes of the network's prefix.
    pub address: Ipv6Addr,
    /// The address on the link of the one router that it may hear; none where any on the wire will do.
    pub router: Option<Ipv6Addr>,
}

/// One group, as a host's firewall needs it: sources are addresses, whoever they belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRules {
    /// The group.
    pub id: SecurityGroupId,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// The addresses of a group that some rule names as its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMembers {
    /// The source group.
    pub id: SecurityGroupId,
    /// The addresses of its live members on every host.
    pub addresses: Vec<IpAddr>,
}

/// Everything that the firewall of one compute host must enforce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFirewall {
    /// The guests of the host.
    pub guests: Vec<GuestPort>,
    /// Every group that one of them is in.
    pub groups: Vec<GroupRules>,
    /// Every group that one of those names as a source.
    pub members: Vec<GroupMembers>,
    /// For each project with a guest here, the addresses of all its live guests on the same networks.
    pub projects: Vec<(ProjectId, Vec<IpAddr>)>,
}
