//! Floating addresses: in the pool of a network host, allocated to a project, bound to a fixed address.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use nova_types::quota::{Quotas, Resource};
use nova_types::{AllocationId, AssociationId, HostName, InstanceId, NetworkId, ProjectId};

use crate::conn::Conn;
use crate::error::{DbError, Unique};
use crate::quotas;
use crate::row::Row;
use crate::value::Value;

#[cfg(test)]
mod tests;

/// Why a change of floating addresses is refused.
#[derive(Debug, thiserror::Error)]
pub enum FloatingError {
    /// The database failed, or lost the transaction; or the project has as many addresses as it may have.
    #[error(transparent)]
    Db(#[from] DbError),
    /// No such address, or it is not the project's, which is the same thing.
    #[error("there is no floating address {0}")]
    NotFound(Ipv4Addr),
    /// The address is in a pool already.
    #[error("the floating address {0} is there already")]
    Exists(Ipv4Addr),
    /// A project has the address.
    #[error("the floating address {address} is allocated to the project {project}")]
    Allocated {
        /// The address.
        address: Ipv4Addr,
        /// Whose it is.
        project: ProjectId,
    },
    /// Every address of every pool is a project's.
    #[error("no floating address is free")]
    NoneFree,
    /// Neither the project's instance, nor anybody's whom it may know of.
    #[error("there is no such instance")]
    NoInstance,
    /// The instance holds no fixed address: it waits for one, or is over.
    #[error("the instance has no address")]
    NoFixedAddress,
    /// It is bound elsewhere and was not to be moved.
    #[error("the floating address {0} is associated with another instance")]
    AlreadyAssociated(Ipv4Addr),
}

/// A floating address, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingIp {
    /// Its number.
    pub id: AllocationId,
    /// The address.
    pub address: Ipv4Addr,
    /// The network host in whose pool it is.
    pub host: Option<HostName>,
    /// Whose it is.
    pub project: Option<ProjectId>,
    /// Where it is bound.
    pub bound: Option<Bound>,
    /// Whether its project asked for one of a virtual private cloud. It is the same as any.
    pub vpc: bool,
}

impl FloatingIp {
    /// What its being bound is called.
    #[must_use]
    pub fn association(&self) -> Option<AssociationId> {
        let instance = self.bound.as_ref()?.instance?;
        Some(AssociationId { address: self.id, instance })
    }
}

/// Where a floating address is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The instance.
    pub instance: Option<InstanceId>,
    /// Its fixed address.
    pub fixed: Ipv4Addr,
}

/// What an address is to be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The fixed address of this instance.
    Instance(InstanceId),
    /// This fixed address, which an instance of the project holds.
    Fixed(Ipv4Addr),
    /// This fixed address, if this instance holds it.
    Both(InstanceId, Ipv4Addr),
}

/// A network whose host, or whose guest's, must look at its floating addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Affected {
    /// The network.
    pub network: NetworkId,
    /// Who serves it; nobody yet, perhaps.
    pub host: Option<HostName>,
}

/// Stores addresses in the pool of `host`, all or none. Call it inside a transaction.
///
/// # Errors
/// [`FloatingError::Exists`] names the first that is in a pool already.
pub async fn create(conn: &mut Conn, host: &HostName, addresses: &[Ipv4Addr]) -> Result<(), FloatingError> {
    for some in addresses.chunks(1_000) {
        let texts: Vec<String> = some.iter().map(ToString::to_string).collect();
        if let Some(row) = conn.optional(FIRST_OF, &[texts.into()]).await? {
            return Err(FloatingError::Exists(row.parse("address")?));
        }
    }
    let rows: Vec<Vec<Value>> = addresses.iter().map(|address| vec![(*address).into(), host.into()]).collect();
    match conn.insert_many("insert into floating_ips (address, host)", &rows).await {
        // Another made it between our look and our insertion.
        Err(DbError::Duplicate(Unique::FloatingAddress)) => Err(DbError::Stale("pool of floating addresses").into()),
        other => Ok(other.map(drop)?),
    }
}

