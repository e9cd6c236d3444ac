//! What every hypervisor keeps to. Runs on the simulated one always, on namespaces as root, and on libvirt where there
//! is one.

use std::path::Path;
use std::time::Duration;

use nova_types::image::DiskFormat;
use nova_types::instance::Instance;
use nova_types::{InstanceId, Mac};

use crate::{Disk, Guest, GuestSpec, Hypervisor, Nic, Power};

/// Describes a small guest with one disk, `disk` in its folder, and no kernel.
#[must_use]
pub fn spec(number: u32, instances_path: &Path) -> GuestSpec {
    let id = InstanceId::new(number);
    let [.., b, c] = number.to_be_bytes();
    GuestSpec {
        id,
        memory_mb: 16,
        vcpus: 1,
        disks: vec![Disk {
            path: instances_path.join(Instance::domain_name(id)).join("disk"),
            format: DiskFormat::Qcow2,
        }],
        seed: None,
        boot: None,
        nic: Nic { mac: Mac::of_guest([0, b, c]), bridge: "br100".to_owned(), tap: Instance::tap_name(id) },
    }
}

/// Checks one hypervisor on guests 1 and 2, which `spec` describes and which must not exist yet.
///
/// # Panics
/// Where the contract is broken.
#[expect(clippy::unwrap_used, reason = "this is a test that other crates run, too")]
pub async fn contract(hypervisor: &dyn Hypervisor, spec: impl Fn(u32) -> GuestSpec) {
    let (one, two) = (InstanceId::new(1), InstanceId::new(2));
    let mut events = hypervisor.events();

    // What does not exist can be stopped, destroyed and read.
    hypervisor.stop(one, Duration::ZERO).await.unwrap();
    hypervisor.destroy(one).await.unwrap();
    assert_eq!(hypervisor.console(one, 100).await.unwrap(), b"");
    assert_eq!(power(hypervisor, one).await, None);

    // Booting twice, one after the other and at once, makes one guest.
    hypervisor.ensure_running(&spec(1)).await.unwrap();
    hypervisor.ensure_running(&spec(1)).await.unwrap();
    let two_spec = spec(2);
    let (left, right) = tokio::join!(hypervisor.ensure_running(&two_spec), hypervisor.ensure_running(&two_spec));
    left.and(right).unwrap();
    let mut all = hypervisor.list().await.unwrap();
    all.sort();
    assert_eq!(all, [Guest { id: one, power: Power::On }, Guest { id: two, power: Power::On }]);
    assert!(hypervisor.console(one, 10).await.unwrap().len() <= 10);

    // A stopped guest is kept, and can be started again.
    for _ in 0..2 {
        hypervisor.stop(one, Duration::ZERO).await.unwrap();
        assert_eq!(power(hypervisor, one).await, Some(Power::Off));
    }
    hypervisor.ensure_running(&spec(1)).await.unwrap();
    assert_eq!(power(hypervisor, one).await, Some(Power::On));

    // A restart leaves it running, wherever it began, and may describe it anew.
    let mut larger = spec(1);
    larger.memory_mb *= 2;
    hypervisor.reboot(&larger, Duration::ZERO).await.unwrap();
    hypervisor.stop(two, Duration::ZERO).await.unwrap();
    hypervisor.reboot(&spec(2), Duration::ZERO).await.unwrap();
    assert_eq!(power(hypervisor, one).await, Some(Power::On));
    assert_eq!(power(hypervisor, two).await, Some(Power::On));

    // A destroyed guest is gone, running or not, and the other is not touched.
    for _ in 0..2 {
        hypervisor.destroy(one).await.unwrap();
        assert_eq!(power(hypervisor, one).await, None);
    }
    assert_eq!(power(hypervisor, two).await, Some(Power::On));
    hypervisor.stop(two, Duration::ZERO).await.unwrap();
    hypervisor.destroy(two).await.unwrap();
    assert_eq!(hypervisor.list().await.unwrap(), []);

    // Something of all this was heard.
    let heard = tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap().unwrap();
    assert!(heard.id == one || heard.id == two);
}

#[expect(clippy::unwrap_used, reason = "this is a test that other crates run, too")]
async fn power(hypervisor: &dyn Hypervisor, id: InstanceId) -> Option<Power> {
    hypervisor.list().await.unwrap().into_iter().find(|guest| guest.id == id).map(|guest| guest.power)
}
