//! A guest as compute describes it, and as the hypervisor sees it.

use std::path::PathBuf;

use nova_types::image::DiskFormat;
use nova_types::instance::Instance;
use nova_types::{InstanceId, Mac};

/// All that makes one guest. Names of its domain and its console's log follow from the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestSpec {
    /// Whose guest.
    pub id: InstanceId,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Virtual processors.
    pub vcpus: u32,
    /// Its disks, the root disk first: `vda`, `vdb`, ….
    pub disks: Vec<Disk>,
    /// A small read-only disk with its configuration, attached after the others.
    pub seed: Option<PathBuf>,
    /// The kernel to boot; without one the root disk boots by itself.
    pub boot: Option<KernelBoot>,
    /// Its network interface.
    pub nic: Nic,
}

/// One disk in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file.
    pub path: PathBuf,
    /// How the file is laid out; from the database, never from a look at the file.
    pub format: DiskFormat,
}

/// A kernel that the hypervisor loads itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelBoot {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial ramdisk that goes with it.
    pub ramdisk: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// The network interface of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its hardware address.
    pub mac: Mac,
    /// The bridge that the tap is put on.
    pub bridge: String,
    /// The name of the tap device on the host; the hypervisor makes and removes it.
    pub tap: String,
}

/// How guests are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// By the processor, through KVM.
    Kvm,
    /// By QEMU's emulation.
    Emulation,
}

/// Whether a guest is powered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Power {
    /// It has a running (or paused) process.
    On,
    /// It is only defined.
    Off,
}

/// A guest that the hypervisor knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guest {
    /// Whose it is.
    pub id: InstanceId,
    /// Whether it is powered.
    pub power: Power,
}

/// A guest was switched on or off, or vanished (which counts as off).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose guest.
    pub id: InstanceId,
    /// Its power now.
    pub power: Power,
}

/// The mark of one cloud: part of the uuid of each domain, so that a host never touches the guests of another cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloudId(u128);

impl CloudId {
    /// Derives the mark from a text that is the same in the whole cloud and different in any other.
    #[must_use]
    pub fn new(text: &str) -> Self {
        // FNV-1a; this has to be stable and spread well, not to be hard to forge.
        let start = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
        let hash = text.bytes().fold(start, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        });
        Self(hash)
    }

    /// Returns the uuid of an instance's domain.
    ///
    /// It begins with `ec2`: by that, cloud-init knows that it will find EC2's metadata. Then come 76 bits of the
    /// cloud's mark (around the digits for version and variant), then the instance's number.
    #[must_use]
    pub fn domain_uuid(self, id: InstanceId) -> String {
        let mark = format!("{:032x}", self.0);
        let (a, b, c, d, e) = (&mark[..5], &mark[5..9], &mark[9..12], &mark[12..15], &mark[15..19]);
        format!("ec2{a}-{b}-8{c}-8{d}-{e}{:08x}", id.number())
    }

    /// Returns the instance whose domain has this name and uuid, if it is one of this cloud.
    #[must_use]
    pub(crate) fn recognise(self, name: &str, uuid: &str) -> Option<InstanceId> {
        let id = InstanceId::new(u32::from_str_radix(name.strip_prefix("instance-")?, 16).ok()?);
        (Instance::domain_name(id) == name && self.domain_uuid(id) == uuid).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_ours_by_name_and_uuid_together() {
        let cloud = CloudId::new("a");
        let (one, two) = (InstanceId::new(1), InstanceId::new(2));
        let uuid = cloud.domain_uuid(one);
        expect_test::expect!["ec2d228c-b696-8f1a-88ca-f78900000001"].assert_eq(&uuid);
        assert_eq!(cloud.recognise("instance-00000001", &uuid), Some(one));
        for (name, uuid) in [
            ("instance-00000002", uuid.clone()),
            ("instance-1", uuid.clone()),
            ("instance-+0000001", uuid.clone()),
            ("web", uuid),
            ("instance-00000001", cloud.domain_uuid(two)),
            ("instance-00000001", CloudId::new("b").domain_uuid(one)),
        ] {
            assert_eq!(cloud.recognise(name, &uuid), None, "{name} {uuid}");
        }
    }
}
