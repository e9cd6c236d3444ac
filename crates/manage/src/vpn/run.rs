//! `nova-manage vpn run`: one instance of the administrator's OpenVPN image, at the address that the project's network keeps
//! for it, with a certificate of the cloud's authority.

use std::net::Ipv4Addr;

use anyhow::{Context as _, bail};
use nova_db::security_groups::{self, GroupError, GroupRef, NewGroup};
use nova_db::{
    Conn, DbError, Unique, certificates, fixed_ips, images, instances, key_pairs, networks, quotas, transaction,
};
use nova_identity::{Authority, KeyKind, Secret, create_key_pair, fill_subject, vpn_user_data, write_private_below};
use nova_types::account::Project;
use nova_types::flavor::Flavor;
use nova_types::image::{Image, ImageState};
use nova_types::instance::NewInstances;
use nova_types::quota::{Quotas, Resource};
use nova_types::rule::{Icmp, Ports, Rule, Source, Traffic};
use nova_types::{GroupName, ImageId, ImageKind, InstanceId, KeyName, Mac, ReservationId, SecurityGroupId};
use time::macros::format_description;

use super::script::script;
use crate::context::Context;

/// Where OpenVPN listens in the guest: what `nova-network` forwards to.
const PORT: u16 = 1194;
const FLAVOR: &str = "m1.tiny";
/// The longest user data that guests are given, as `RunInstances` has it.
const MOST_USER_DATA: usize = 16_384;
/// How often it is tried again when a hardware address was in use, or another project took the network just now.
const MOST_TRIES: u32 = 8;
/// As the API has it.
const MOST_GROUPS: u32 = 500;
const MOST_RULES: u32 = 200;

/// Runs the VPN of a project, unless it runs.
pub(super) async fn run(cx: &mut Context<'_, '_>, project: &Project) -> anyhow::Result<()> {
    if !cx.config.network.network_manager.is_per_project() {
        bail!("only VlanManager and VxlanManager give projects networks that a VPN could lead into");
    }
    let image = image(cx, project).await?;
    if let Some((there, address)) = running(&mut cx.db.read().await?, project).await? {
        return told(cx, project, there, address).await;
    }
    let suffix = &cx.config.api.vpn_key_suffix;
    if suffix.is_empty() {
        bail!("--vpn_key_suffix is empty; the key pair of the VPN needs a name that users' key pairs do not have");
    }
    let name = format!("{}{suffix}", project.id);
    let key = key_pair(cx, project, name.parse()?).await?;
    let user_data = user_data(cx, project).await?;
    let wanted = Wanted {
        project,
        image,
        group: name.parse()?,
        key,
        user_data,
        quotas: cx.config.api.quotas(),
        flavor: Flavor::named(FLAVOR).context("there is no m1.tiny")?,
    };
    match launch(cx, &wanted).await? {
        Launched::New(instance, address) => {
            cx.note(format_args!("{instance} becomes the VPN of {} at {address}.", project.id));
            Ok(cx.say(instance)?)
        }
        Launched::There(there, address) => told(cx, project, there, address).await,
    }
}

/// Says which instance it is that there is already.
async fn told(cx: &mut Context<'_, '_>, project: &Project, there: InstanceId, address: Ipv4Addr) -> anyhow::Result<()> {
    let state = instances::get(&mut cx.db.read().await?, there).await?.state.vm.as_str();
    cx.note(format_args!("{there} is the VPN of {} already, at {address}; it is {state}.", project.id));
    Ok(cx.say(there)?)
}

/// Finds the image of the flag, which the project must be able to launch.
async fn image(cx: &Context<'_, '_>, project: &Project) -> anyhow::Result<Image> {
    let Some(flag) = &cx.config.api.vpn_image_id else {
        bail!(
            "no image has a VPN server: register one of yours with nova-manage image register FILE --public, and set \
             --vpn_image_id=ami-xxxxxxxx"
        );
    };
    let Some(id) = flag.parse::<ImageId>().ok().filter(|id| id.kind() == ImageKind::Machine) else {
        bail!("--vpn_image_id={flag} is no machine image; nova-manage image list shows the ids, as ami-00000001");
    };
    let mut conn = cx.db.read().await?;
    let image = available(&mut conn, project, id).await?;
    for needed in [image.kernel, image.ramdisk].into_iter().flatten() {
        available(&mut conn, project, needed).await?;
    }
    Ok(image)
}

