//! The half of `nova-manage check` that looks at this host: files, interfaces, firewall tables, servers, guests.
//!
//! What cannot be looked at is said, and nothing is concluded from it.

mod domains;
mod floating;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nova_db::{compute_nodes, images, instances, networks, routers, services};
use nova_images::{ImageStore, InstanceFolders};
use nova_link::dnsmasq::{DhcpServers, Dnsmasq};
use nova_link::links::{KernelLinks, Link, LinkKind, Links};
use nova_run::{Command, Host, Runner};
use nova_types::image::{Image, ImageState};
use nova_types::instance::Instance;
use nova_types::service::Service;
use nova_types::state::{State, VmState};
use nova_types::{HostName, ImageId, InstanceId};

use crate::check::Leak;
use crate::context::Context;

/// Tables of ours, and the daemons without any of which they are left over.
const TABLES: [(&str, &[&str]); 3] = [
    ("nova_compute", &["nova-compute"]),
    ("nova_network", &["nova-network"]),
    ("nova_vxlan", &["nova-compute", "nova-network"]),
];

const OBJECT_STORE: &str = "nova-objectstore";

/// What the rows say should be on this host.
#[derive(Debug, Default)]
struct Wanted {
    instances: BTreeSet<InstanceId>,
    /// Those that live elsewhere and have a folder here: hosts may share their folders, and what was evacuated from here
    /// left its disks.
    elsewhere: BTreeSet<InstanceId>,
    /// Those that run and have nothing else under way.
    running: BTreeSet<InstanceId>,
    /// Bridges of all networks: one of these is nowhere a leak.
    bridges: BTreeSet<String>,
    /// Bridges of networks that other hosts serve, and their gateways' addresses.
    gateways_elsewhere: BTreeSet<(String, Ipv4Addr)>,
    /// Bridges whose DHCP server is here.
    served: BTreeSet<String>,
    daemons: BTreeSet<String>,
    images: Vec<Image>,
    keeps_images: bool,
}

/// What is on this host.
#[derive(Debug, Default)]
struct World {
    folders: Vec<(InstanceId, PathBuf)>,
    guests: BTreeSet<InstanceId>,
    /// Guests that libvirt knows, where it could be asked.
    domains: Option<BTreeSet<InstanceId>>,
    /// Guests that are network namespaces, and the names of those.
    namespaces: BTreeMap<InstanceId, String>,
    taps: Vec<(String, Option<String>)>,
    own_bridges: Vec<String>,
    /// What addresses these have.
    addresses: BTreeSet<(String, Ipv4Addr)>,
    /// Interfaces of ours that carry networks between hosts, and the bridges that they are on.
    own_segments: Vec<(String, Option<String>)>,
    served: Vec<String>,
    tables: Vec<(String, String)>,
    stored: Vec<(ImageId, PathBuf)>,
}

pub(crate) async fn look(cx: &mut Context<'_, '_>, older_than: i32, deep: bool) -> anyhow::Result<Vec<Leak>> {
    let runner: Arc<dyn Runner> = Arc::new(Host);
    // The world first: what is made between the two looks has its row before it has anything here.
    let under_libvirt = hypervisor(cx).await?.starts_with("libvirt");
    let world = World::look(cx, &runner, under_libvirt).await;
    let wanted = Wanted::read(cx, &world).await?;
    let mut leaks = compare(&world, &wanted, &cx.config.network.networks_path);
    if wanted.keeps_images {
        leaks.extend(check_images(cx, &wanted.images, older_than, deep));
    }
    leaks.extend(floating::look(cx).await?);
    Ok(leaks)
}

/// What nova-compute said it runs guests on; nothing where there never was one.
async fn hypervisor(cx: &Context<'_, '_>) -> anyhow::Result<String> {
    let nodes = compute_nodes::list(&mut cx.db.read().await?, i64::MAX).await?;
    let here = nodes.into_iter().find(|node| node.host == cx.config.common.host);
    Ok(here.map(|node| node.hypervisor_type).unwrap_or_default())
}

