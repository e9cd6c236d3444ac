//! What differs between the two families of addresses; the rules are otherwise the same.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nftables::expr::{Expression, MetaKey};
use nftables::schema::SetType;
use nftables::stmt::Statement;
use nova_types::rule::{Icmp, Ports, Traffic};
use nova_types::{ProjectId, SecurityGroupId};

use crate::nft::expr::{field, is, meta, one_of, ports, prefix, text};

const ECHO: u8 = 8;
const ECHO6: u8 = 128;

/// What of ICMP a rule is about.
pub(super) const fn icmp4(traffic: Traffic) -> Option<Icmp> {
    match traffic {
        Traffic::Icmp(icmp) => Some(icmp),
        Traffic::All | Traffic::Tcp(_) | Traffic::Udp(_) | Traffic::Icmp6(_) => None,
    }
}

/// What of ICMPv6 a rule is about.
///
/// Numbers of `icmp` with a range of IPv6 are ICMPv6's, as in old Nova. A group has members of both families, and what is
/// meant to let a ping in lets in that of either.
pub(super) const fn icmp6(traffic: Traffic, by_group: bool) -> Option<Icmp> {
    match (traffic, by_group) {
        (Traffic::Icmp6(icmp), _) | (Traffic::Icmp(icmp), false) | (Traffic::Icmp(icmp @ Icmp::Any), true) => {
            Some(icmp)
        }
        (Traffic::Icmp(Icmp::Type(ECHO) | Icmp::TypeAndCode(ECHO, 0)), true) => Some(Icmp::Type(ECHO6)),
        (Traffic::All | Traffic::Tcp(_) | Traffic::Udp(_) | Traffic::Icmp(_), _) => None,
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

/// The two, for those of a policy: all that IPv6 adds is left out where it is off.
pub(super) const fn families(ipv6: bool) -> &'static [Family] {
    if ipv6 { &[Family::V4, Family::V6] } else { &[Family::V4] }
}

impl Family {
    pub(super) const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub(super) const fn address_type(self) -> SetType {
        match self {
            Self::V4 => SetType::Ipv4Addr,
            Self::V6 => SetType::Ipv6Addr,
        }
    }

    /// The sender or receiver of a packet: `saddr` or `daddr`.
    pub(super) fn end(self, end: &'static str) -> Expression<'static> {
        field(self.protocol(), end)
    }

    /// The map from guests' addresses to their chains.
    pub(super) const fn guests_map(self) -> &'static str {
        match self {
            Self::V4 => "guests",
            Self::V6 => "guests6",
        }
    }

    /// The set of the guests of this host, by bridge and address.
    pub(super) const fn local_set(self) -> &'static str {
        match self {
            Self::V4 => "local",
            Self::V6 => "local6",
        }
    }

    pub(super) fn members_set(self, group: SecurityGroupId) -> String {
        format!("members{}-{:08x}", self.mark(), group.number())
    }

    pub(super) fn project_set(self, project: &ProjectId) -> String {
        format!("project{}-{project}", self.mark())
    }

    /// Those that send from one of `ranges`; nobody does if none is of this family.
    pub(super) fn sent_from(self, ranges: &[IpNet]) -> Option<Statement<'static>> {
        let v4 = |range: &IpNet| if let IpNet::V4(range) = range { Some(*range) } else { None };
        let v6 = |range: &IpNet| if let IpNet::V6(range) = range { Some(*range) } else { None };
        let ranges: Vec<IpNet> = match self {
            Self::V4 => {
                Ipv4Net::aggregate(&ranges.iter().filter_map(v4).collect()).into_iter().map(IpNet::V4).collect()
            }
            Self::V6 => {
                Ipv6Net::aggregate(&ranges.iter().filter_map(v6).collect()).into_iter().map(IpNet::V6).collect()
            }
        };
        if ranges.iter().any(|range| range.prefix_len() == 0) {
            return Some(is(meta(MetaKey::Nfproto), text(self.nfproto())));
        }
        let among = |ranges: Vec<IpNet>| one_of(ranges.into_iter().map(prefix).collect());
        (!ranges.is_empty()).then(|| is(self.end("saddr"), among(ranges)))
    }

    /// What matches the traffic in this family, or `None` where there is no such traffic.
    pub(super) fn matches(self, traffic: Traffic, by_group: bool) -> Option<Vec<Statement<'static>>> {
        let protocol = |name: &'static str| is(meta(MetaKey::L4proto), text(name));
        let matches = match traffic {
            Traffic::All => Vec::new(),
            Traffic::Tcp(Ports::ALL) => vec![protocol("tcp")],
            Traffic::Udp(Ports::ALL) => vec![protocol("udp")],
            Traffic::Tcp(range) => vec![is(field("tcp", "dport"), ports(range.from, range.to))],
            Traffic::Udp(range) => vec![is(field("udp", "dport"), ports(range.from, range.to))],
            Traffic::Icmp(_) | Traffic::Icmp6(_) => match self {
                Self::V4 => self.icmp(icmp4(traffic)?),
                Self::V6 => self.icmp(icmp6(traffic, by_group)?),
            },
        };
        Some(matches)
    }

    fn icmp(self, icmp: Icmp) -> Vec<Statement<'static>> {
        let name = match self {
            Self::V4 => "icmp",
            Self::V6 => "icmpv6",
        };
        let number = |kind: &'static str, value: u8| is(field(name, kind), ports(value.into(), value.into()));
        match icmp {
            Icmp::Any => vec![is(meta(MetaKey::L4proto), text(name))],
            Icmp::Type(kind) => vec![number("type", kind)],
            Icmp::TypeAndCode(kind, code) => vec![number("type", kind), number("code", code)],
        }
    }

    const fn protocol(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    const fn nfproto(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// What the names of its sets have in them.
    const fn mark(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::V6 => "6",
        }
    }
}