/// Removes addresses from their pools, all or none. Call it inside a transaction.
///
/// # Errors
/// [`FloatingError::NotFound`] and [`FloatingError::Allocated`] name the first that is absent or a project's.
pub async fn delete(conn: &mut Conn, addresses: &[Ipv4Addr]) -> Result<(), FloatingError> {
    for some in addresses.chunks(1_000) {
        let texts: Vec<String> = some.iter().map(ToString::to_string).collect();
        let found = conn.all(OWNERS, &[texts.clone().into()]).await?;
        let owners = found.iter().map(|row| Ok((row.parse("address")?, row.parse_some("project_id")?)));
        let owners = owners.collect::<Result<HashMap<Ipv4Addr, Option<ProjectId>>, DbError>>()?;
        for address in some {
            match owners.get(address) {
                None => return Err(FloatingError::NotFound(*address)),
                Some(Some(project)) => {
                    return Err(FloatingError::Allocated { address: *address, project: project.clone() });
                }
                Some(None) => {}
            }
        }
        if conn.execute(DELETE, &[texts.into()]).await? < some.len() as u64 {
            return Err(DbError::Stale("pool of floating addresses").into());
        }
    }
    Ok(())
}

/// All addresses of all pools, or of those of one host, in the order they were made.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn list(conn: &mut Conn, host: Option<&HostName>) -> Result<Vec<FloatingIp>, DbError> {
    let rows = match host {
        Some(host) => conn.all(LIST_OF_HOST, &[host.into()]).await?,
        None => conn.all(LIST, &[]).await?,
    };
    rows.iter().map(floating_ip).collect()
}

/// The addresses of a project, or with `None` those of all projects, in the order they were made.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn allocated(conn: &mut Conn, project: Option<&ProjectId>) -> Result<Vec<FloatingIp>, DbError> {
    let rows = match project {
        Some(project) => conn.all(LIST_OF_PROJECT, &[project.into()]).await?,
        None => conn.all(LIST_ALLOCATED, &[]).await?,
    };
    rows.iter().map(floating_ip).collect()
}

/// Finds an address of a project, or with `None` one of any project, by its number.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn find(
    conn: &mut Conn,
    project: Option<&ProjectId>,
    id: AllocationId,
) -> Result<Option<FloatingIp>, DbError> {
    found(conn.optional(FIND, &[id.into()]).await?.as_ref(), project)
}

/// Finds an address of a project, or with `None` one of any project.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn find_address(
    conn: &mut Conn,
    project: Option<&ProjectId>,
    address: Ipv4Addr,
) -> Result<Option<FloatingIp>, DbError> {
    found(conn.optional(FIND_ADDRESS, &[address.into()]).await?.as_ref(), project)
}

fn found(row: Option<&Row>, project: Option<&ProjectId>) -> Result<Option<FloatingIp>, DbError> {
    let found = row.map(floating_ip).transpose()?;
    let seen = |one: &FloatingIp| one.project.is_some() && project.is_none_or(|id| one.project.as_ref() == Some(id));
    Ok(found.filter(seen))
}

/// Remembers that the project asked for an address of a virtual private cloud. Call it in the transaction of
/// [`allocate`].
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn mark_vpc(conn: &mut Conn, address: Ipv4Addr) -> Result<(), DbError> {
    conn.execute(MARK_VPC, &[address.into()]).await.map(drop)
}

/// Gives a project the first free address, and counts it. Call it inside a transaction.
///
/// # Errors
/// [`DbError::OverQuota`] before [`FloatingError::NoneFree`].
pub async fn allocate(conn: &mut Conn, project: &ProjectId, defaults: &Quotas) -> Result<Ipv4Addr, FloatingError> {
    quotas::reserve_own(conn, project, &[(Resource::FloatingIps, 1)], 1, 1, defaults).await?;
    let mut free = conn.optional(FREE, &[]).await?;
    if free.is_none() {
        // What others have locked may come free again; wait for them before saying that there is none.
        free = conn.optional(FREE_WAITING, &[]).await?;
    }
    let free = free.ok_or(FloatingError::NoneFree)?;
    match conn.execute(ALLOCATE, &[project.into(), free.get::<i32>("id")?.into()]).await? {
        0 => Err(DbError::Stale("floating address").into()),
        _ => Ok(free.parse("address")?),
    }
}