async fn available(conn: &mut Conn, project: &Project, id: ImageId) -> anyhow::Result<Image> {
    match images::get(conn, &project.id, id).await? {
        None => bail!("there is no image {id} that {} may launch; nova-manage image list shows all", project.id),
        Some(image) if image.state != ImageState::Available => {
            bail!("the image {id} of --vpn_image_id is {}, not available", image.state.as_str())
        }
        Some(image) => Ok(image),
    }
}

/// The instance that has the address of the VPN of the project's network.
async fn running(conn: &mut Conn, project: &Project) -> Result<Option<(InstanceId, Ipv4Addr)>, DbError> {
    let network = networks::for_project(conn, &project.id, false).await?;
    let own = network.filter(|network| network.project.as_ref() == Some(&project.id));
    let Some(address) = own.and_then(|network| network.vpn_private_address) else { return Ok(None) };
    Ok(fixed_ips::by_address(conn, address).await?.map(|(there, _)| (there, address)))
}

/// The manager's key pair of that name. Its private half is written before the row can be seen, and only by who made it.
async fn key_pair(cx: &mut Context<'_, '_>, project: &Project, name: KeyName) -> anyhow::Result<(KeyName, String)> {
    let manager = &project.manager;
    if let Some(there) = key_pairs::get(&mut cx.db.read().await?, manager, &name).await? {
        return Ok((there.name, there.public_key));
    }
    let made = create_key_pair(KeyKind::Rsa, name.as_str())?;
    let new = key_pairs::NewKeyPair {
        user: manager,
        name: &name,
        fingerprint: &made.fingerprint,
        public_key: &made.public_line,
    };
    let kept = transaction!(cx.db, |tx| -> anyhow::Error {
        key_pairs::create(tx, &new).await?;
        keep(cx, manager.as_str(), &name, &made.private_pem)
    });
    match kept {
        Err(error) if matches!(error.downcast_ref(), Some(DbError::Duplicate(Unique::KeyPair))) => {
            // Another run made it just now.
            let there = key_pairs::get(&mut cx.db.write().await?, manager, &name).await?;
            let there = there.with_context(|| format!("the key pair {name} is gone again; run this once more"))?;
            Ok((there.name, there.public_key))
        }
        Err(error) => Err(error),
        Ok(path) => {
            cx.note(format_args!("Wrote the private key of {name} to {}.", path.display()));
            Ok((name, made.public_line))
        }
    }
}

fn keep(cx: &Context<'_, '_>, user: &str, name: &KeyName, private: &Secret) -> anyhow::Result<std::path::PathBuf> {
    let content = private.expose().as_bytes();
    Ok(write_private_below(&cx.config.identity.keys_path, user, &format!("{name}.pem"), content)?)
}

/// What the image makes a VPN server of.
async fn user_data(cx: &Context<'_, '_>, project: &Project) -> anyhow::Result<Vec<u8>> {
    if cx.config.identity.use_project_ca {
        bail!("--use_project_ca is not supported; remove it, and the VPN gets a certificate of the cloud's authority");
    }
    let script = script(cx, &project.id)?;
    let now = cx.surface.clock.now();
    let authority = Authority::open_or_create(&cx.ca_files(), now)?;
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let words = [project.id.as_str(), &now.format(&form)?];
    let server = authority.issue_server(&fill_subject(&cx.config.identity.vpn_cert_subject, &words)?, now)?;
    let file = server.file.display().to_string();
    certificates::create(&mut cx.db.write().await?, &project.manager, &project.id, &file).await?;
    let data = vpn_user_data(&script, &server, authority.certificate_pem(), &authority.revoked_pem()?)?;
    if data.len() > MOST_USER_DATA {
        let length = data.len();
        bail!(
            "script, keys and the list of revoked certificates are {length} bytes, of which user data holds {MOST_USER_DATA}"
        );
    }
    Ok(data)
}

/// What is to run.
struct Wanted<'a> {
    project: &'a Project,
    image: Image,
    group: GroupName,
    key: (KeyName, String),
    user_data: Vec<u8>,
    quotas: Quotas,
    flavor: &'static Flavor,
}

/// How it went.
#[derive(Debug)]
enum Launched {
    New(InstanceId, Ipv4Addr),
    There(InstanceId, Ipv4Addr),
}

