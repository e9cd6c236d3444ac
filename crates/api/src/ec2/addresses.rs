//! Floating addresses: `AllocateAddress`, `AssociateAddress`, `DisassociateAddress`, `ReleaseAddress`, `DescribeAddresses`.
//!
//! They are what EC2 Classic had: an address is named by itself, and belongs to no virtual private cloud. Clients of today ask for
//! one of a VPC and name it by its allocation; they are answered in these words.

mod describe;

use std::net::Ipv4Addr;

use nova_aws::{Param, Params, Return};
use nova_db::floating_ips::{self, Affected, FloatingError, FloatingIp, Wish};
use nova_db::{Tx, transaction};
use nova_failpoint::{Point, hit};
use nova_types::{AllocationId, AssociationId, InstanceId};
use serde::Serialize;

pub(crate) use describe::{DescribeAddresses, DescribeAddressesAttribute};

use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// Takes a free address for the project.
#[derive(Debug)]
pub(crate) struct AllocateAddress {
    domain: Domain,
}

/// The answer to [`AllocateAddress`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AllocateAddressResponse {
    public_ip: String,
    domain: &'static str,
    /// Left out, as in the other answers, for clients older than these ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    allocation_id: Option<String>,
}

impl Action for AllocateAddress {
    type Response = AllocateAddressResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        Ok(Self { domain: params.given("Domain")?.unwrap_or(Domain::Standard) })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<AllocateAddressResponse, Error> {
        let defaults = cloud.config.api.quotas();
        let (address, one) = transaction!(cloud.db, |tx| -> Error {
            let address = floating_ips::allocate(tx, &caller.project, &defaults).await?;
            if matches!(self.domain, Domain::Vpc) {
                floating_ips::mark_vpc(tx, address).await?;
            }
            let one = floating_ips::find_address(tx, caller.scope(), address).await?;
            hit(Point::AllocateAccepting);
            Ok((address, one))
        })?;
        hit(Point::AllocateAccepted);
        Ok(AllocateAddressResponse {
            public_ip: address.to_string(),
            domain: self.domain.word(),
            allocation_id: one.filter(|_| caller.version.knows_address_ids()).map(|one| one.id.to_string()),
        })
    }
}

/// Binds an address of the project to an instance of the project.
#[derive(Debug)]
pub(crate) struct AssociateAddress {
    address: Named,
    wish: Wish,
    moved: bool,
}

/// The answer to [`AssociateAddress`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AssociateAddressResponse {
    #[serde(rename = "return")]
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    association_id: Option<String>,
}

impl Action for AssociateAddress {
    type Response = AssociateAddressResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        let address = Named::parse(params)?;
        let instance: Option<InstanceId> = params.given("InstanceId")?;
        let fixed: Option<Ipv4Addr> = params.given("PrivateIpAddress")?;
        let wish = match (instance, fixed) {
            // Both may be given; an instance has one address, so they agree or nothing is found.
            (Some(instance), Some(fixed)) => Wish::Both(instance, fixed),
            (Some(instance), None) => Wish::Instance(instance),
            (None, Some(fixed)) => Wish::Fixed(fixed),
            (None, None) => return Err(params.missing("InstanceId").into()),
        };
        // In EC2 Classic an address always moves; who says no to that is listened to.
        Ok(Self { address, wish, moved: params.given("AllowReassociation")?.unwrap_or(true) })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<AssociateAddressResponse, Error> {
        let Self { address, wish, moved } = self;
        let (affected, one) = transaction!(cloud.db, |tx| -> Error {
            let address = address.resolve(tx, caller).await?;
            let affected = floating_ips::associate(tx, caller.scope(), address, wish, moved).await;
            let affected = affected.map_err(|error| of_wish(error, wish))?;
            let one = floating_ips::find_address(tx, caller.scope(), address).await?;
            hit(Point::AssociateAccepting);
            Ok((affected, one))
        })?;
        hit(Point::AssociateAccepted);
        tell(cloud, affected).await;
        hit(Point::AssociateHinted);
        let association = one.and_then(|one| one.association()).filter(|_| caller.version.knows_address_ids());
        Ok(AssociateAddressResponse { done: true, association_id: association.map(|id| id.to_string()) })
    }
}