/// Binds an address to what the same project's instance holds, and takes it from where it was bound if it may be `moved`.
/// Another address that was bound there no longer is. Call it inside a transaction.
///
/// `project` is the caller's; `None` is an administrator, who may bind any project's address to its own instances.
///
/// # Errors
/// [`FloatingError::NotFound`], [`FloatingError::NoInstance`], [`FloatingError::NoFixedAddress`],
/// [`FloatingError::AlreadyAssociated`].
pub async fn associate(
    conn: &mut Conn,
    project: Option<&ProjectId>,
    address: Ipv4Addr,
    wish: Wish,
    moved: bool,
) -> Result<Vec<Affected>, FloatingError> {
    let (id, owner) = owned(conn, project, address).await?;
    let before = affected(conn, id).await?;
    let target = target(conn, &owner, wish).await?;
    let fixed: i32 = target.get("id")?;
    // From here on the instance cannot give its address back before we are through, nor take another floating one.
    // This order, first the fixed and then the floating address, is that of an instance's end.
    let instance: i32 = target.get("instance_id")?;
    if conn.execute(HOLD_FIXED, &[fixed.into(), instance.into()]).await? == 0 {
        return Err(FloatingError::NoFixedAddress);
    }
    conn.execute(UNBIND_OTHERS, &[fixed.into(), id.into()]).await?;
    let args = [fixed.into(), id.into(), (&owner).into(), moved.into(), fixed.into()];
    if conn.execute(BIND, &args).await? == 0 {
        owned(conn, project, address).await?;
        return Err(FloatingError::AlreadyAssociated(address));
    }
    let mut affected: Vec<Affected> = before.into_iter().collect();
    affected
        .push(Affected { network: NetworkId::from_row(target.get("network_id")?), host: target.parse_some("host")? });
    affected.sort();
    affected.dedup();
    Ok(affected)
}

/// Takes an address from where it is bound, and leaves it the project's; one that is bound nowhere stays so.
/// Call it inside a transaction.
///
/// # Errors
/// [`FloatingError::NotFound`].
pub async fn disassociate(
    conn: &mut Conn,
    project: Option<&ProjectId>,
    address: Ipv4Addr,
) -> Result<Option<Affected>, FloatingError> {
    let (id, owner) = owned(conn, project, address).await?;
    let before = affected(conn, id).await?;
    match conn.execute(UNBIND, &[id.into(), (&owner).into()]).await? {
        0 => Err(FloatingError::NotFound(address)),
        _ => Ok(before),
    }
}

/// Takes an address from the instance that an association names, if it is there. Returns nothing where the project has no
/// such association (any more). Call it inside a transaction.
///
/// # Errors
/// [`DbError::Unavailable`] when the database cannot be asked.
pub async fn end_association(
    conn: &mut Conn,
    project: Option<&ProjectId>,
    id: AssociationId,
) -> Result<Option<Affected>, DbError> {
    if find(conn, project, id.address).await?.is_none_or(|one| one.association() != Some(id)) {
        return Ok(None);
    }
    let before = affected(conn, id.address.row()).await?;
    match conn.execute(UNBIND_FROM, &[id.address.into(), id.instance.into()]).await? {
        // The project moved it meanwhile.
        0 => Ok(None),
        _ => Ok(before),
    }
}

/// Gives an address back to its pool, from wherever it is bound. Call it inside a transaction.
///
/// # Errors
/// [`FloatingError::NotFound`].
pub async fn release(
    conn: &mut Conn,
    project: Option<&ProjectId>,
    address: Ipv4Addr,
) -> Result<Option<Affected>, FloatingError> {
    let (id, owner) = owned(conn, project, address).await?;
    let before = affected(conn, id).await?;
    if conn.execute(RELEASE, &[id.into(), (&owner).into()]).await? == 0 {
        return Err(FloatingError::NotFound(address));
    }
    quotas::release(conn, &owner, &[(Resource::FloatingIps, 1)]).await?;
    Ok(before)
}

