//! What `RunInstances` does: everything is checked first, then one transaction accepts the launch.

use std::collections::BTreeSet;

use nova_db::client_tokens::{self, ClientToken};
use nova_db::security_groups::{self, GroupError, GroupRef};
use nova_db::{Conn, DbError, Tx, Unique, images, instances, key_pairs, quotas, services, transaction};
use nova_failpoint::{Point, hit};
use nova_types::flavor::Flavor;
use nova_types::image::{Image, ImageState};
use nova_types::instance::{InstanceView, NewInstances};
use nova_types::quota::Resource;
use nova_types::{GroupName, ImageId, ImageKind, KeyName, Mac, ReservationId, SecurityGroupId};

use super::item::{ReservationItem, heed_ipv6, reservations};
use super::run::RunInstances;
use crate::{caller::Caller, cloud::Cloud, error::Error};

/// How often a commit may be in doubt before the client is told so.
const MOST_DOUBTS: u32 = 3;

/// How often hardware addresses are drawn: after the first time only such as are not in use.
const MOST_DRAWS: u32 = 8;
/// A security group's id and name.
type Group = (SecurityGroupId, GroupName);

/// What was found for the names in the request.
struct Checked {
    flavor: &'static Flavor,
    image: ImageId,
    kernel: Option<ImageId>,
    ramdisk: Option<ImageId>,
    key: Option<(KeyName, String)>,
}

/// Accepts the launch, tells the scheduler, and shows the reservation.
///
/// The same client token with the same request gives the same reservation, however often it is sent; with another
/// request it is refused.
pub(super) async fn launch(request: RunInstances, caller: &Caller, cloud: &Cloud) -> Result<ReservationItem, Error> {
    let digest = nova_aws::sha256_hex(format!("{request:?}").as_bytes());
    let mut conn = cloud.db.read().await?;
    if let Some(views) = repeated(&mut conn, &request, &digest, caller).await? {
        return Ok(shown(views, caller, cloud));
    }
    let checked = check(&mut conn, &request, caller, cloud).await?;
    drop(conn);

    let reservation = ReservationId::from_random(rand::random());
    let (mut doubts, mut draws) = (0, 1);
    let views = loop {
        let accepted = transaction!(cloud.db, |tx| -> Error {
            if doubts > 0
                && let Some(views) = accepted_before(tx, caller, &reservation).await?
            {
                return Ok(views);
            }
            let accepted = accept(tx, &request, &checked, (&reservation, draws), (caller, cloud, &digest)).await;
            hit(Point::LaunchAccepting);
            accepted
        });
        match accepted {
            // The commit's answer was lost: look, and do it again only if it was not done.
            Err(Error::Db(DbError::InDoubt(_))) if doubts < MOST_DOUBTS => doubts += 1,
            // A hardware address that was drawn is in use.
            Err(Error::Db(DbError::Duplicate(Unique::Mac))) if draws < MOST_DRAWS => draws += 1,
            // Another process accepted the same token between our look and our write.
            Err(Error::Db(DbError::Duplicate(Unique::ClientToken))) if request.client_token.is_some() => {
                let mut conn = cloud.db.read().await?;
                let views = repeated(&mut conn, &request, &digest, caller).await?;
                return views.map(|views| shown(views, caller, cloud)).ok_or(Error::TryAgain);
            }
            other => break other?,
        }
    };
    hit(Point::LaunchAccepted);
    cloud.hint_scheduler(views.iter().map(|view| view.instance.id.number()).collect()).await;
    hit(Point::LaunchHinted);
    Ok(shown(views, caller, cloud))
}

/// Finds the instances of a reservation whose commit nobody answered. Whoever accepts a launch locks the project's
/// counters, so once we hold them that commit has happened or never will.
async fn accepted_before(
    tx: &mut Tx,
    caller: &Caller,
    reservation: &ReservationId,
) -> Result<Option<Vec<InstanceView>>, Error> {
    quotas::hold(tx, &caller.project).await?;
    let views = instances::of_reservation(tx, &caller.project, reservation).await?;
    Ok(Some(views).filter(|views| !views.is_empty()))
}

