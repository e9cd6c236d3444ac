//! Security groups: `CreateSecurityGroup`, `DescribeSecurityGroups`, `DeleteSecurityGroup`,
//! `AuthorizeSecurityGroupIngress`, `RevokeSecurityGroupIngress`.
//!
//! A group is named by name or by id, and always one of the caller's project.

mod describe;
mod ingress;
mod permission;

use nova_aws::{Params, Return};
use nova_db::security_groups::{self, GroupRef, NewGroup};
use nova_db::transaction;
use nova_types::{GroupName, SecurityGroupId};
use serde::Serialize;

pub(crate) use describe::DescribeSecurityGroups;
pub(crate) use ingress::{AuthorizeSecurityGroupIngress, RevokeSecurityGroupIngress};

use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// The most groups that a project may have (S-62).
const MOST_GROUPS: u32 = 500;
/// The longest description.
const MOST_DESCRIPTION: usize = 255;

/// Makes an empty group.
#[derive(Debug)]
pub(crate) struct CreateSecurityGroup {
    name: GroupName,
    description: String,
}

/// The answer to [`CreateSecurityGroup`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateSecurityGroupResponse {
    #[serde(rename = "return")]
    done: bool,
    group_id: String,
}

impl Action for CreateSecurityGroup {
    type Response = CreateSecurityGroupResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        let name = params.required("GroupName")?;
        let description: String = params.take("GroupDescription")?.unwrap_or_default();
        if description.chars().count() > MOST_DESCRIPTION {
            return Err(params.malformed("GroupDescription", description, "at most 255 characters").into());
        }
        Ok(Self { name, description })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<CreateSecurityGroupResponse, Error> {
        let new =
            NewGroup { project: &caller.project, user: &caller.user, name: &self.name, description: &self.description };
        let id = transaction!(cloud.db, |tx| -> Error {
            // So that nobody can make a group called `default` in its place.
            security_groups::ensure_default(tx, &caller.project, &caller.user).await?;
            Ok(security_groups::create(tx, &new, MOST_GROUPS).await?)
        })?;
        Ok(CreateSecurityGroupResponse { done: true, group_id: id.to_string() })
    }
}

/// Deletes a group that no instance is in and no other group names.
#[derive(Debug)]
pub(crate) struct DeleteSecurityGroup(GroupRef);

impl Action for DeleteSecurityGroup {
    type Response = Return;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        group(params).map(Self)
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Return, Error> {
        transaction!(cloud.db, |tx| -> Error {
            let found = security_groups::resolve(tx, &caller.project, std::slice::from_ref(&self.0)).await?;
            for (id, _) in found {
                security_groups::delete(tx, &caller.project, id).await?;
            }
            Ok(())
        })?;
        Ok(Return)
    }
}

/// Reads the one group that an action is about: `GroupId`, else `GroupName`.
fn group(params: &mut Params) -> Result<GroupRef, Error> {
    let id: Option<SecurityGroupId> = params.take("GroupId")?;
    let name: Option<GroupName> = params.take("GroupName")?;
    match (id, name) {
        (Some(id), _) => Ok(GroupRef::Id(id)),
        (None, Some(name)) => Ok(GroupRef::Name(name)),
        (None, None) => Err(params.missing("GroupName").into()),
    }
}

#[cfg(test)]
mod tests;
