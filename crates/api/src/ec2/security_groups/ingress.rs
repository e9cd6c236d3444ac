//! `AuthorizeSecurityGroupIngress` and `RevokeSecurityGroupIngress`.

use futures::future::join_all;
use nova_aws::{Params, Return};
use nova_db::security_groups::{self, GroupRef};
use nova_db::{Tx, transaction};
use nova_types::rule::{Rule, Source};
use nova_types::{HostName, SecurityGroupId};
use nova_wire::ComputeCall;

use super::permission::{self, Permission, Wanted};
use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// The most rules that a group may have (S-62).
const MOST_RULES: u32 = 200;

/// A group, and rules for it.
#[derive(Debug)]
struct Ingress {
    group: GroupRef,
    permissions: Vec<Permission>,
}

impl Ingress {
    fn parse(params: &mut Params) -> Result<Self, Error> {
        Ok(Self { group: super::group(params)?, permissions: permission::parse(params)? })
    }

    /// Finds the group and spells the rules out: every source with every kind of traffic.
    async fn resolve(&self, tx: &mut Tx, caller: &Caller) -> Result<(SecurityGroupId, Vec<Rule>), Error> {
        security_groups::ensure_default(tx, &caller.project, &caller.user).await?;
        let found = security_groups::resolve(tx, &caller.project, std::slice::from_ref(&self.group)).await?;
        let (group, _) = found.into_iter().next().ok_or_else(|| Error::NoSuchGroup(String::new()))?;
        let mut rules = Vec::new();
        for permission in &self.permissions {
            for wanted in &permission.sources {
                let source = source(tx, wanted, caller).await?;
                for traffic in &permission.traffic {
                    rules.push(Rule::new(*traffic, source)?);
                }
            }
        }
        Ok((group, rules))
    }
}

async fn source(tx: &mut Tx, wanted: &Wanted, caller: &Caller) -> Result<Source, Error> {
    match wanted {
        Wanted::Range(range) => Ok(*range),
        Wanted::Group { owner, group } => {
            let owner = owner.as_ref().unwrap_or(&caller.project);
            let found = security_groups::find_any(tx, owner, group).await?;
            found.map(Source::Group).ok_or_else(|| Error::NoSuchGroup(super::describe::spelled(group)))
        }
    }
}

/// Tells the hosts of the group's members. Their ticks would find the change anyway, a second later.
async fn tell(cloud: &Cloud, group: SecurityGroupId, hosts: Vec<HostName>) {
    let call = ComputeCall::RefreshSecurityGroupRules { security_group_ids: vec![group.number()] };
    join_all(hosts.iter().map(|host| cloud.hint_compute(host, call.clone()))).await;
}

/// Adds rules: all of them, or none if one is there already.
#[derive(Debug)]
pub(crate) struct AuthorizeSecurityGroupIngress(Ingress);

impl Action for AuthorizeSecurityGroupIngress {
    type Response = Return;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        Ingress::parse(params).map(Self)
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Return, Error> {
        let (group, hosts) = transaction!(cloud.db, |tx| -> Error {
            let (group, rules) = self.0.resolve(tx, caller).await?;
            Ok((group, security_groups::add_rules(tx, &caller.project, group, &rules, MOST_RULES).await?))
        })?;
        tell(cloud, group, hosts).await;
        Ok(Return)
    }
}

/// Takes rules away: all of them, or none if one is not there.
#[derive(Debug)]
pub(crate) struct RevokeSecurityGroupIngress(Ingress);

impl Action for RevokeSecurityGroupIngress {
    type Response = Return;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        Ingress::parse(params).map(Self)
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Return, Error> {
        let (group, hosts) = transaction!(cloud.db, |tx| -> Error {
            let (group, rules) = self.0.resolve(tx, caller).await?;
            Ok((group, security_groups::remove_rules(tx, &caller.project, group, &rules).await?))
        })?;
        tell(cloud, group, hosts).await;
        Ok(Return)
    }
}
