//! A compute host on a bench: real rows in SQLite, real files, a simulated hypervisor, and a firewall and links that
//! only remember. What there is, rows and world, can be read as a text.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nova_bus::InProcess;
use nova_db::dev::fixtures;
use nova_db::images::{self, Stored};
use nova_db::instances::{self, Guard};
use nova_db::{Db, Options, check, compute_nodes, fixed_ips, quotas, security_groups, transaction};
use nova_hypervisor::{Hypervisor, Power, Simulated};
use nova_images::{ImageStore, InstanceFolders};
use nova_link::carrier::Carrier;
use nova_link::guests::FakeGuestFirewall;
use nova_link::links::FakeLinks;
use nova_run::fake::Script;
use nova_service::Ready;
use nova_types::clock::FixedClock;
use nova_types::image::{DiskFormat, NewImage};
use nova_types::instance::{InstanceView, NewInstances};
use nova_types::quota::{Quotas, Resource};
use nova_types::state::{Event, Task};
use nova_types::{Clock, HostName, ImageId, ImageKind, InstanceId, NetworkId, ProjectId, SecurityGroupId};

use crate::host::Host;
use crate::{Capacity, ImageSource, Parts, Real, Settings};

const TICK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Bench {
    pub(crate) db: Db,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) guests: Arc<Simulated>,
    pub(crate) firewall: Arc<FakeGuestFirewall>,
    pub(crate) bus: Arc<InProcess>,
    pub(crate) group: SecurityGroupId,
    pub(crate) image: ImageId,
    network: NetworkId,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(Simulated::in_memory()).await
    }

    pub(crate) async fn with(guests: Simulated) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = open(folder.path()).await;
        db.migrate().await.unwrap();
        fixtures::node(&db, &host_name(), 1000).await;
        let network = fixtures::flat_network(&db, 20).await;
        let user = fixtures::name("joe");
        let group = security_groups::ensure_default(&mut db.write().await.unwrap(), &project(), &user).await.unwrap();
        let image = register(&db, folder.path(), ImageKind::Machine, &[7; 4096]).await;
        Self {
            db,
            folder,
            guests: Arc::new(guests),
            firewall: Arc::default(),
            bus: Arc::new(InProcess::new()),
            group,
            image,
            network,
        }
    }

    /// All that the daemon is made of.
    pub(crate) fn parts(&self) -> Parts {
        self.parts_of(self.db.clone(), Arc::<Simulated>::clone(&self.guests))
    }

    /// The same for another process, with its own connections.
    pub(crate) fn parts_of(&self, db: Db, guests: Arc<Simulated>) -> Parts {
        Parts {
            name: host_name(),
            db,
            bus: Arc::<InProcess>::clone(&self.bus),
            clock: Arc::new(FixedClock::at(1_300_000_000)),
            hypervisor: guests,
            hypervisor_type: "simulated".to_owned(),
            real: Some(Real {
                firewall: Arc::<FakeGuestFirewall>::clone(&self.firewall),
                links: Arc::new(FakeLinks::default()),
                images: ImageSource {
                    local: ImageStore::new(self.folder.path().join("images")),
                    remote: None,
                    patience: PATIENCE,
                },
                instances_path: self.instances_path(),
                runner: Arc::new(Script::new()),
                carrier: Carrier::Port(None),
            }),
            settings: settings(),
            ready: Ready::default(),
        }
    }

    pub(crate) fn host(&self) -> Arc<Host> {
        std::fs::create_dir_all(self.instances_path()).unwrap();
        Arc::new(Host::new(self.parts()))
    }

    pub(crate) fn instances_path(&self) -> std::path::PathBuf {
        self.folder.path().join("instances")
    }

    /// Another image, with these bytes.
    pub(crate) async fn register(&self, kind: ImageKind, bytes: &[u8]) -> ImageId {
        register(&self.db, self.folder.path(), kind, bytes).await
    }

    /// Launches as API and scheduler do it: quota, rows; then capacity, host and addresses.
    pub(crate) async fn placed(&self, count: u32) -> Vec<InstanceId> {
        self.placed_as(count, |_| {}).await
    }

    pub(crate) async fn placed_as(&self, count: u32, change: impl FnOnce(&mut NewInstances)) -> Vec<InstanceId> {
        let mut new = fixtures::new_instances(&project(), count);
        (new.groups, new.image) = (vec![self.group], self.image);
        change(&mut new);
        let amounts = [(Resource::Instances, count), (Resource::Cores, count)];
        let limits = Quotas { instances: 1000, cores: 1000, ..Quotas::default() };
        let ids = transaction!(self.db, |tx| {
            quotas::reserve(tx, &new.project, &amounts, &limits).await?;
            instances::insert_batch(tx, &new).await
        });
        let ids = ids.unwrap();
        let network = self.network;
        let placed = transaction!(self.db, |tx| {
            let moved = instances::place(tx, &ids, &host_name()).await?;
            assert!(compute_nodes::claim(tx, &host_name(), fixtures::DEMAND.times(count)).await?);
            fixed_ips::take(tx, network, &moved).await?;
            Ok(moved)
        });
        placed.unwrap()
    }

    pub(crate) async fn view(&self, id: InstanceId) -> InstanceView {
        let mut conn = self.db.read().await.unwrap();
        instances::describe(&mut conn, None, &[id]).await.unwrap().remove(0)
    }

    /// What a user asks.
    pub(crate) async fn ask(&self, id: InstanceId, event: Event) {
        let asked = transaction!(self.db, |tx| { instances::request(tx, None, id, event, None).await });
        asked.unwrap();
    }

    /// Moves a row on, as an operation does.
    pub(crate) async fn moved(&self, id: InstanceId, event: Event) {
        let guard = Guard::of(&self.view(id).await.instance);
        let moved = transaction!(self.db, |tx| { instances::apply(tx, id, event, &guard, None).await });
        moved.unwrap();
    }

    /// Waits until something holds.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        let begun = std::time::Instant::now();
        while !holds().await {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}:\n{}", self.picture().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn until_state(&self, id: InstanceId, wanted: &str) {
        self.until(wanted, async || self.state(id).await == wanted).await;
    }

    /// `running`, `pending/building`, `stopped (why)`, ….
    pub(crate) async fn state(&self, id: InstanceId) -> String {
        let row = instances::get(&mut self.db.read().await.unwrap(), id).await.unwrap();
        let task = row.state.task.map(|task: Task| format!("/{}", task.as_str())).unwrap_or_default();
        let why = row.reason.map(|reason| format!(" ({}: {})", reason.code, reason.message)).unwrap_or_default();
        format!("{}{task}{why}", row.state.vm.as_str())
    }

    /// Rows and world, one line each.
    pub(crate) async fn picture(&self) -> String {
        let all = instances::describe(&mut self.db.read().await.unwrap(), None, &[]).await.unwrap();
        let mut lines = Vec::new();
        for view in all {
            let id = view.instance.id;
            lines.push(format!("row {id} {}", self.state(id).await));
        }
        lines.push(self.world().await);
        lines.join("\n")
    }

    /// Guests, folders and rules of this host.
    pub(crate) async fn world(&self) -> String {
        let mut lines = Vec::new();
        for guest in self.guests.list().await.unwrap_or_default() {
            lines.push(format!("guest {} {}", guest.id, if guest.power == Power::On { "on" } else { "off" }));
        }
        for id in InstanceFolders::new(self.instances_path()).list().unwrap() {
            let mut files: Vec<String> = std::fs::read_dir(InstanceFolders::new(self.instances_path()).path(id))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            lines.push(format!("folder {id} {}", files.join(" ")));
        }
        lines.extend(self.firewall.guests().iter().map(|id| format!("rules {id}")));
        lines.join("\n")
    }

    /// Rows that contradict each other, and what the project and the host have in use: instances, then memory in MiB.
    pub(crate) async fn books(&self) -> (Vec<check::Finding>, u32, u32) {
        let mut conn = self.db.read().await.unwrap();
        let findings = check::run(&mut conn, 3600).await.unwrap();
        let instances = quotas::usage(&mut conn, &project(), Resource::Instances).await.unwrap();
        let node = compute_nodes::list(&mut conn, 60).await.unwrap().remove(0);
        (findings, instances, node.memory_mb_used)
    }
}

