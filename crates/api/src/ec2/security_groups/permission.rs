//! The rules in a request: the flat form of 2009 (`IpProtocol`, `FromPort`, …) and `IpPermissions.N`.

use nova_aws::Params;
use nova_db::security_groups::GroupRef;
use nova_types::rule::{Ports, Source, Traffic};
use nova_types::{GroupName, ProjectId, SecurityGroupId};

use crate::error::Error;

/// A rule as asked for: a source group is still only named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Permission {
    pub(super) traffic: Vec<Traffic>,
    pub(super) sources: Vec<Wanted>,
}

/// Whom a rule lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A range of addresses.
    Range(Source),
    /// A group, of the caller's project unless an owner is given.
    Group { owner: Option<ProjectId>, group: GroupRef },
}

/// Everything that a grant of a group without ports opens, as EC2 of 2009 defined it.
const WHOLE_GROUP: [Traffic; 3] =
    [Traffic::Tcp(Ports::ALL), Traffic::Udp(Ports::ALL), Traffic::Icmp(nova_types::rule::Icmp::Any)];

/// Reads all rules of a request, of either form; one is needed.
pub(super) fn parse(params: &mut Params) -> Result<Vec<Permission>, Error> {
    let mut nested = Vec::new();
    // The cursor reports its own errors; rules have another error type, so they are collected and read after.
    let raw = params.structs("IpPermissions", |permission| {
        let ranges = permission.structs("IpRanges", |range| {
            range.take::<String>("Description")?;
            range.required::<String>("CidrIp")
        })?;
        let ranges6 = permission.structs("Ipv6Ranges", |range| {
            range.take::<String>("Description")?;
            range.required::<String>("CidrIpv6")
        })?;
        let groups = permission.structs("Groups", |group| {
            group.take::<String>("Description")?;
            Ok((group.take("UserId")?, group.take("GroupId")?, group.take("GroupName")?))
        })?;
        let protocol: String = permission.required("IpProtocol")?;
        let ports = (permission.take("FromPort")?, permission.take("ToPort")?);
        Ok((protocol, ports, [ranges, ranges6].concat(), groups))
    })?;
    for (protocol, (from, to), ranges, groups) in raw {
        let mut sources = Vec::with_capacity(ranges.len() + groups.len());
        for range in ranges {
            sources.push(Wanted::Range(Source::range(&range)?));
        }
        for (owner, id, name) in groups {
            sources.push(source_group(owner, id, name)?);
        }
        if sources.is_empty() {
            return Err(params.missing("IpPermissions.1.IpRanges.1.CidrIp").into());
        }
        nested.push(Permission { traffic: vec![Traffic::parse(&protocol, from, to)?], sources });
    }
    match flat(params)? {
        Some(_) if !nested.is_empty() => Err(Error::TwoFormsOfRules),
        Some(permission) => Ok(vec![permission]),
        None if nested.is_empty() => Err(params.missing("IpPermissions").into()),
        None => Ok(nested),
    }
}

/// Reads the flat form. `CidrIp` is everyone where neither it nor a group is given (euca2ools 1.2).
fn flat(params: &mut Params) -> Result<Option<Permission>, Error> {
    let protocol: Option<String> = params.take("IpProtocol")?;
    let (from, to) = (params.take("FromPort")?, params.take("ToPort")?);
    let cidr: Option<String> = params.take("CidrIp")?;
    let name: Option<GroupName> = params.take("SourceSecurityGroupName")?;
    let id: Option<SecurityGroupId> = params.take("SourceSecurityGroupId")?;
    let owner: Option<String> = params.take("SourceSecurityGroupOwnerId")?;
    // Accepted and unused, as in Nova (nova-api §4.5).
    params.take::<String>("UserId")?;
    if protocol.is_none() && name.is_none() && id.is_none() && cidr.is_none() {
        return Ok(None);
    }
    let source = if name.is_some() || id.is_some() {
        source_group(
            owner.filter(|owner| !owner.is_empty()),
            id.map(|id| id.to_string()),
            name.map(|name| name.to_string()),
        )?
    } else {
        Wanted::Range(Source::range(&unquoted(cidr.as_deref().unwrap_or("0.0.0.0/0")))?)
    };
    let traffic = match protocol.filter(|protocol| !protocol.is_empty()) {
        Some(protocol) => vec![Traffic::parse(&protocol, from, to)?],
        None if matches!(source, Wanted::Group { .. }) => WHOLE_GROUP.to_vec(),
        None => return Err(params.missing("IpProtocol").into()),
    };
    Ok(Some(Permission { traffic, sources: vec![source] }))
}