impl Wanted {
    async fn read(cx: &Context<'_, '_>, world: &World) -> anyhow::Result<Self> {
        let host = &cx.config.common.host;
        let conn = &mut cx.db.read().await?;
        let mut networks = networks::list(conn).await?;
        routers::seen_from(conn, host, &mut networks).await?;
        let served = networks.iter().filter(|n| n.host.as_ref() == Some(host)).map(|n| n.bridge.clone()).collect();
        let others = networks.iter().filter(|n| n.host.as_ref().is_some_and(|other| other != host));
        let mut gateways_elsewhere: BTreeSet<(String, Ipv4Addr)> =
            others.map(|n| (n.bridge.clone(), n.gateway)).collect();
        for router in routers::list(conn).await?.into_iter().filter(|router| router.host != *host) {
            let bridge = networks.iter().find(|network| network.id == router.network).map(|n| n.bridge.clone());
            gateways_elsewhere.extend(bridge.map(|bridge| (bridge, router.address)));
        }
        let services = services::list(conn).await?;
        let keeps_images = keeps_images(&services, host);
        let daemons = services.into_iter().filter(|s| s.host == *host).map(|s| s.binary);
        let here = instances::on_host(conn, host).await?;
        let folders: Vec<InstanceId> = world.folders.iter().map(|(id, _)| *id).collect();
        let quiet = State { vm: VmState::Running, task: None };
        Ok(Self {
            running: here.iter().filter(|v| v.instance.state == quiet).map(|v| v.instance.id).collect(),
            elsewhere: instances::living(conn, &folders).await?,
            instances: here.into_iter().map(|v| v.instance.id).collect(),
            bridges: networks.into_iter().map(|n| n.bridge).collect(),
            gateways_elsewhere,
            served,
            daemons: daemons.collect(),
            images: images::list(conn, None).await?,
            keeps_images,
        })
    }
}

/// Whether the files of images are on this host: where its object store is, or where there is none at all.
fn keeps_images(services: &[Service], host: &HostName) -> bool {
    let mut stores = services.iter().filter(|service| service.binary == OBJECT_STORE).peekable();
    stores.peek().is_none() || stores.any(|store| store.host == *host)
}

impl World {
    async fn look(cx: &mut Context<'_, '_>, runner: &Arc<dyn Runner>, under_libvirt: bool) -> Self {
        let (instances_path, images_path) = (&cx.config.compute.instances_path, &cx.config.images.images_path);
        let folders = InstanceFolders::new(instances_path);
        let store = ImageStore::new(images_path);
        let dnsmasq = Dnsmasq::new(Arc::clone(runner), &cx.config.network.networks_path);
        let mut world = Self {
            guests: domains::processes(runner.as_ref(), instances_path),
            namespaces: domains::namespaces(instances_path),
            ..Self::default()
        };
        let mut blind = Vec::new();
        if under_libvirt {
            match domains::defined(&cx.config.compute, runner).await {
                Ok(ids) => world.domains = ids,
                Err(e) => blind.push(("libvirt's domains", e)),
            }
            world.guests.extend(world.domains.iter().flatten());
        }
        match folders.list() {
            Ok(ids) => world.folders = ids.into_iter().map(|id| (id, folders.path(id))).collect(),
            Err(e) => blind.push(("instance folders", anyhow::Error::from(e))),
        }
        match store.list() {
            Ok(ids) => world.stored = ids.into_iter().map(|id| (id, store.path(id))).collect(),
            Err(e) => blind.push(("images", e.into())),
        }
        match KernelLinks.list().await {
            Ok(links) => {
                world.taps =
                    links.iter().filter(|l| is_tap(&l.name)).map(|l| (l.name.clone(), l.bridge.clone())).collect();
                let (bridges, others): (Vec<_>, Vec<_>) =
                    links.into_iter().filter(|l| l.ours).partition(|l| l.kind == LinkKind::Bridge);
                let addresses = |l: &Link| l.addresses.iter().map(|at| (l.name.clone(), at.addr())).collect::<Vec<_>>();
                world.addresses = bridges.iter().flat_map(addresses).collect();
                world.own_bridges = bridges.into_iter().map(|l| l.name).collect();
                let segments = others.into_iter().filter(|l| l.kind == LinkKind::Segment);
                world.own_segments = segments.map(|l| (l.name, l.bridge)).collect();
            }
            Err(e) => blind.push(("network interfaces", e.into())),
        }
        match dnsmasq.list().await {
            Ok(bridges) => world.served = bridges,
            Err(e) => blind.push(("DHCP servers", e.into())),
        }
        match tables(runner.as_ref()).await {
            Ok(tables) => world.tables = tables,
            Err(e) => blind.push(("firewall tables", e)),
        }
        for (what, why) in blind {
            cx.note(format_args!("Could not look at {what}: {why:#}"));
        }
        world
    }
}

