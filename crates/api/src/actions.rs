//! The one list of EC2 actions. The router, authorization and the tests all read it; what is not in it does not exist.

use futures::future::BoxFuture;
use nova_aws::{Params, response_document};
use nova_types::account::{Identity, Role};
use serde::Serialize;

use crate::{caller::Caller, cloud::Cloud, ec2, error::Error};

/// One EC2 action, as a request that was read and can be done.
pub(crate) trait Action: Sized + Send {
    /// What the client gets; its fields are the elements of the answer.
    type Response: Serialize + Send;

    /// Takes the action's parameters. What is left in `params` is refused afterwards.
    fn parse(params: &mut Params) -> Result<Self, Error>;

    /// Does it, for `caller`, who is authorized.
    fn run(self, caller: &Caller, cloud: &Cloud) -> impl Future<Output = Result<Self::Response, Error>> + Send;
}

/// Who may call an action (nova-api §3.2). Superusers may call all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Any member of the project.
    Member,
    /// The project's manager, or a `sysadmin` of it.
    SysAdmin,
    /// A `netadmin` of the project.
    NetAdmin,
}

/// A line of the list.
pub(crate) struct Entry {
    /// The action as clients spell it.
    pub(crate) name: &'static str,
    /// Who may call it.
    pub(crate) needs: Needs,
    perform: Perform,
}

type Perform = for<'a> fn(&'static str, Params, &'a Caller, &'a Cloud) -> BoxFuture<'a, Result<String, Error>>;

macro_rules! actions {
    ($($name:ident => $request:ty, needs: $needs:ident;)*) => {
        /// Every action there is.
        pub(crate) static ACTIONS: &[Entry] = &[
            $(Entry { name: stringify!($name), needs: Needs::$needs, perform: perform::<$request> },)*
        ];
    };
}

actions! {
    DescribeAvailabilityZones => ec2::availability_zones::DescribeAvailabilityZones, needs: Member;
    DescribeRegions           => ec2::regions::DescribeRegions,                      needs: Member;

    DescribeInstanceTypes     => ec2::instance_types::DescribeInstanceTypes,         needs: Member;

    CreateKeyPair             => ec2::key_pairs::CreateKeyPair,                      needs: Member;
    DeleteKeyPair             => ec2::key_pairs::DeleteKeyPair,                      needs: Member;
    DescribeKeyPairs          => ec2::key_pairs::DescribeKeyPairs,                   needs: Member;
    ImportKeyPair             => ec2::key_pairs::ImportKeyPair,                      needs: Member;

    CreateSecurityGroup           => ec2::security_groups::CreateSecurityGroup,           needs: NetAdmin;
    DescribeSecurityGroups        => ec2::security_groups::DescribeSecurityGroups,        needs: Member;
    DeleteSecurityGroup           => ec2::security_groups::DeleteSecurityGroup,           needs: NetAdmin;
    AuthorizeSecurityGroupIngress => ec2::security_groups::AuthorizeSecurityGroupIngress, needs: NetAdmin;
    RevokeSecurityGroupIngress    => ec2::security_groups::RevokeSecurityGroupIngress,    needs: NetAdmin;

    AllocateAddress           => ec2::addresses::AllocateAddress,                    needs: NetAdmin;
    AssociateAddress          => ec2::addresses::AssociateAddress,                   needs: NetAdmin;
    DescribeAddresses         => ec2::addresses::DescribeAddresses,                  needs: Member;
    DescribeAddressesAttribute => ec2::addresses::DescribeAddressesAttribute,        needs: Member;
    DisassociateAddress       => ec2::addresses::DisassociateAddress,                needs: NetAdmin;
    ReleaseAddress            => ec2::addresses::ReleaseAddress,                     needs: NetAdmin;

    DescribeImages            => ec2::images::DescribeImages,                        needs: Member;

    RunInstances              => ec2::instances::RunInstances,                       needs: SysAdmin;
    DescribeInstances         => ec2::instances::DescribeInstances,                  needs: Member;
    DescribeInstancesV6       => ec2::instances::DescribeInstancesV6,                needs: Member;
    DescribeInstanceStatus    => ec2::instances::DescribeInstanceStatus,             needs: Member;
    TerminateInstances        => ec2::instances::TerminateInstances,                 needs: SysAdmin;
    RebootInstances           => ec2::instances::RebootInstances,                    needs: SysAdmin;
    StopInstances             => ec2::instances::StopInstances,                      needs: SysAdmin;
    StartInstances            => ec2::instances::StartInstances,                     needs: SysAdmin;
    GetConsoleOutput          => ec2::instances::GetConsoleOutput,                   needs: SysAdmin;
}

impl Entry {
    /// Finds the action called exactly `name`.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        ACTIONS.iter().find(|entry| entry.name == name)
    }

    /// Tells whether the action changes nothing.
    pub(crate) fn only_reads(&self) -> bool {
        ["Describe", "Get"].iter().any(|verb| self.name.starts_with(verb))
    }

    /// Reads, does and renders the action.
    pub(crate) async fn perform(&self, params: Params, caller: &Caller, cloud: &Cloud) -> Result<String, Error> {
        (self.perform)(self.name, params, caller, cloud).await
    }
}

impl Needs {
    /// Tells whether `identity`, a member of its project or an administrator, may call such an action.
    pub(crate) fn allow(self, identity: &Identity) -> bool {
        identity.is_superuser()
            || match self {
                Self::Member => true,
                Self::SysAdmin => identity.is_project_manager() || identity.has_role(Role::SysAdmin),
                Self::NetAdmin => identity.has_role(Role::NetAdmin),
            }
    }
}

fn perform<'a, A: Action>(
    name: &'static str,
    mut params: Params,
    caller: &'a Caller,
    cloud: &'a Cloud,
) -> BoxFuture<'a, Result<String, Error>> {
    Box::pin(async move {
        let dry_run = params.flag("DryRun")?;
        let action = A::parse(&mut params)?;
        params.finish()?;
        if dry_run {
            return Err(Error::DryRun);
        }
        let response = action.run(caller, cloud).await?;
        Ok(response_document(name, caller.version, caller.request_id, &response)?)
    })
}

#[cfg(test)]
mod tests;
