//! `DescribeAddresses`, `DescribeAddressesAttribute`.

use std::net::Ipv4Addr;

use nova_aws::{ApiVersion, Filter, Filters, Param, Params, Set};
use nova_db::describe;
use nova_db::floating_ips::{self, FloatingError, FloatingIp};
use nova_types::InstanceId;
use serde::Serialize;

use super::Domain;
use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// Lists the project's addresses, or only those named.
#[derive(Debug)]
pub(crate) struct DescribeAddresses {
    addresses: Vec<Ipv4Addr>,
    allocations: Vec<String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    allocation_id: Option<String>,
    domain: &'static str,
    /// Empty for an address that no instance has: boto 2 and euca2ools read it by name.
    instance_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    association_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_ip_address: Option<String>,
}

/// Every filter of AWS's whose field an address has, or is known not to have.
const FILTERS: &[Filter<FloatingIp>] = &[
    ("allocation-id", |one| vec![one.id.to_string()]),
    ("association-id", |one| one.association().iter().map(ToString::to_string).collect()),
    ("domain", |one| vec![Domain::of(one).word().to_owned()]),
    ("instance-id", |one| instance(one).iter().map(ToString::to_string).collect()),
    ("network-interface-id", |_| vec![]),
    ("network-interface-owner-id", |_| vec![]),
    ("private-ip-address", |one| one.bound.iter().map(|bound| bound.fixed.to_string()).collect()),
    ("public-ip", |one| vec![one.address.to_string()]),
];

impl Action for DescribeAddresses {
    type Response = DescribeAddressesResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        let (addresses, allocations) = (params.list("PublicIp")?, params.list("AllocationId")?);
        Ok(Self { addresses, allocations, filters: Filters::parse(params, FILTERS)? })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<DescribeAddressesResponse, Error> {
        let mut all = chosen(caller, cloud, &self.addresses, &self.allocations).await?;
        all.retain(|one| self.filters.admit(one));
        let item = |one| item(one, caller.version);
        Ok(DescribeAddressesResponse { addresses_set: all.iter().map(item).collect() })
    }
}

/// Lists what is asked of addresses beyond themselves: the name that their address leads back to. None has one.
#[derive(Debug)]
pub(crate) struct DescribeAddressesAttribute {
    allocations: Vec<String>,
}

/// The answer to [`DescribeAddressesAttribute`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeAddressesAttributeResponse {
    address_set: Set<AttributeItem>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttributeItem {
    public_ip: String,
    allocation_id: String,
}

/// The only attribute that AWS knows.
struct DomainName;

impl Param for DomainName {
    const EXPECTED: &'static str = "domain-name";

    fn read(text: &str) -> Option<Self> {
        (text == "domain-name").then_some(Self)
    }
}

impl Action for DescribeAddressesAttribute {
    type Response = DescribeAddressesAttributeResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        params.given::<DomainName>("Attribute")?;
        Ok(Self { allocations: params.list("AllocationId")? })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<DescribeAddressesAttributeResponse, Error> {
        let all = chosen(caller, cloud, &[], &self.allocations).await?;
        let item =
            |one: &FloatingIp| AttributeItem { public_ip: one.address.to_string(), allocation_id: one.id.to_string() };
        Ok(DescribeAddressesAttributeResponse { address_set: all.iter().map(item).collect() })
    }
}

/// All addresses that the caller sees, or those named, each of which must be there.
async fn chosen(
    caller: &Caller,
    cloud: &Cloud,
    addresses: &[Ipv4Addr],
    allocations: &[String],
) -> Result<Vec<FloatingIp>, Error> {
    let mut all = describe!(cloud.db, &caller.names(), |conn| -> Error {
        Ok(floating_ips::allocated(conn, caller.scope()).await?)
    })?;
    if let Some(absent) = addresses.iter().find(|address| !all.iter().any(|one| one.address == **address)) {
        return Err(FloatingError::NotFound(*absent).into());
    }
    if let Some(absent) = allocations.iter().find(|id| !all.iter().any(|one| one.id.to_string() == **id)) {
        return Err(Error::NoSuchAllocation(absent.clone()));
    }
    if !addresses.is_empty() || !allocations.is_empty() {
        all.retain(|one| addresses.contains(&one.address) || allocations.contains(&one.id.to_string()));
    }
    Ok(all)
}

fn item(one: &FloatingIp, version: ApiVersion) -> AddressItem {
    let known = |id: Option<String>| id.filter(|_| version.knows_address_ids());
    AddressItem {
        public_ip: one.address.to_string(),
        allocation_id: known(Some(one.id.to_string())),
        domain: Domain::of(one).word(),
        instance_id: instance(one).map(|id| id.to_string()).unwrap_or_default(),
        association_id: known(one.association().map(|id| id.to_string())),
        private_ip_address: one.bound.as_ref().map(|bound| bound.fixed.to_string()),
    }
}

fn instance(one: &FloatingIp) -> Option<InstanceId> {
    one.bound.as_ref().and_then(|bound| bound.instance)
}