fn compare(world: &World, wanted: &Wanted, networks_path: &Path) -> Vec<Leak> {
    let mut leaks = Vec::new();
    let mut leak = |invariant: &str, what: String, mend: String| {
        leaks.push(Leak { invariant: invariant.to_owned(), what, mend });
    };
    for id in world.guests.iter().filter(|id| !wanted.instances.contains(id)) {
        let domain = Instance::domain_name(*id);
        leak(
            "W1",
            format!("the guest {domain} runs, and {id} is not here"),
            format!("virsh destroy {domain}; virsh undefine {domain}"),
        );
    }
    let lost = world.domains.iter().flat_map(|known| wanted.running.difference(known));
    for id in lost {
        let mend = format!("systemctl restart nova-compute; if that does not help, euca-terminate-instances {id}");
        leak("W1", format!("{id} should run here, and libvirt has no such guest"), mend);
    }
    let lives = |id: &InstanceId| wanted.instances.contains(id) || wanted.elsewhere.contains(id);
    for (id, path) in world.folders.iter().filter(|(id, _)| !lives(id)) {
        let path = path.display();
        leak("W2", format!("{path} is the folder of {id}, which is not here"), format!("rm -r {path}"));
    }
    let taps_wanted: BTreeSet<String> = wanted.instances.iter().map(|id| Instance::tap_name(*id)).collect();
    let on_our_bridge = |bridge: &Option<String>| bridge.as_ref().is_some_and(|b| wanted.bridges.contains(b));
    for (tap, _) in world.taps.iter().filter(|(t, b)| on_our_bridge(b) && !taps_wanted.contains(t)) {
        leak("W3", format!("the interface {tap} is of no instance of this host"), format!("ip link delete {tap}"));
    }
    for (id, name) in world.namespaces.iter().filter(|(id, _)| !wanted.instances.contains(id)) {
        let mend = format!("ip netns pids {name} | xargs -r kill; ip netns delete {name}");
        leak("W3", format!("the namespace {name} is of {id}, which is not here"), mend);
    }
    for bridge in world.own_bridges.iter().filter(|b| !wanted.bridges.contains(*b)) {
        leak("W3", format!("the bridge {bridge} is of no network"), format!("ip link delete {bridge}"));
    }
    for (segment, _) in world.own_segments.iter().filter(|(_, bridge)| !on_our_bridge(bridge)) {
        leak("W3", format!("{segment} carries no network"), format!("ip link delete {segment}"));
    }
    for bridge in world.served.iter().filter(|b| !wanted.served.contains(*b)) {
        let base = networks_path.join(format!("nova-{bridge}")).display().to_string();
        let mend = format!("kill $(cat {base}.pid); rm -r {base}.*");
        leak("W4", format!("{bridge} has a DHCP server or its files, and no network of this host"), mend);
    }
    for (bridge, gateway) in world.addresses.intersection(&wanted.gateways_elsewhere) {
        let what = format!("{bridge} has the gateway's address {gateway}, and another host serves that network");
        leak("W4", what, "systemctl restart nova-network".to_owned());
    }
    for (family, table) in &world.tables {
        let makers = TABLES.iter().find(|(name, _)| name == table).map_or(&[][..], |(_, makers)| *makers);
        if !makers.iter().any(|maker| wanted.daemons.contains(*maker)) {
            let what = format!("the firewall table {family} {table} is there, and no {}", makers.join(" or "));
            leak("W6", what, format!("nft delete table {family} {table}"));
        }
    }
    for (id, path) in world.stored.iter().filter(|(id, _)| !wanted.images.iter().any(|i| i.id == *id)) {
        let folder = path.parent().unwrap_or(path).display();
        leak("W8", format!("{folder} is the folder of {id}, which is not registered"), format!("rm -r {folder}"));
    }
    leaks
}

fn check_images(cx: &Context<'_, '_>, images: &[Image], older_than: i32, deep: bool) -> Vec<Leak> {
    let store = ImageStore::new(&cx.config.images.images_path);
    let now = cx.surface.clock.now();
    let mut leaks = Vec::new();
    for image in images {
        let id = image.id;
        let stuck = image.created_at + Duration::from_secs(older_than.unsigned_abs().into()) < now;
        let wrong = match image.state {
            ImageState::Pending if stuck => Some("was never completed"),
            ImageState::Available if !store.path(id).is_file() => Some("has lost its file"),
            ImageState::Available if deep => match image.sha256.as_deref().map(|hash| store.is_intact(id, hash)) {
                Some(Ok(true)) => None,
                Some(Ok(false)) => Some("has a file with other bytes than were registered"),
                Some(Err(_)) => Some("has a file that cannot be read"),
                None => Some("has no hash"),
            },
            _ => None,
        };
        leaks.extend(wrong.map(|what| Leak {
            invariant: "W8".to_owned(),
            what: format!("the image {id} {what}"),
            mend: format!("nova-manage image delete {id}"),
        }));
    }
    leaks
}