fn shown(mut views: Vec<InstanceView>, caller: &Caller, cloud: &Cloud) -> ReservationItem {
    heed_ipv6(&mut views, cloud);
    let mut all = reservations(&views, caller.version, false);
    all.swap_remove(0)
}

/// Finds what the client token gave before.
async fn repeated(
    conn: &mut Conn,
    request: &RunInstances,
    digest: &str,
    caller: &Caller,
) -> Result<Option<Vec<InstanceView>>, Error> {
    let Some(token) = &request.client_token else { return Ok(None) };
    let Some(ClientToken { digest: before, reservation, .. }) =
        client_tokens::find(conn, &caller.project, token).await?
    else {
        return Ok(None);
    };
    if before != digest {
        return Err(Error::TokenReused);
    }
    let views = instances::of_reservation(conn, &caller.project, &reservation).await?;
    // Tokens are remembered for longer than terminated instances are shown.
    if views.is_empty() { Err(Error::TokenSpent) } else { Ok(Some(views)) }
}

async fn check(conn: &mut Conn, request: &RunInstances, caller: &Caller, cloud: &Cloud) -> Result<Checked, Error> {
    let name = request.flavor.as_deref().unwrap_or(&cloud.config.api.default_instance_type);
    let flavor = Flavor::named(name).ok_or_else(|| Error::NoSuchFlavor(name.to_owned()))?;
    check_zone(conn, request, caller, cloud).await?;
    let image = usable(conn, request.image, ImageKind::Machine, caller).await?;
    let (kernel, ramdisk) = kernel_and_ramdisk(request, &image, cloud)?;
    if let Some(kernel) = kernel {
        usable(conn, kernel, ImageKind::Kernel, caller).await?;
    }
    if let Some(ramdisk) = ramdisk {
        usable(conn, ramdisk, ImageKind::Ramdisk, caller).await?;
    }
    let key = match &request.key {
        Some(name) => {
            let found = key_pairs::get(conn, &caller.user, name).await?;
            let pair = found.ok_or_else(|| Error::NoSuchKeyPair(name.to_string()))?;
            Some((pair.name, pair.public_key))
        }
        None => None,
    };
    Ok(Checked { flavor, image: image.id, kernel, ramdisk, key })
}

/// The request's own, else the image's; none of both when the kernel is the flag `--null_kernel`.
fn kernel_and_ramdisk(
    request: &RunInstances,
    image: &Image,
    cloud: &Cloud,
) -> Result<(Option<ImageId>, Option<ImageId>), Error> {
    match &request.kernel {
        Some(null) if *null == cloud.config.api.null_kernel => Ok((None, None)),
        Some(text) => {
            let kernel = text.parse().map_err(|_| Error::MalformedImageId(text.clone()))?;
            Ok((Some(kernel), request.ramdisk.or(image.ramdisk)))
        }
        None => Ok((image.kernel, request.ramdisk.or(image.ramdisk).filter(|_| image.kernel.is_some()))),
    }
}

/// Finds an image that the caller may launch. One of another tenant is as absent as one that never was.
async fn usable(conn: &mut Conn, id: ImageId, kind: ImageKind, caller: &Caller) -> Result<Image, Error> {
    let image = images::get(conn, &caller.project, id).await?.ok_or(Error::NoSuchImage(id))?;
    if id.kind() != kind {
        return Err(Error::WrongImageKind { image: id, wanted: kind.as_str() });
    }
    if image.state != ImageState::Available {
        return Err(Error::ImageNotAvailable { image: id, state: image.state.as_str() });
    }
    Ok(image)
}

/// A zone must exist; a host may be named only by administrators (old Nova let anyone: nova-core §0.1).
async fn check_zone(conn: &mut Conn, request: &RunInstances, caller: &Caller, cloud: &Cloud) -> Result<(), Error> {
    let Some(asked) = &request.zone else { return Ok(()) };
    let (zone, host) = asked.split_once(':').map_or((asked.as_str(), None), |(zone, host)| (zone, Some(host)));
    if host.is_some() && !caller.is_admin {
        return Err(Error::Unauthorized);
    }
    let down_after = i64::try_from(cloud.config.common.service_down_time.as_secs()).unwrap_or(i64::MAX);
    let zones = services::zones(conn, down_after).await?;
    if zones.iter().any(|(name, _)| name == zone) { Ok(()) } else { Err(Error::NoSuchZone(zone.to_owned())) }
}

