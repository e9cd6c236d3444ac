//! A real host in namespaces of its own: libvirt, a bridge, nftables, and a guest that boots.
//!
//! Needs root, libvirt, QEMU, nft and `nova-libvirt` in the target folder (`cargo build -p nova-hypervisor --features
//! libvirt --bin nova-libvirt`); says what is missing and passes without.

#![expect(clippy::unwrap_used, reason = "this whole file is a test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nova_bus::InProcess;
use nova_compute::{Capacity, ImageSource, Parts, Real, Settings, run};
use nova_db::dev::fixtures;
use nova_db::images::{self, Stored};
use nova_db::{Db, check, compute_nodes, fixed_ips, instances, security_groups, transaction};
use nova_hypervisor::{Accel, CloudId, Libvirt, LibvirtOptions};
use nova_images::ImageStore;
use nova_link::guests::{KernelGuestFirewall, Policy};
use nova_link::links::{KernelLinks, Links};
use nova_run::{Command, Host, Runner};
use nova_service::{Ready, Stop};
use nova_types::clock::FixedClock;
use nova_types::image::{DiskFormat, NewImage};
use nova_types::state::Event;
use nova_types::{HostName, ImageId, ImageKind, InstanceId, ProjectId};

const SAYS: &[u8] = b"Hello from the guest.\r\n";
const INSIDE: &str = "on_a_host_of_its_own";

fn helper() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("nova-libvirt")
}

async fn missing() -> Option<String> {
    if !helper().is_file() {
        return Some("nova-libvirt is not built".to_owned());
    }
    for program in ["libvirtd", "virtlogd", "qemu-system-x86_64", "tini", "nft", "unshare"] {
        if Host.run(Command::new("which").arg(program)).await.is_err() {
            return Some(format!("{program} is not installed"));
        }
    }
    let namespaces = Host.run(Command::new("unshare").args(["--mount", "--net", "true"])).await;
    namespaces.err().map(|_| "namespaces need root".to_owned())
}

#[tokio::test]
async fn a_real_guest_lives_its_life() {
    if let Some(why) = missing().await {
        eprintln!("skipped: {why}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hypervisor/tests/private-libvirtd");
    let inside = Command::new(script.display().to_string())
        .path(folder.path())
        .unwrap()
        .path(&std::env::current_exe().unwrap())
        .unwrap()
        .args(["--exact", INSIDE, "--ignored", "--nocapture"])
        .deadline(Duration::from_secs(180));
    match Host.run(inside).await {
        Ok(output) => eprintln!("{}{}", output.text(), String::from_utf8_lossy(&output.stderr)),
        Err(nova_run::RunError::Failed { stderr, first_line, .. }) => panic!("{first_line}\n{stderr}"),
        Err(error) => panic!("{error}"),
    }
}

/// Run by the test above, inside the namespaces.
#[tokio::test]
#[ignore = "only inside private-libvirtd"]
async fn on_a_host_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:///{}/nova.sqlite", folder.path().display());
    let db = Db::open(&url, &nova_db::Options::default()).await.unwrap();
    db.migrate().await.unwrap();
    let parts = parts(&db, folder.path());
    let hypervisor = Arc::clone(&parts.hypervisor);
    let (stop, ready) = (Stop::new(), parts.ready.clone());
    let running = tokio::spawn(run(parts, stop.clone()));
    ready.wait().await;

    let id = placed(&db, folder.path()).await;
    let begun = Instant::now();
    until_state(&db, id, "running").await;
    eprintln!("running after {} ms", begun.elapsed().as_millis());
    let greeted = async || hypervisor.console(id, 1 << 16).await.unwrap().starts_with(SAYS);
    until("the guest greets", greeted).await;
    let tap = KernelLinks.list().await.unwrap().into_iter().find(|link| link.name == "tap00000001").unwrap();
    assert_eq!(tap.bridge.as_deref(), Some("br100"));
    assert!(rules().await.contains("tap00000001"));

    for (event, state) in [(Event::Reboot, "running"), (Event::Stop, "stopped"), (Event::Start, "running")] {
        let begun = Instant::now();
        ask(&db, id, event).await;
        until_state(&db, id, state).await;
        eprintln!("{event:?} took {} ms", begun.elapsed().as_millis());
        assert!(rules().await.contains("tap00000001"), "rules stay in force");
    }
    let console = String::from_utf8(hypervisor.console(id, 1 << 16).await.unwrap()).unwrap();
    assert!(console.matches("Hello").count() >= 2, "the log goes on over restarts: {console:?}");

    let begun = Instant::now();
    ask(&db, id, Event::Terminate).await;
    until_state(&db, id, "terminated").await;
    eprintln!("terminated after {} ms", begun.elapsed().as_millis());
    assert_eq!(hypervisor.list().await.unwrap(), []);
    assert!(!folder.path().join("instances/instance-00000001").exists());
    until("its rules are gone", async || !rules().await.contains("tap00000001")).await;
    assert_eq!(check::run(&mut db.read().await.unwrap(), 60).await.unwrap(), []);
    stop.cancel();
    running.await.unwrap().unwrap();
}

async fn rules() -> String {
    Host.run(Command::new("nft").args(["list", "ruleset"])).await.unwrap().text()
}

fn host_name() -> HostName {
    fixtures::name("host-1")
}