fn is_tap(name: &str) -> bool {
    name.strip_prefix("tap").is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Family and name of every table of ours.
async fn tables(runner: &dyn Runner) -> anyhow::Result<Vec<(String, String)>> {
    let command = Command::new("nft").args(["list", "tables"]).deadline(Duration::from_secs(10));
    let listed = runner.run(command).await?.text();
    Ok(listed.lines().filter_map(table).collect())
}

fn table(line: &str) -> Option<(String, String)> {
    let (family, name) = line.strip_prefix("table ")?.split_once(' ')?;
    TABLES.iter().any(|(ours, _)| *ours == name).then(|| (family.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use expect_test::expect;
    use nova_types::{ImageId, ImageKind, InstanceId};

    use super::{Wanted, World, compare, is_tap, table};

    fn world() -> World {
        let id = InstanceId::new(10);
        World {
            folders: vec![(id, "/i/instance-0000000a".into())],
            guests: [id].into(),
            domains: Some([id].into()),
            namespaces: [(id, "nova-ec2-0000000a".to_owned())].into(),
            taps: vec![("tap0000000a".into(), Some("br100".into())), ("tap0000000b".into(), Some("docker0".into()))],
            own_bridges: vec!["br100".into()],
            addresses: [("br100".to_owned(), Ipv4Addr::new(10, 0, 0, 1))].into(),
            own_segments: vec![("vlan100".into(), Some("br100".into()))],
            served: vec!["br100".into()],
            tables: vec![("bridge".into(), "nova_compute".into())],
            stored: vec![(ImageId::new(ImageKind::Machine, 1), "/images/ami-00000001/image".into())],
        }
    }

    #[test]
    fn what_rows_account_for_is_no_leak() {
        let mut wanted = Wanted {
            keeps_images: true,
            instances: [InstanceId::new(10)].into(),
            elsewhere: [].into(),
            running: [InstanceId::new(10)].into(),
            bridges: ["br100".to_owned()].into(),
            gateways_elsewhere: [].into(),
            served: ["br100".to_owned()].into(),
            daemons: ["nova-compute".to_owned()].into(),
            images: vec![],
        };
        let mut world = world();
        world.stored.clear();
        assert_eq!(compare(&world, &wanted, Path::new("/n")), []);
        wanted.gateways_elsewhere = world.addresses.clone();
        let [twice] = compare(&world, &wanted, Path::new("/n")).try_into().unwrap();
        assert_eq!(twice.what, "br100 has the gateway's address 10.0.0.1, and another host serves that network");
        wanted.gateways_elsewhere.clear();
        wanted.instances.clear();
        assert_eq!(compare(&world, &wanted, Path::new("/n")).len(), 4, "guest, folder, tap and namespace");
        wanted.elsewhere = [InstanceId::new(10)].into();
        assert_eq!(compare(&world, &wanted, Path::new("/n")).len(), 3, "its disks may be the only copy");
    }

    #[test]
    fn a_running_instance_without_a_guest_is_told_only_if_libvirt_could_be_asked() {
        let wanted = Wanted { running: [InstanceId::new(11)].into(), ..Wanted::default() };
        let told = |domains| compare(&World { domains, ..World::default() }, &wanted, Path::new("/n")).len();
        assert_eq!((told(None), told(Some([].into()))), (0, 1));
    }

    #[test]
    fn each_leak_is_named_with_what_mends_it() {
        let wanted = Wanted { bridges: ["br101".to_owned()].into(), ..Wanted::default() };
        let leaks = compare(&world(), &wanted, Path::new("/n"));
        let shown: Vec<String> = leaks.iter().map(|l| format!("{} {}\n  {}", l.invariant, l.what, l.mend)).collect();
        expect![[r#"
            W1 the guest instance-0000000a runs, and i-0000000a is not here
              virsh destroy instance-0000000a; virsh undefine instance-0000000a
            W2 /i/instance-0000000a is the folder of i-0000000a, which is not here
              rm -r /i/instance-0000000a
            W3 the namespace nova-ec2-0000000a is of i-0000000a, which is not here
              ip netns pids nova-ec2-0000000a | xargs -r kill; ip netns delete nova-ec2-0000000a
            W3 the bridge br100 is of no network
              ip link delete br100
            W3 vlan100 carries no network
              ip link delete vlan100
            W4 br100 has a DHCP server or its files, and no network of this host
              kill $(cat /n/nova-br100.pid); rm -r /n/nova-br100.*
            W6 the firewall table bridge nova_compute is there, and no nova-compute
              nft delete table bridge nova_compute
            W8 /images/ami-00000001 is the folder of ami-00000001, which is not registered
              rm -r /images/ami-00000001"#]]
        .assert_eq(&shown.join("\n"));
    }

    #[test]
    fn only_what_is_ours_is_recognised() {
        assert!(is_tap("tap0000000a") && !is_tap("tap0") && !is_tap("tapestry1"));
        assert_eq!(table("table inet nova_compute"), Some(("inet".into(), "nova_compute".into())));
        assert_eq!(table("table inet filter"), None);
    }
}