/// A clock that is ahead of the files' time stamps.
pub(crate) fn later_by(ahead: time::Duration) -> Arc<dyn Clock> {
    Arc::new(FixedClock::at((nova_service::SystemClock.now() + ahead).unix_timestamp()))
}

/// Opens the database of a bench.
pub(crate) async fn open(folder: &Path) -> Db {
    let url = format!("sqlite:///{}", folder.join("nova.sqlite").display());
    Db::open(&url, &Options::default()).await.unwrap()
}

pub(crate) fn project() -> ProjectId {
    fixtures::name("acme")
}

pub(crate) fn host_name() -> HostName {
    fixtures::name("host-1")
}

fn settings() -> Settings {
    Settings {
        zone: "nova".to_owned(),
        holder: nova_service::Holder::named("bench"),
        one_of_many: false,
        tick: TICK,
        converge: TICK,
        report: Duration::from_secs(10),
        enable_new: true,
        address: None,
        builds: 4,
        quiet: 4,
        stop_grace: Duration::ZERO,
        reboot_grace: Duration::ZERO,
        stranger_grace: Duration::from_millis(400),
        quarantine_seconds: 0,
        minimum_root_bytes: 1 << 20,
        seed_disk: false,
        seed_network: false,
        ipv6: false,
        capacity: Capacity::Fixed { memory_mb: 512_000, vcpus: 1000, local_gb: 100 },
    }
}

async fn register(db: &Db, folder: &Path, kind: ImageKind, bytes: &[u8]) -> ImageId {
    let new = NewImage {
        kind,
        owner: project(),
        name: "image".to_owned(),
        description: String::new(),
        location: format!("{kind:?} {}", bytes.len()),
        is_public: true,
        architecture: "x86_64".to_owned(),
        format: DiskFormat::Raw,
        kernel: None,
        ramdisk: None,
    };
    let mut conn = db.write().await.unwrap();
    let id = images::register(&mut conn, &new).await.unwrap();
    let stored = ImageStore::new(folder.join("images")).put(id, DiskFormat::Raw, &mut &*bytes).unwrap();
    let (sha256, size_bytes) = (stored.sha256.as_str(), stored.size_bytes);
    let stored = Stored { sha256, size_bytes, virtual_size_bytes: stored.virtual_size_bytes };
    images::available(&mut conn, id, stored).await.unwrap();
    id
}
