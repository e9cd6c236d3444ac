//! What the firewall of one host must enforce, and a cheap way to see whether that has changed.
//!
//! A guest counts from the moment its address is taken until the address is given back, whatever its state says: rules
//! are there before it starts and until after it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nova_types::rule::Source;
use nova_types::security_group::{GroupMembers, GroupRules, GuestIpv6, GuestPort, HostFirewall};
use nova_types::{HostName, InstanceId, NetworkId, Prefix64, ProjectId, SecurityGroupId};
use tracing::warn;

use super::rules;
use crate::{Conn, DbError, Row, routers};

/// A mark of everything that a host's firewall depends on: where it is the same, nothing has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirewallStamp {
    /// The version of every group that a guest is in, and of every group that one of those lets in.
    groups: BTreeMap<i32, i32>,
    /// For every network with a guest here: how many addresses are held, and two sums over their holders; its prefix and
    /// router of IPv6.
    networks: BTreeMap<i32, NetworkMark>,
    /// This host's own addresses: its guests are served from there.
    routers: BTreeMap<NetworkId, std::net::Ipv4Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NetworkMark {
    held: i64,
    sums: (i64, i64),
    ipv6: (Option<String>, Option<String>),
}

/// Reads the mark of a host: three queries, no row per guest. Read it **before** [`for_host`], so that a change in
/// between is seen the next time.
///
/// # Errors
/// Only where the database fails.
pub async fn changed(conn: &mut Conn, host: &HostName) -> Result<FirewallStamp, DbError> {
    const GROUPS: &str = "
        select g.id, g.version from security_groups g where g.deleted = false and g.id in (
          select a.security_group_id
            from instances i
            join security_group_instance_association a on a.instance_id = i.id and a.deleted = false
           where i.host = ? and i.deleted = false
          union
          select r.group_id
            from instances i
            join security_group_instance_association a on a.instance_id = i.id and a.deleted = false
            join security_group_rules r on r.parent_group_id = a.security_group_id and r.deleted = false
           where i.host = ? and i.deleted = false and r.group_id is not null)";
    // The remainder keeps the sum of squares within 64 bits; together the sums tell any usual exchange of holders.
    const NETWORKS: &str = "
        select f.network_id, count(*) as held, cast(sum(f.instance_id) as {big}) as first,
               cast(sum((f.instance_id % 4093) * (f.instance_id % 4093)) as {big}) as second,
               max(n.cidr_v6) as prefix, max(n.ra_server) as router
          from fixed_ips f join networks n on n.id = f.network_id
         where f.instance_id is not null and f.deleted = false and f.network_id in (
               select h.network_id from fixed_ips h join instances i on i.id = h.instance_id
                where i.host = ? and i.deleted = false and h.deleted = false)
         group by f.network_id";
    let mut stamp = FirewallStamp::default();
    for row in conn.all(GROUPS, &[host.into(), host.into()]).await? {
        stamp.groups.insert(row.get("id")?, row.get("version")?);
    }
    for row in conn.all(NETWORKS, &[host.into()]).await? {
        let mark = NetworkMark {
            held: row.get("held")?,
            sums: (row.get("first")?, row.get("second")?),
            ipv6: (row.get("prefix")?, row.get("router")?),
        };
        stamp.networks.insert(row.get("network_id")?, mark);
    }
    stamp.routers = routers::of_host(conn, host).await?;
    Ok(stamp)
}