/// boto 1.x percent-encodes the range a second time when it authorizes (nova-api §4.5).
fn unquoted(cidr: &str) -> String {
    cidr.replace("%2F", "/").replace("%2f", "/").replace("%3A", ":").replace("%3a", ":")
}

/// An owner is a project, or as old tools write it `user:project`.
fn source_group(owner: Option<String>, id: Option<String>, name: Option<String>) -> Result<Wanted, Error> {
    let owner = owner.map(|owner| owner.rsplit(':').next().unwrap_or_default().parse::<ProjectId>()).transpose();
    let owner = owner.map_err(|_| Error::NoSuchGroup(name.clone().or_else(|| id.clone()).unwrap_or_default()))?;
    let group = match (id.filter(|id| !id.is_empty()), name) {
        (Some(id), _) => GroupRef::Id(id.parse().map_err(|_| Error::NoSuchGroup(id))?),
        (None, Some(name)) => GroupRef::Name(name.parse().map_err(|_| Error::NoSuchGroup(name))?),
        (None, None) => return Err(Error::NoSuchGroup(String::new())),
    };
    Ok(Wanted::Group { owner, group })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn read(query: &str) -> Result<Vec<Permission>, Error> {
        let [pairs] = nova_aws::decode([query.as_bytes()]).unwrap();
        let mut params = Params::new(pairs);
        let permissions = parse(&mut params)?;
        params.finish()?;
        Ok(permissions)
    }

    #[test]
    fn both_forms_of_a_rule_mean_the_same() {
        let flat = read("IpProtocol=tcp&FromPort=22&ToPort=22&CidrIp=10.0.0.0%252F8").unwrap();
        let nested = read(
            "IpPermissions.1.IpProtocol=tcp&IpPermissions.1.FromPort=22&IpPermissions.1.ToPort=22\
             &IpPermissions.1.IpRanges.1.CidrIp=10.0.0.0%2F8&IpPermissions.1.IpRanges.1.Description=office",
        );
        assert_eq!(flat, nested.unwrap());
    }

    #[test]
    fn a_rule_without_a_range_is_for_everyone() {
        let permissions = read("IpProtocol=icmp&FromPort=-1&ToPort=-1").unwrap();
        assert_eq!(permissions[0].sources, [Wanted::Range(Source::EVERYONE)]);
    }

    #[test]
    fn a_grant_of_a_group_alone_opens_everything_to_it() {
        let permissions = read("SourceSecurityGroupName=web&SourceSecurityGroupOwnerId=joe%3Aproj").unwrap();
        let shown: Vec<String> = permissions[0].traffic.iter().map(ToString::to_string).collect();
        expect![[r#"["tcp 0-65535", "udp 0-65535", "icmp -1"]"#]].assert_eq(&format!("{shown:?}"));
        let Wanted::Group { owner, .. } = &permissions[0].sources[0] else { panic!("a group was asked for") };
        assert_eq!(owner.as_ref().map(ToString::to_string).as_deref(), Some("proj"));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (query, code) in [
            ("", "MissingParameter"),
            ("CidrIp=10.0.0.0%2F8", "MissingParameter"),
            ("IpProtocol=tcp&FromPort=22&ToPort=22&CidrIp=10.0.0.1%2F8", "InvalidParameterValue"),
            ("IpProtocol=tcp&FromPort=23&ToPort=22", "InvalidParameterValue"),
            ("IpProtocol=gre", "InvalidPermission.Malformed"),
            ("IpProtocol=tcp&FromPort=abc&ToPort=22", "InvalidParameterValue"),
            ("IpPermissions.1.IpProtocol=tcp&IpPermissions.1.FromPort=1&IpPermissions.1.ToPort=1", "MissingParameter"),
        ] {
            assert_eq!(read(query).unwrap_err().ec2().0, code, "{query}");
        }
    }
}