/// Says of what the caller named what the database says of "the instance".
fn of_wish(error: FloatingError, wish: Wish) -> Error {
    match (error, wish) {
        (FloatingError::NoInstance, Wish::Instance(id) | Wish::Both(id, _)) => Error::NoSuchInstance(id),
        (FloatingError::NoInstance, Wish::Fixed(address)) => Error::NoSuchPrivateAddress(address),
        (FloatingError::NoFixedAddress, Wish::Instance(id)) => Error::IncorrectState(id),
        (FloatingError::NoFixedAddress, Wish::Fixed(address) | Wish::Both(_, address)) => {
            Error::NoSuchPrivateAddress(address)
        }
        (error, _) => error.into(),
    }
}

/// Takes an address from its instance; one that no instance has stays as it is.
#[derive(Debug)]
pub(crate) struct DisassociateAddress(Bound);

#[derive(Debug)]
enum Bound {
    Address(Ipv4Addr),
    Association(String),
}

impl Action for DisassociateAddress {
    type Response = Return;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        if let Some(id) = params.given("AssociationId")? {
            params.given::<Ipv4Addr>("PublicIp")?;
            return Ok(Self(Bound::Association(id)));
        }
        Ok(Self(Bound::Address(params.required("PublicIp")?)))
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Return, Error> {
        let affected = transaction!(cloud.db, |tx| -> Error {
            let affected = match &self.0 {
                Bound::Address(address) => floating_ips::disassociate(tx, caller.scope(), *address).await?,
                Bound::Association(text) => Some(end_association(tx, caller, text).await?),
            };
            hit(Point::DisassociateAccepting);
            Ok(affected)
        })?;
        hit(Point::DisassociateAccepted);
        tell(cloud, affected).await;
        hit(Point::DisassociateHinted);
        Ok(Return)
    }
}

/// Gives an address back, from its instance too if one has it.
#[derive(Debug)]
pub(crate) struct ReleaseAddress(Named);

impl Action for ReleaseAddress {
    type Response = Return;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        Named::parse(params).map(Self)
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Return, Error> {
        let affected = transaction!(cloud.db, |tx| -> Error {
            let address = self.0.resolve(tx, caller).await?;
            let affected = floating_ips::release(tx, caller.scope(), address).await?;
            hit(Point::ReleaseAccepting);
            Ok(affected)
        })?;
        hit(Point::ReleaseAccepted);
        tell(cloud, affected).await;
        hit(Point::ReleaseHinted);
        Ok(Return)
    }
}

async fn end_association(tx: &mut Tx, caller: &Caller, text: &str) -> Result<Affected, Error> {
    let absent = || Error::NoSuchAssociation(text.to_owned());
    let id: AssociationId = text.parse().map_err(|_| absent())?;
    floating_ips::end_association(tx, caller.scope(), id).await?.ok_or_else(absent)
}

/// The one address that an action is about.
#[derive(Debug)]
enum Named {
    Address(Ipv4Addr),
    Allocation(String),
}

impl Named {
    fn parse(params: &mut Params) -> Result<Self, Error> {
        match params.given("AllocationId")? {
            Some(id) => {
                params.given::<Ipv4Addr>("PublicIp")?;
                Ok(Self::Allocation(id))
            }
            None => Ok(Self::Address(params.required("PublicIp")?)),
        }
    }

    async fn resolve(&self, tx: &mut Tx, caller: &Caller) -> Result<Ipv4Addr, Error> {
        let text = match self {
            Self::Address(address) => return Ok(*address),
            Self::Allocation(text) => text,
        };
        let absent = || Error::NoSuchAllocation(text.clone());
        let id: AllocationId = text.parse().map_err(|_| absent())?;
        let found = floating_ips::find(tx, caller.scope(), id).await?;
        found.map(|one| one.address).ok_or_else(absent)
    }
}

/// Tells the hosts of the networks. Their ticks would find the change anyway, a second later.
async fn tell(cloud: &Cloud, affected: impl IntoIterator<Item = Affected>) {
    for Affected { network, host } in affected {
        if let Some(host) = host {
            cloud.hint_network(&host, vec![network.number()]).await;
        }
    }
}

/// `Domain` as clients send it.
#[derive(Clone, Copy, Debug)]
enum Domain {
    Standard,
    Vpc,
}

impl Domain {
    const fn of(one: &FloatingIp) -> Self {
        if one.vpc { Self::Vpc } else { Self::Standard }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Vpc => "vpc",
        }
    }
}

impl Param for Domain {
    const EXPECTED: &'static str = "standard or vpc";

    fn read(text: &str) -> Option<Self> {
        [Self::Standard, Self::Vpc].into_iter().find(|domain| domain.word() == text)
    }
}

#[cfg(test)]
mod tests;