/// Stores the instance with its address: all of it, or nothing. The scheduler finds it in its next turn.
async fn launch(cx: &Context<'_, '_>, wanted: &Wanted<'_>) -> anyhow::Result<Launched> {
    let mut tries = 1;
    loop {
        match transaction!(cx.db, |tx| -> anyhow::Error { store(tx, wanted).await }) {
            Err(error) if tries < MOST_TRIES && may_pass(&error) => tries += 1,
            other => return other,
        }
    }
}

fn may_pass(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(DbError::Duplicate(Unique::Mac) | DbError::Stale("network") | DbError::InDoubt(_))
    )
}

async fn store(tx: &mut Conn, wanted: &Wanted<'_>) -> anyhow::Result<Launched> {
    let Wanted { project, flavor, .. } = wanted;
    // The counters first: whoever launches or deletes anything of the project waits here, another run of this too.
    quotas::hold(tx, &project.id).await?;
    let Some(network) = networks::for_project(tx, &project.id, true).await? else {
        bail!("there is no network left for {}; nova-manage network create makes more", project.id);
    };
    let cidr = network.cidr;
    if network.project.as_ref() != Some(&project.id) {
        bail!(
            "{cidr} is everybody's, from before --network_manager was changed; nova-manage network modify RANGE \
             --project {} gives the project one of its own",
            project.id
        );
    }
    let address = network.vpn_private_address.with_context(|| format!("{cidr} keeps no address for a VPN"))?;
    if let Some((there, _)) = fixed_ips::by_address(tx, address).await? {
        return Ok(Launched::There(there, address));
    }
    let each = [(Resource::Instances, 1), (Resource::Cores, flavor.vcpus)];
    quotas::reserve_own(tx, &project.id, &each, 1, 1, &wanted.quotas).await?;
    let group = group(tx, wanted).await?;
    let instance = *instances::insert_batch(tx, &row(wanted, group)).await?.first().context("no row was stored")?;
    if !fixed_ips::take_kept(tx, network.id, address, instance).await? {
        bail!("{address} is kept from others until the VPN that had it is forgotten; try again in some minutes");
    }
    Ok(Launched::New(instance, address))
}

fn row(wanted: &Wanted<'_>, group: SecurityGroupId) -> NewInstances {
    let Wanted { project, image, flavor, .. } = wanted;
    NewInstances {
        reservation: ReservationId::from_random(rand::random()),
        user: project.manager.clone(),
        project: project.id.clone(),
        image: image.id,
        kernel: image.kernel,
        ramdisk: image.ramdisk.filter(|_| image.kernel.is_some()),
        flavor: flavor.name,
        memory_mb: flavor.memory_mb,
        vcpus: flavor.vcpus,
        local_gb: flavor.local_gb,
        key: Some(wanted.key.clone()),
        user_data: Some(wanted.user_data.clone()),
        availability_zone: None,
        display_name: Some(wanted.group.to_string()),
        display_description: None,
        groups: vec![group],
        client_token: None,
        macs: vec![Mac::of_guest(rand::random())],
    }
}

/// The group of the VPN, made where there is none, with those of its rules that it lacks.
async fn group(tx: &mut Conn, wanted: &Wanted<'_>) -> Result<SecurityGroupId, GroupError> {
    let Wanted { project, group: name, .. } = wanted;
    let found = security_groups::get(tx, &project.id, &GroupRef::Name(name.clone())).await?;
    let (id, there) = match found {
        Some(group) => (group.id, group.rules),
        None => {
            let new = NewGroup { project: &project.id, user: &project.manager, name, description: "Group for vpn" };
            (security_groups::create(tx, &new, MOST_GROUPS).await?, Vec::new())
        }
    };
    let wanted = [Traffic::Udp(Ports { from: PORT, to: PORT }), Traffic::Icmp(Icmp::Any)]
        .map(|traffic| Rule { traffic, source: Source::EVERYONE });
    let lacks = |rule: &Rule| !there.iter().any(|granted| granted.rule == *rule);
    let lacking: Vec<Rule> = wanted.into_iter().filter(lacks).collect();
    if !lacking.is_empty() {
        security_groups::add_rules(tx, &project.id, id, &lacking, MOST_RULES).await?;
    }
    Ok(id)
}
