//! `DescribeSecurityGroups`.

use nova_aws::{ApiVersion, Filter, Filters, Page, Params, Set};
use nova_db::security_groups::{self, GroupRef};
use nova_db::{describe, transaction};
use nova_types::rule::{Source, Traffic};
use nova_types::security_group::{GrantedRule, SecurityGroup};
use nova_types::{GroupName, SecurityGroupId};
use serde::Serialize;

use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// Lists the groups of the caller's project, or only those named. The group `default` is made if it is not there yet.
#[derive(Debug)]
pub(crate) struct DescribeSecurityGroups {
    wanted: Vec<GroupRef>,
    filters: Filters<SecurityGroup>,
    page: Page<SecurityGroupId>,
}

/// The answer to [`DescribeSecurityGroups`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeSecurityGroupsResponse {
    security_group_info: Set<GroupItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupItem {
    owner_id: String,
    group_id: String,
    group_name: String,
    group_description: String,
    ip_permissions: Set<PermissionItem>,
    /// Nothing is refused on the way out. Left out, as `ipv6Ranges` is, for clients older than these lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_permissions_egress: Option<Set<PermissionItem>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PermissionItem {
    ip_protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_port: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_port: Option<i32>,
    groups: Set<GrantItem>,
    ip_ranges: Set<RangeItem>,
    #[serde(skip_serializing_if = "Set::is_empty")]
    ipv6_ranges: Set<Range6Item>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GrantItem {
    user_id: String,
    group_id: String,
    group_name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RangeItem {
    cidr_ip: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Range6Item {
    cidr_ipv6: String,
}

fn of_rules(group: &SecurityGroup, value: impl Fn(&GrantedRule) -> Option<String>) -> Vec<String> {
    group.rules.iter().filter_map(value).collect()
}

/// Every filter that a group has a field for.
const FILTERS: &[Filter<SecurityGroup>] = &[
    ("description", |group| vec![group.description.clone()]),
    ("group-id", |group| vec![group.id.to_string()]),
    ("group-name", |group| vec![group.name.to_string()]),
    ("owner-id", |group| vec![group.project.to_string()]),
    ("ip-permission.cidr", |group| {
        of_rules(group, |granted| match granted.rule.source {
            Source::Range(range) if range.addr().is_ipv4() => Some(range.to_string()),
            Source::Range(_) | Source::Group(_) => None,
        })
    }),
    ("ip-permission.ipv6-cidr", |group| {
        of_rules(group, |granted| match granted.rule.source {
            Source::Range(range) if range.addr().is_ipv6() => Some(range.to_string()),
            Source::Range(_) | Source::Group(_) => None,
        })
    }),
    ("ip-permission.protocol", |group| of_rules(group, |granted| Some(granted.rule.traffic.protocol().to_owned()))),
    ("ip-permission.from-port", |group| of_rules(group, |granted| Some(granted.rule.traffic.numbers()?.0.to_string()))),
    ("ip-permission.to-port", |group| of_rules(group, |granted| Some(granted.rule.traffic.numbers()?.1.to_string()))),
    ("ip-permission.group-id", |group| {
        of_rules(group, |granted| match granted.rule.source {
            Source::Group(id) => Some(id.to_string()),
            Source::Range(_) => None,
        })
    }),
    ("ip-permission.group-name", |group| of_rules(group, |granted| Some(granted.source_group.as_ref()?.1.to_string()))),
    ("ip-permission.user-id", |group| of_rules(group, |granted| Some(granted.source_group.as_ref()?.0.to_string()))),
];

impl Action for DescribeSecurityGroups {
    type Response = DescribeSecurityGroupsResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        let names: Vec<GroupName> = params.list("GroupName")?;
        let ids: Vec<SecurityGroupId> = params.list("GroupId")?;
        let wanted = names.into_iter().map(GroupRef::Name).chain(ids.into_iter().map(GroupRef::Id)).collect();
        let filters = Filters::parse(params, FILTERS)?;
        Ok(Self { wanted, filters, page: Page::parse(params, "DescribeSecurityGroups")? })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<DescribeSecurityGroupsResponse, Error> {
        let mut groups = describe!(cloud.db, &caller.names(), |conn| -> Error {
            Ok(security_groups::list(conn, Some(&caller.project)).await?)
        })?;
        if !groups.iter().any(|group| group.name == GroupName::default_group()) {
            groups = transaction!(cloud.db, |tx| -> Error {
                security_groups::ensure_default(tx, &caller.project, &caller.user).await?;
                Ok(security_groups::list(tx, Some(&caller.project)).await?)
            })?;
        }
        if let Some(absent) = self.wanted.iter().find(|wanted| !groups.iter().any(|group| is(group, wanted))) {
            return Err(Error::NoSuchGroup(spelled(absent)));
        }
        let named =
            |group: &SecurityGroup| self.wanted.is_empty() || self.wanted.iter().any(|wanted| is(group, wanted));
        let selected = groups.into_iter().filter(|group| named(group) && self.filters.admit(group));
        let (groups, next_token) = self.page.cut(selected, |group| group.id);
        let items = groups.iter().map(|group| item(group, caller.version));
        Ok(DescribeSecurityGroupsResponse { security_group_info: items.collect(), next_token })
    }
}

fn is(group: &SecurityGroup, wanted: &GroupRef) -> bool {
    match wanted {
        GroupRef::Id(id) => group.id == *id,
        GroupRef::Name(name) => group.name == *name,
    }
}

/// Spells a group as the client did.
pub(super) fn spelled(group: &GroupRef) -> String {
    match group {
        GroupRef::Id(id) => id.to_string(),
        GroupRef::Name(name) => name.to_string(),
    }
}

fn item(group: &SecurityGroup, version: ApiVersion) -> GroupItem {
    GroupItem {
        owner_id: group.project.to_string(),
        group_id: group.id.to_string(),
        group_name: group.name.to_string(),
        group_description: group.description.clone(),
        ip_permissions: permissions(&group.rules, version).into(),
        ip_permissions_egress: version.knows_nested_lists().then(Set::default),
    }
}

/// One item for each kind of traffic, with all who may send it: as EC2 shows rules.
///
/// A client of 1.x knows no list of IPv6 ranges: it finds them among the others, as in old Nova.
fn permissions(rules: &[GrantedRule], version: ApiVersion) -> Vec<PermissionItem> {
    let mut kinds: Vec<Traffic> = Vec::new();
    for granted in rules {
        if !kinds.contains(&granted.rule.traffic) {
            kinds.push(granted.rule.traffic);
        }
    }
    kinds
        .into_iter()
        .map(|kind| permission(kind, rules.iter().filter(|granted| granted.rule.traffic == kind), version))
        .collect()
}

fn permission<'a>(
    traffic: Traffic,
    rules: impl Iterator<Item = &'a GrantedRule>,
    version: ApiVersion,
) -> PermissionItem {
    let (mut groups, mut ranges, mut ranges6) = (Vec::new(), Vec::new(), Vec::new());
    for granted in rules {
        match granted.rule.source {
            Source::Range(range) if range.addr().is_ipv6() && version.knows_nested_lists() => {
                ranges6.push(Range6Item { cidr_ipv6: range.to_string() });
            }
            Source::Range(range) => ranges.push(RangeItem { cidr_ip: range.to_string() }),
            Source::Group(id) => {
                let (owner, name) = granted
                    .source_group
                    .as_ref()
                    .map_or_else(Default::default, |(owner, name)| (owner.to_string(), name.to_string()));
                groups.push(GrantItem { user_id: owner, group_id: id.to_string(), group_name: name });
            }
        }
    }
    let numbers = traffic.numbers();
    PermissionItem {
        ip_protocol: traffic.protocol(),
        from_port: numbers.map(|(from, _)| from),
        to_port: numbers.map(|(_, to)| to),
        groups: groups.into(),
        ip_ranges: ranges.into(),
        ipv6_ranges: ranges6.into(),
    }
}