/// Takes quota, stores the rows and remembers the token: the whole launch, or nothing of it.
async fn accept(
    tx: &mut Tx,
    request: &RunInstances,
    checked: &Checked,
    (reservation, draws): (&ReservationId, u32),
    (caller, cloud, digest): (&Caller, &Cloud, &str),
) -> Result<Vec<InstanceView>, Error> {
    if let Some(token) = &request.client_token {
        client_tokens::remember(tx, &caller.project, token, digest, reservation).await?;
    }
    // Quota first: whoever deletes a group or the project locks the same row, so neither can vanish below us.
    let count = reserve(tx, request, checked.flavor, caller, cloud).await?;
    let groups = groups(tx, request, caller).await?;
    let new = NewInstances {
        reservation: reservation.clone(),
        user: caller.user.clone(),
        project: caller.project.clone(),
        image: checked.image,
        kernel: checked.kernel,
        ramdisk: checked.ramdisk,
        flavor: checked.flavor.name,
        memory_mb: checked.flavor.memory_mb,
        vcpus: checked.flavor.vcpus,
        local_gb: checked.flavor.local_gb,
        key: checked.key.clone(),
        user_data: request.user_data.clone(),
        availability_zone: request.zone.clone(),
        display_name: request.display_name.clone(),
        display_description: request.display_description.clone(),
        groups: groups.iter().map(|(id, _)| *id).collect(),
        client_token: request.client_token.clone(),
        macs: draw(tx, count, draws).await?,
    };
    let view = |instance| InstanceView {
        instance,
        fixed_ip: None,
        address6: None,
        floating_ip: None,
        groups: groups.clone(),
        host_zone: None,
    };
    Ok(instances::create(tx, &new).await?.into_iter().map(view).collect())
}

/// Draws hardware addresses. Of the 16 million one in use is hit so seldom that the database says so when it is; then
/// only such are drawn that are not in use.
async fn draw(tx: &mut Tx, count: u32, draws: u32) -> Result<Vec<Mac>, Error> {
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let mut drawn: BTreeSet<Mac> = BTreeSet::new();
    while drawn.len() < wanted {
        let fresh: Vec<Mac> = (drawn.len()..wanted).map(|_| Mac::of_guest(rand::random())).collect();
        let used = if draws > 1 { instances::macs_in_use(tx, &fresh).await? } else { Vec::new() };
        drawn.extend(fresh.into_iter().filter(|mac| !used.contains(mac)));
    }
    Ok(drawn.into_iter().collect())
}

/// Resolves the groups asked for; `default` where none are, which is made when it is first needed.
async fn groups(tx: &mut Tx, request: &RunInstances, caller: &Caller) -> Result<Vec<Group>, Error> {
    let default = [GroupRef::Name(GroupName::default_group())];
    let asked = if request.groups.is_empty() { &default[..] } else { &request.groups };
    let mut groups = match security_groups::resolve(tx, &caller.project, asked).await {
        Err(GroupError::NotFound(missing)) if default.contains(&missing) => {
            security_groups::ensure_default(tx, &caller.project, &caller.user).await?;
            security_groups::resolve(tx, &caller.project, asked).await?
        }
        found => found?,
    };
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

/// Takes quota for as many instances as are asked for and allowed, at least `MinCount`.
async fn reserve(
    tx: &mut Tx,
    request: &RunInstances,
    flavor: &Flavor,
    caller: &Caller,
    cloud: &Cloud,
) -> Result<u32, Error> {
    let each = [(Resource::Instances, 1), (Resource::Cores, flavor.vcpus)];
    let (least, most) = (request.least, request.most);
    match quotas::reserve_own(tx, &caller.project, &each, least, most, &cloud.config.api.quotas()).await {
        Err(DbError::OverQuota(over)) => {
            let each = if over.resource == Resource::Cores { flavor.vcpus.max(1) } else { 1 };
            Err(Error::InstanceLimit { allowed: over.limit.saturating_sub(over.used) / each })
        }
        other => other.map_err(Error::from),
    }
}