/// Reads all that the firewall of a host needs, in five queries. All lists are in ascending order.
///
/// A guest or a rule whose row makes no sense is logged and left out, which shuts it off and disturbs nobody else. Without
/// `ipv6`, no guest has any.
///
/// # Errors
/// Only where the database fails.
pub async fn for_host(conn: &mut Conn, host: &HostName, ipv6: bool) -> Result<HostFirewall, DbError> {
    const GUESTS: &str = "
        select i.id, i.project_id, i.mac_address, f.address, f.network_id, n.bridge,
               coalesce(r.address, n.gateway) as gateway, n.cidr_v6, n.ra_server
          from instances i
          join fixed_ips f on f.instance_id = i.id and f.deleted = false
          join networks n on n.id = f.network_id
          left join fixed_ips r on r.network_id = f.network_id and r.host = i.host and r.deleted = false
         where i.host = ? and i.deleted = false order by i.id";
    const GROUPS: &str = "
        select a.instance_id, a.security_group_id
          from instances i
          join security_group_instance_association a on a.instance_id = i.id and a.deleted = false
         where i.host = ? and i.deleted = false order by a.instance_id, a.security_group_id";
    const RULES: &str = "
        select id, parent_group_id, protocol, from_port, to_port, cidr, group_id
          from security_group_rules where parent_group_id in (?..) and deleted = false order by id";
    const MEMBERS: &str = "
        select a.security_group_id, f.address, i.mac_address, n.cidr_v6
          from security_group_instance_association a
          join fixed_ips f on f.instance_id = a.instance_id and f.deleted = false
          join instances i on i.id = a.instance_id
          join networks n on n.id = f.network_id
         where a.security_group_id in (?..) and a.deleted = false";
    const NEIGHBOURS: &str = "
        select i.project_id, f.address, i.mac_address, n.cidr_v6
          from fixed_ips f join instances i on i.id = f.instance_id and i.deleted = false
          join networks n on n.id = f.network_id
         where f.network_id in (?..) and f.deleted = false and i.project_id in (?..)";

    let mut guests = Vec::new();
    let mut networks = BTreeSet::new();
    for row in conn.all(GUESTS, &[host.into()]).await? {
        match guest(&row, ipv6) {
            Ok((guest, network)) => {
                networks.insert(network);
                guests.push(guest);
            }
            Err(error) => warn!(host = %host, error = %error, "A guest's row makes no sense; it is shut off."),
        }
    }
    for row in conn.all(GROUPS, &[host.into()]).await? {
        let (instance, group) = (row.get("instance_id")?, row.get("security_group_id")?);
        if let Ok(at) = guests.binary_search_by_key(&InstanceId::from_row(instance), |guest| guest.instance) {
            guests[at].groups.push(SecurityGroupId::from_row(group));
        }
    }
    let ids: BTreeSet<SecurityGroupId> = guests.iter().flat_map(|guest| guest.groups.iter().copied()).collect();
    let groups = group_rules(&conn.all(RULES, &[keys(&ids).into()]).await?, &ids)?;
    let sources: BTreeSet<SecurityGroupId> =
        groups.iter().flat_map(|group| group.rules.iter().filter_map(source)).collect();
    let members = conn.all(MEMBERS, &[keys(&sources).into()]).await?;
    let members = gathered(&members, sources, ipv6, |row| row.get("security_group_id").map(SecurityGroupId::from_row))?;
    let owners: BTreeSet<ProjectId> = guests.iter().map(|guest| guest.project.clone()).collect();
    let names: Vec<String> = owners.iter().map(ProjectId::to_string).collect();
    let networks: Vec<i32> = networks.into_iter().map(NetworkId::row).collect();
    let neighbours = conn.all(NEIGHBOURS, &[networks.into(), names.into()]).await?;
    let projects = gathered(&neighbours, owners, ipv6, |row| row.parse("project_id"))?;
    let members = members.into_iter().map(|(id, addresses)| GroupMembers { id, addresses }).collect();
    Ok(HostFirewall { guests, groups, members, projects })
}

/// Lists the hosts with a guest in one of the groups.
///
/// # Errors
/// Only where the database fails.
pub async fn hosts_of(conn: &mut Conn, groups: &[SecurityGroupId]) -> Result<Vec<HostName>, DbError> {
    const HOSTS: &str = "
        select distinct i.host
          from security_group_instance_association a
          join instances i on i.id = a.instance_id and i.deleted = false
         where a.security_group_id in (?..) and a.deleted = false and i.host is not null
           and i.vm_state not in ('terminated', 'error')
         order by i.host";
    conn.all(HOSTS, &[groups.into()]).await?.iter().map(|row| row.parse("host")).collect()
}

/// Lists the hosts with a guest whose rules let one of the groups in: those that must hear when members come and go
/// (`refresh_security_group_members`).
///
/// # Errors
/// Only where the database fails.
pub async fn hosts_referring_to(conn: &mut Conn, groups: &[SecurityGroupId]) -> Result<Vec<HostName>, DbError> {
    const HOSTS: &str = "
        select distinct i.host
          from security_group_rules r
          join security_group_instance_association a on a.security_group_id = r.parent_group_id and a.deleted = false
          join instances i on i.id = a.instance_id and i.deleted = false
         where r.group_id in (?..) and r.deleted = false and i.host is not null
           and i.vm_state not in ('terminated', 'error')
         order by i.host";
    conn.all(HOSTS, &[groups.into()]).await?.iter().map(|row| row.parse("host")).collect()
}