/// A floating address that a network host must bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// The network of the instance.
    pub network: NetworkId,
    /// The floating address.
    pub public: Ipv4Addr,
    /// The instance's.
    pub fixed: Ipv4Addr,
}

/// What is bound to instances in the networks that `host` serves, whichever pool it is from; where each host serves its own
/// guests, to those on `host`.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn on_host(conn: &mut Conn, host: &HostName) -> Result<Vec<Forward>, DbError> {
    let forward = |row: &Row| {
        let network = NetworkId::from_row(row.get("network_id")?);
        Ok(Forward { network, public: row.parse("address")?, fixed: row.parse("fixed")? })
    };
    conn.all(ON_HOST, &[host.into(), host.into()]).await?.iter().map(forward).collect()
}

/// Which of `addresses` are in a pool, or were until a day ago: those on an interface are a network host's doing.
///
/// # Errors
/// [`DbError::Unavailable`]: then nothing may be concluded.
pub async fn among(conn: &mut Conn, addresses: &[Ipv4Addr]) -> Result<Vec<Ipv4Addr>, DbError> {
    const DAY_SECONDS: i32 = 86_400;
    let mut found = Vec::new();
    for some in addresses.chunks(1_000) {
        let texts: Vec<String> = some.iter().map(ToString::to_string).collect();
        for row in conn.all(AMONG, &[texts.into(), DAY_SECONDS.into()]).await? {
            found.push(row.parse("address")?);
        }
    }
    Ok(found)
}

/// Finds an address that is a project's, and whose.
async fn owned(
    conn: &mut Conn,
    project: Option<&ProjectId>,
    address: Ipv4Addr,
) -> Result<(i32, ProjectId), FloatingError> {
    let row = conn.optional(OWNER, &[address.into()]).await?.ok_or(FloatingError::NotFound(address))?;
    match row.parse_some::<ProjectId>("project_id")? {
        Some(owner) if project.is_none_or(|project| *project == owner) => Ok((row.get("id")?, owner)),
        _ => Err(FloatingError::NotFound(address)),
    }
}

/// Finds the fixed address that is meant.
async fn target(conn: &mut Conn, owner: &ProjectId, wish: Wish) -> Result<Row, FloatingError> {
    let (instance, fixed) = match wish {
        Wish::Instance(id) => (id, None),
        Wish::Both(id, address) => (id, Some(address)),
        Wish::Fixed(address) => {
            let found = conn.optional(FIXED, &[address.into(), owner.into()]).await?;
            return found.ok_or(FloatingError::NoInstance);
        }
    };
    conn.optional(INSTANCE, &[instance.into(), owner.into()]).await?.ok_or(FloatingError::NoInstance)?;
    let found = conn.optional(FIXED_OF_INSTANCE, &[instance.into()]).await?.ok_or(FloatingError::NoFixedAddress)?;
    match fixed {
        Some(fixed) if found.parse::<Ipv4Addr>("address")? != fixed => Err(FloatingError::NoFixedAddress),
        _ => Ok(found),
    }
}

async fn affected(conn: &mut Conn, id: i32) -> Result<Option<Affected>, DbError> {
    let row = conn.optional(AFFECTED, &[id.into()]).await?;
    row.map(|row| Ok(Affected { network: NetworkId::from_row(row.get("network_id")?), host: row.parse_some("host")? }))
        .transpose()
}

fn floating_ip(row: &Row) -> Result<FloatingIp, DbError> {
    let bound = match row.parse_some("fixed")? {
        None => None,
        Some(fixed) => {
            let instance = row.get::<Option<i32>>("instance_id")?.map(InstanceId::from_row);
            Some(Bound { instance, fixed })
        }
    };
    Ok(FloatingIp {
        id: AllocationId::from_row(row.get("id")?),
        vpc: row.get::<Option<String>>("domain")?.is_some_and(|domain| domain == "vpc"),
        address: row.parse("address")?,
        host: row.parse_some("host")?,
        project: row.parse_some("project_id")?,
        bound,
    })
}

