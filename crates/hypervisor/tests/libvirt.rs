//! The contract on a real libvirtd with real guests, in namespaces of its own.
//!
//! Needs root and the Debian packages libvirt-daemon-system, qemu-system-x86, tini; says so and passes without them.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "this whole file is a test, and says why it was skipped")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nova_hypervisor::contract::{contract, spec};
use nova_hypervisor::{Accel, CloudId, GuestSpec, Hypervisor, Libvirt, LibvirtOptions, Power};
use nova_run::{Child, Command, Host, Runner};
use nova_types::InstanceId;
use nova_types::image::DiskFormat;

const SAYS: &[u8] = b"Hello from the guest.\r\n";

/// A libvirtd of our own; it and its guests end when this is dropped.
struct Private {
    folder: tempfile::TempDir,
    daemon: Child,
}

impl Private {
    async fn start() -> Option<Self> {
        for program in ["libvirtd", "virtlogd", "qemu-system-x86_64", "tini", "unshare", "ip"] {
            if Host.run(Command::new("which").arg(program)).await.is_err() {
                eprintln!("skipped: {program} is not installed");
                return None;
            }
        }
        if Host.run(Command::new("unshare").args(["--mount", "--net", "true"])).await.is_err() {
            eprintln!("skipped: namespaces need root");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/private-libvirtd");
        let command = Command::new(script.display().to_string()).path(folder.path()).unwrap();
        let daemon = Host.spawn(command).await.unwrap();
        Some(Self { folder, daemon })
    }

    fn uri(&self) -> String {
        format!("qemu:///system?socket=/proc/{}/root/run/libvirt/libvirt-sock", self.daemon.process.pid)
    }

    fn driver(&self, cloud: &str) -> Libvirt {
        let options = LibvirtOptions {
            helper: env!("CARGO_BIN_EXE_nova-libvirt").into(),
            uri: self.uri(),
            accel: Accel::Emulation,
            cloud: CloudId::new(cloud),
            instances_path: self.folder.path().to_owned(),
        };
        Libvirt::new(Arc::new(Host), options)
    }

    /// A guest whose disk greets on the serial port, and then sleeps or spins.
    fn guest(&self, number: u32) -> GuestSpec {
        let mut spec = spec(number, self.folder.path());
        spec.disks[0].format = DiskFormat::Raw;
        let disk: PathBuf = spec.disks[0].path.clone();
        if !disk.exists() {
            std::fs::create_dir_all(disk.parent().unwrap()).unwrap();
            std::fs::write(&disk, greeting_disk()).unwrap();
        }
        spec
    }

    fn order(&self, what: &str) {
        std::fs::write(self.folder.path().join(what), "").unwrap();
    }
}

/// One sector that writes [`SAYS`] to COM1 and halts, and nothing else on 1 MiB.
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

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn libvirt_keeps_the_contract_and_outlives_its_own_death() {
    let Some(private) = Private::start().await else { return };
    let libvirt = private.driver("a");
    until("libvirtd answers", async || libvirt.list().await.is_ok()).await;
    contract(&libvirt, |number| private.guest(number)).await;

    let begun = Instant::now();
    let guest = private.guest(3);
    libvirt.ensure_running(&guest).await.unwrap();
    eprintln!("booted in {:?}", begun.elapsed());
    let greeted = async || libvirt.console(guest.id, 64 << 10).await.unwrap().starts_with(SAYS);
    until("the guest's greeting is on the console", greeted).await;
    foreign_guests_are_not_ours(&private, &guest).await;
    libvirtd_may_die_and_guests_live(&private, &libvirt, guest.id).await;
    destroying_does_not_wait_for_booting(&private, &libvirt).await;
}

async fn foreign_guests_are_not_ours(private: &Private, guest: &GuestSpec) {
    let stranger = private.driver("b");
    until("libvirtd answers", async || stranger.list().await.is_ok()).await;
    assert_eq!(stranger.list().await.unwrap(), []);
    stranger.destroy(guest.id).await.unwrap();
    let error = stranger.ensure_running(guest).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("already exists with uuid"), "{error}");
}

async fn libvirtd_may_die_and_guests_live(private: &Private, libvirt: &Libvirt, id: InstanceId) {
    private.order("stop");
    private.order("kill");
    until("libvirtd is gone", async || libvirt.list().await.is_err()).await;
    let error = libvirt.destroy(id).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    std::fs::remove_file(private.folder.path().join("stop")).unwrap();
    until("libvirtd answers again", async || libvirt.list().await.is_ok()).await;
    let guests = libvirt.list().await.unwrap();
    assert_eq!((guests.len(), guests[0].id, guests[0].power), (1, id, Power::On));
}

async fn destroying_does_not_wait_for_booting(private: &Private, libvirt: &Libvirt) {
    let specs: Vec<GuestSpec> = (10..22).map(|number| private.guest(number)).collect();
    let booting = async {
        for booted in futures_joined(specs.iter().map(|spec| libvirt.ensure_running(spec))).await {
            booted.unwrap();
        }
        Instant::now()
    };
    let destroying = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        libvirt.destroy(InstanceId::new(3)).await.unwrap();
        Instant::now()
    };
    let (booted, destroyed) = tokio::join!(booting, destroying);
    assert!(destroyed < booted, "the guest was destroyed {:?} after the last one booted", destroyed - booted);
    for destroyed in futures_joined(specs.iter().map(|spec| libvirt.destroy(spec.id))).await {
        destroyed.unwrap();
    }
    // A guest that is ended while it still waits to boot does not come to life afterwards.
    let waiting = futures_joined(specs.iter().map(|spec| libvirt.ensure_running(spec)));
    let _ = tokio::time::timeout(Duration::from_millis(100), waiting).await;
    for destroyed in futures_joined(specs.iter().map(|spec| libvirt.destroy(spec.id))).await {
        destroyed.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(libvirt.list().await.unwrap(), []);
}

/// Runs all of them at once.
async fn futures_joined<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = all.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}