/// Counts a change for the groups of instances that just got or lost their address, inside the same transaction.
/// Groups that no rule lets in are left alone, so that launches do not wait for each other. Returns the groups touched,
/// for [`hosts_referring_to`].
///
/// # Errors
/// Only where the database fails.
pub async fn touch_members_of(tx: &mut Conn, instances: &[InstanceId]) -> Result<Vec<SecurityGroupId>, DbError> {
    const NAMED: &str = "
        select distinct a.security_group_id as id
          from security_group_instance_association a
          join security_group_rules r on r.group_id = a.security_group_id and r.deleted = false
         where a.instance_id in (?..) and a.deleted = false order by a.security_group_id";
    const TOUCH: &str = "update security_groups set version = version + 1, updated_at = {now} where id in (?..)";
    let mut touched = Vec::new();
    for row in tx.all(NAMED, &[instances.into()]).await? {
        touched.push(SecurityGroupId::from_row(row.get("id")?));
    }
    if !touched.is_empty() {
        tx.execute(TOUCH, &[touched.as_slice().into()]).await?;
    }
    Ok(touched)
}

fn keys(ids: &BTreeSet<SecurityGroupId>) -> Vec<i32> {
    ids.iter().map(|id| id.row()).collect()
}

const fn source(rule: &nova_types::rule::Rule) -> Option<SecurityGroupId> {
    match rule.source {
        Source::Group(id) => Some(id),
        Source::Range(_) => None,
    }
}

fn guest(row: &Row, ipv6: bool) -> Result<(GuestPort, NetworkId), DbError> {
    let router = row.parse_some("ra_server").unwrap_or_default();
    let guest = GuestPort {
        instance: InstanceId::from_row(row.get("id")?),
        project: row.parse("project_id")?,
        mac: row.parse("mac_address")?,
        address: row.parse("address")?,
        ipv6: address6(row, ipv6).map(|address| GuestIpv6 { address, router }),
        bridge: row.get("bridge")?,
        dhcp_server: row.parse("gateway")?,
        groups: Vec::new(),
    };
    Ok((guest, NetworkId::from_row(row.get("network_id")?)))
}

fn group_rules(rows: &[Row], ids: &BTreeSet<SecurityGroupId>) -> Result<Vec<GroupRules>, DbError> {
    let mut all: Vec<GroupRules> = ids.iter().map(|id| GroupRules { id: *id, rules: Vec::new() }).collect();
    for row in rows {
        let group = SecurityGroupId::from_row(row.get("parent_group_id")?);
        match (rules::read(row), all.binary_search_by_key(&group, |group| group.id)) {
            (Ok(rule), Ok(at)) => all[at].rules.push(rule),
            (Err(error), _) => {
                warn!(group.id = %group, error = %error, "A rule's row makes no sense; it lets nobody in.")
            }
            (Ok(_), Err(_)) => {}
        }
    }
    Ok(all)
}

/// The address that a guest makes of its network's prefix. What makes no sense is none, and shuts off nothing else.
fn address6(row: &Row, ipv6: bool) -> Option<Ipv6Addr> {
    let prefix: Option<Prefix64> = row.parse_some("cidr_v6").ok().flatten().filter(|_| ipv6);
    Some(prefix?.address_of(row.parse("mac_address").ok()?))
}

/// Gathers the addresses of `rows` under each of `wanted`, in order; an address that is none is left out.
fn gathered<K: Ord>(
    rows: &[Row],
    wanted: BTreeSet<K>,
    ipv6: bool,
    key: impl Fn(&Row) -> Result<K, DbError>,
) -> Result<Vec<(K, Vec<IpAddr>)>, DbError> {
    let mut all: BTreeMap<K, Vec<IpAddr>> = wanted.into_iter().map(|key| (key, Vec::new())).collect();
    for row in rows {
        if let (Some(addresses), Ok(address)) = (all.get_mut(&key(row)?), row.parse::<Ipv4Addr>("address")) {
            addresses.push(address.into());
            addresses.extend(address6(row, ipv6).map(IpAddr::V6));
        }
    }
    all.values_mut().for_each(|addresses| addresses.sort_unstable());
    Ok(all.into_iter().collect())
}