macro_rules! list {
    ($scope:literal) => {
        concat!(
            "select o.id, o.address, o.host, o.project_id, o.domain, f.address as fixed, f.instance_id from floating_ips o \
             left join fixed_ips f on f.id = o.fixed_ip_id where o.deleted = false",
            $scope,
            " order by o.id"
        )
    };
}
macro_rules! free {
    () => {
        "select id, address from floating_ips where project_id is null and fixed_ip_id is null and deleted = false \
         order by id limit 1 "
    };
}
macro_rules! fixed {
    ($scope:literal) => {
        concat!(
            "select f.id, f.address, f.instance_id, f.network_id, case when n.multi_host = true then i.host else n.host end as host \
             from fixed_ips f join networks n on n.id = f.network_id \
             join instances i on i.id = f.instance_id where f.allocated = true and f.deleted = false \
             and i.deleted = false and ",
            $scope
        )
    };
}

const LIST: &str = list!("");
const FIND: &str = list!(" and o.id = ?");
const FIND_ADDRESS: &str = list!(" and o.address = ?");
const LIST_OF_HOST: &str = list!(" and o.host = ?");
const LIST_OF_PROJECT: &str = list!(" and o.project_id = ?");
const LIST_ALLOCATED: &str = list!(" and o.project_id is not null");
const FIRST_OF: &str =
    "select address from floating_ips where address in (?..) and deleted = false order by id limit 1";
const DELETE: &str = "update floating_ips set deleted = true, deleted_at = {now} where address in (?..) and deleted = false \
     and project_id is null and fixed_ip_id is null";
const OWNER: &str = "select id, project_id from floating_ips where address = ? and deleted = false";
const OWNERS: &str = "select address, project_id from floating_ips where address in (?..) and deleted = false";
const FREE: &str = concat!(free!(), "{skip_locked}");
const FREE_WAITING: &str = concat!(free!(), "{for_update}");
const MARK_VPC: &str = "update floating_ips set domain = 'vpc' where address = ? and deleted = false";
const ALLOCATE: &str = "update floating_ips set project_id = ?, domain = null, updated_at = {now} where id = ? \
     and project_id is null and fixed_ip_id is null and deleted = false";
const INSTANCE: &str = "select id from instances where id = ? and project_id = ? and deleted = false";
const FIXED_OF_INSTANCE: &str = fixed!("f.instance_id = ?");
const FIXED: &str = fixed!("f.address = ? and i.project_id = ?");
/// Changes nothing, and waits for and is waited for by whoever does.
const HOLD_FIXED: &str = "update fixed_ips set instance_id = instance_id where id = ? and instance_id = ?";
const UNBIND_OTHERS: &str = "update floating_ips set fixed_ip_id = null, updated_at = {now} \
     where fixed_ip_id = ? and id <> ? and deleted = false";
const BIND: &str = "update floating_ips set fixed_ip_id = ?, updated_at = {now} where id = ? and project_id = ? \
     and deleted = false and (? = true or fixed_ip_id is null or fixed_ip_id = ?)";
const UNBIND: &str = "update floating_ips set fixed_ip_id = null, updated_at = {now} where id = ? and project_id = ? \
     and deleted = false";
const UNBIND_FROM: &str = "update floating_ips set fixed_ip_id = null, updated_at = {now} where id = ? and deleted = false \
     and fixed_ip_id in (select id from fixed_ips where instance_id = ?)";
const RELEASE: &str = "update floating_ips set project_id = null, fixed_ip_id = null, updated_at = {now} \
     where id = ? and project_id = ? and deleted = false";
const AFFECTED: &str = "select f.network_id, case when n.multi_host = true then i.host else n.host end as host \
     from floating_ips o join fixed_ips f on f.id = o.fixed_ip_id join networks n on n.id = f.network_id \
     left join instances i on i.id = f.instance_id where o.id = ?";
const ON_HOST: &str = "select f.network_id, o.address, f.address as fixed from floating_ips o \
     join fixed_ips f on f.id = o.fixed_ip_id join networks n on n.id = f.network_id \
     left join instances i on i.id = f.instance_id \
     where (n.host = ? or (n.multi_host = true and i.host = ?)) and n.deleted = false and o.deleted = false and f.allocated = true order by o.id";
const AMONG: &str = "select distinct address from floating_ips where address in (?..) \
     and (deleted = false or deleted_at > {now-?})";