fn parts(db: &Db, folder: &Path) -> Parts {
    let (runner, instances_path): (Arc<dyn Runner>, _) = (Arc::new(Host), folder.join("instances"));
    std::fs::create_dir_all(&instances_path).unwrap();
    let options = LibvirtOptions {
        helper: helper(),
        uri: "qemu:///system".to_owned(),
        accel: Accel::Emulation,
        cloud: CloudId::new("real host test"),
        instances_path: instances_path.clone(),
    };
    Parts {
        name: host_name(),
        db: db.clone(),
        bus: Arc::new(InProcess::new()),
        clock: Arc::new(FixedClock::at(0)),
        hypervisor: Arc::new(Libvirt::new(Arc::clone(&runner), options)),
        hypervisor_type: "libvirt (qemu)".to_owned(),
        real: Some(Real {
            firewall: Arc::new(KernelGuestFirewall::new(
                Arc::clone(&runner),
                Policy { project_traffic: true, ipv6: false },
            )),
            links: Arc::new(KernelLinks),
            images: ImageSource {
                local: ImageStore::new(folder.join("images")),
                remote: None,
                patience: Duration::from_secs(60),
            },
            instances_path,
            runner,
            carrier: nova_link::carrier::Carrier::Port(None),
        }),
        settings: Settings {
            zone: "nova".to_owned(),
            holder: nova_service::Holder::named("real host"),
            one_of_many: false,
            tick: Duration::from_millis(50),
            converge: Duration::from_secs(2),
            report: Duration::from_secs(10),
            enable_new: true,
            address: None,
            builds: 4,
            quiet: 4,
            stop_grace: Duration::from_secs(1),
            reboot_grace: Duration::from_secs(1),
            stranger_grace: Duration::from_secs(10),
            quarantine_seconds: 0,
            minimum_root_bytes: 1 << 20,
            seed_disk: true,
            seed_network: true,
            ipv6: false,
            capacity: Capacity::Measured {
                reserved_memory_mb: 0,
                reserved_disk_gb: 0,
                ram_ratio: 1.0,
                cpu_ratio: 16.0,
                disk_ratio: 16.0,
            },
        },
        ready: Ready::default(),
    }
}

/// Launches one instance of a disk that greets, as API and scheduler do it. The host has reported itself by then.
async fn placed(db: &Db, folder: &Path) -> InstanceId {
    let project: ProjectId = fixtures::name("acme");
    let network = fixtures::flat_network(db, 24).await;
    let image = register(db, folder, &project).await;
    let mut conn = db.write().await.unwrap();
    let group = security_groups::ensure_default(&mut conn, &project, &fixtures::name("joe")).await.unwrap();
    drop(conn);
    let node = async || !compute_nodes::list(&mut db.read().await.unwrap(), 60).await.unwrap().is_empty();
    until("the host reports", node).await;
    let mut new = fixtures::new_instances(&project, 1);
    (new.image, new.groups) = (image, vec![group]);
    let ids = transaction!(db, |tx| { instances::insert_batch(tx, &new).await }).unwrap();
    let placed = transaction!(db, |tx| {
        let moved = instances::place(tx, &ids, &host_name()).await?;
        assert!(compute_nodes::claim(tx, &host_name(), fixtures::DEMAND).await?);
        fixed_ips::take(tx, network, &moved).await?;
        Ok(moved)
    });
    placed.unwrap()[0]
}

async fn register(db: &Db, folder: &Path, project: &ProjectId) -> ImageId {
    let new = NewImage {
        kind: ImageKind::Machine,
        owner: project.clone(),
        name: "greeting".to_owned(),
        description: String::new(),
        location: "greeting".to_owned(),
        is_public: true,
        architecture: "x86_64".to_owned(),
        format: DiskFormat::Raw,
        kernel: None,
        ramdisk: None,
    };
    let mut conn = db.write().await.unwrap();
    let id = images::register(&mut conn, &new).await.unwrap();
    let stored = ImageStore::new(folder.join("images")).put(id, DiskFormat::Raw, &mut &*greeting_disk()).unwrap();
    let (size_bytes, virtual_size_bytes) = (stored.size_bytes, stored.virtual_size_bytes);
    images::available(&mut conn, id, Stored { sha256: &stored.sha256, size_bytes, virtual_size_bytes }).await.unwrap();
    id
}

/// One sector that writes [`SAYS`] to COM1 and halts, on 1 MiB.
fn greeting_disk() -> Vec<u8> {
    // xor ax,ax; mov ds,ax; mov si,0x7c20; mov dx,0x3f8; again: lodsb; test al,al; jz end; out dx,al; jmp again;
    // end: sti; hlt; jmp end
    let code = [
        0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x20, 0x7c, 0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8,
        0xfb, 0xf4, 0xeb, 0xfc,
    ];
    let mut disk = vec![0; 1 << 20];
    disk[..code.len()].copy_from_slice(&code);
    disk[0x20..0x20 + SAYS.len()].copy_from_slice(SAYS);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

async fn ask(db: &Db, id: InstanceId, event: Event) {
    let asked = transaction!(db, |tx| { instances::request(tx, None, id, event, None).await });
    asked.unwrap();
}

async fn until_state(db: &Db, id: InstanceId, wanted: &str) {
    let reached = async || {
        let row = instances::get(&mut db.read().await.unwrap(), id).await.unwrap();
        assert!(row.state.vm.as_str() != "error", "{:?}", row.reason);
        row.state.vm.as_str() == wanted && row.state.task.is_none()
    };
    until(wanted, reached).await;
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
