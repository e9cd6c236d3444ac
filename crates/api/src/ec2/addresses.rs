//! Floating addresses: `AllocateAddress`, `AssociateAddress`, `DisassociateAddress`, `ReleaseAddress`, `DescribeAddresses`.
//!
//! They are what EC2 Classic had: named by the address itself, without an allocation's or an association's id.

use std::net::Ipv4Addr;

use nova_aws::{Filter, Filters, Param, Params, Return, Set};
use nova_db::floating_ips::{self, Affected, FloatingError, FloatingIp, Wish};
use nova_db::{describe, transaction};
use nova_failpoint::{Point, hit};
use nova_types::InstanceId;
use serde::Serialize;

use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// The only domain there is: that of EC2 Classic.
const DOMAIN: &str = "standard";

/// Takes a free address for the project.
#[derive(Debug)]
pub(crate) struct AllocateAddress;

/// The answer to [`AllocateAddress`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AllocateAddressResponse {
    public_ip: String,
    domain: &'static str,
}

impl Action for AllocateAddress {
    type Response = AllocateAddressResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        params.given::<Standard>("Domain")?;
        Ok(Self)
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<AllocateAddressResponse, Error> {
        let defaults = cloud.config.api.quotas();
        let address = transaction!(cloud.db, |tx| -> Error {
            let address = floating_ips::allocate(tx, &caller.project, &defaults).await?;
            hit(Point::AllocateAccepting);
            Ok(address)
        })?;
        hit(Point::AllocateAccepted);
        Ok(AllocateAddressResponse { public_ip: address.to_string(), domain: DOMAIN })
    }
}

/// Binds an address of the project to an instance of the project.
#[derive(Debug)]
pub(crate) struct AssociateAddress {
    address: Ipv4Addr,
    wish: Wish,
    moved: bool,
}

impl Action for AssociateAddress {
    type Response = Return;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        let address = address(params)?;
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

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Return, Error> {
        let Self { address, wish, moved } = self;
        let affected = transaction!(cloud.db, |tx| -> Error {
            let affected = floating_ips::associate(tx, caller.scope(), address, wish, moved).await;
            let affected = affected.map_err(|error| of_wish(error, wish))?;
            hit(Point::AssociateAccepting);
            Ok(affected)
        })?;
        hit(Point::AssociateAccepted);
        tell(cloud, affected).await;
        hit(Point::AssociateHinted);
        Ok(Return)
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
pub(crate) struct DisassociateAddress(Ipv4Addr);

impl Action for DisassociateAddress {
    type Response = Return;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        if let Some(id) = params.given::<String>("AssociationId")? {
            return Err(Error::NoSuchAssociation(id));
        }
        Ok(Self(params.required("PublicIp")?))
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Return, Error> {
        let affected = transaction!(cloud.db, |tx| -> Error {
            let affected = floating_ips::disassociate(tx, caller.scope(), self.0).await?;
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
pub(crate) struct ReleaseAddress(Ipv4Addr);

impl Action for ReleaseAddress {
    type Response = Return;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        address(params).map(Self)
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<Return, Error> {
        let affected = transaction!(cloud.db, |tx| -> Error {
            let affected = floating_ips::release(tx, caller.scope(), self.0).await?;
            hit(Point::ReleaseAccepting);
            Ok(affected)
        })?;
        hit(Point::ReleaseAccepted);
        tell(cloud, affected).await;
        hit(Point::ReleaseHinted);
        Ok(Return)
    }
}

/// Lists the project's addresses, or only those named.
#[derive(Debug)]
pub(crate) struct DescribeAddresses {
    addresses: Vec<Ipv4Addr>,
    filters: Filters<FloatingIp>,
}

/// The answer to [`DescribeAddresses`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeAddressesResponse {
    addresses_set: Set<AddressItem>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AddressItem {
    public_ip: String,
    domain: &'static str,
    /// Empty for an address that no instance has: boto 2 and euca2ools read it by name.
    instance_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_ip_address: Option<String>,
}

/// Every filter of AWS's whose field an address of EC2 Classic has, or is known not to have.
const FILTERS: &[Filter<FloatingIp>] = &[
    ("allocation-id", |_| vec![]),
    ("association-id", |_| vec![]),
    ("domain", |_| vec![DOMAIN.to_owned()]),
    ("instance-id", |one| instance(one).iter().map(ToString::to_string).collect()),
    ("network-interface-id", |_| vec![]),
    ("network-interface-owner-id", |_| vec![]),
    ("private-ip-address", |one| one.bound.iter().map(|bound| bound.fixed.to_string()).collect()),
    ("public-ip", |one| vec![one.address.to_string()]),
];

impl Action for DescribeAddresses {
    type Response = DescribeAddressesResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        if let Some(id) = params.list::<String>("AllocationId")?.into_iter().next() {
            return Err(Error::NoSuchAllocation(id));
        }
        Ok(Self { addresses: params.list("PublicIp")?, filters: Filters::parse(params, FILTERS)? })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<DescribeAddressesResponse, Error> {
        let mut all = describe!(cloud.db, &caller.names(), |conn| -> Error {
            Ok(floating_ips::allocated(conn, caller.scope()).await?)
        })?;
        if let Some(absent) = self.addresses.iter().find(|address| !all.iter().any(|one| one.address == **address)) {
            return Err(FloatingError::NotFound(*absent).into());
        }
        all.retain(|one| self.addresses.is_empty() || self.addresses.contains(&one.address));
        all.retain(|one| self.filters.admit(one));
        Ok(DescribeAddressesResponse { addresses_set: all.iter().map(item).collect() })
    }
}

fn item(one: &FloatingIp) -> AddressItem {
    AddressItem {
        public_ip: one.address.to_string(),
        domain: DOMAIN,
        instance_id: instance(one).map(|id| id.to_string()).unwrap_or_default(),
        private_ip_address: one.bound.as_ref().map(|bound| bound.fixed.to_string()),
    }
}

fn instance(one: &FloatingIp) -> Option<InstanceId> {
    one.bound.as_ref().and_then(|bound| bound.instance)
}

/// Reads the one address that an action is about. Ours have no id, so one that is given names nothing.
fn address(params: &mut Params) -> Result<Ipv4Addr, Error> {
    match params.given::<String>("AllocationId")? {
        Some(id) => Err(Error::NoSuchAllocation(id)),
        None => Ok(params.required("PublicIp")?),
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
struct Standard;

impl Param for Standard {
    const EXPECTED: &'static str = "standard: there are no virtual private clouds";

    fn read(text: &str) -> Option<Self> {
        (text == DOMAIN).then_some(Self)
    }
}

#[cfg(test)]
mod tests;
