//! A guest in libvirt's XML. Structs, serialised; nothing is pasted into text.

use std::path::Path;

use nova_types::InstanceId;
use nova_types::instance::Instance;
use serde::Serialize;

use crate::{Accel, CloudId, GuestSpec, HypervisorError};

const NAMESPACE: &str = "urn:nova:instance:1";
/// Bytes per period of a second that a guest may draw from the host's random numbers.
const RNG_BYTES: u32 = 64 << 10;

/// Describes a guest to libvirt.
///
/// The machine is `pc`: on its plain PCI bus virtio devices also speak their first version, so that guests of 2010
/// find their disk; behind the PCIe ports of `q35` they would not.
///
/// # Errors
/// [`HypervisorError::Spec`] when a path or name holds control characters or is not UTF-8: no XML can carry them.
pub(crate) fn xml(spec: &GuestSpec, accel: Accel, cloud: CloudId, console: &Path) -> Result<String, HypervisorError> {
    let text = Text { id: spec.id };
    let uuid = cloud.domain_uuid(spec.id);
    let domain = Domain {
        kind: if accel == Accel::Kvm { "kvm" } else { "qemu" },
        name: Instance::domain_name(spec.id),
        uuid: uuid.clone(),
        metadata: Metadata { instance: Mark { namespace: NAMESPACE, id: spec.id.to_string() } },
        memory: Memory { unit: "MiB", mib: spec.memory_mb },
        vcpu: spec.vcpus.max(1),
        sysinfo: sysinfo(uuid),
        os: os(spec, &text)?,
        features: Features { acpi: Empty {}, apic: Empty {} },
        cpu: Cpu { mode: if accel == Accel::Kvm { "host-model" } else { "maximum" } },
        clock: clock(accel),
        on_poweroff: "destroy",
        on_reboot: "restart",
        on_crash: "destroy",
        devices: devices(spec, console, &text)?,
    };
    quick_xml::se::to_string(&domain).map_err(|_| HypervisorError::Spec { id: spec.id, field: "the domain" })
}

/// Lets only text through that XML can carry.
struct Text {
    id: InstanceId,
}

impl Text {
    fn path(&self, path: &Path, field: &'static str) -> Result<String, HypervisorError> {
        match path.to_str() {
            Some(path) => self.plain(path, field),
            None => Err(HypervisorError::Spec { id: self.id, field }),
        }
    }

    fn plain(&self, text: &str, field: &'static str) -> Result<String, HypervisorError> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(HypervisorError::Spec { id: self.id, field });
        }
        Ok(text.to_owned())
    }
}

/// What the guest's firmware says of the machine: nothing of the host, and the serial number that cloud-init compares
/// with the uuid.
fn sysinfo(uuid: String) -> SysInfo {
    let entry = |name, value| Entry { name, value };
    SysInfo {
        kind: "smbios",
        system: System {
            entry: vec![
                entry("manufacturer", "Nova".to_owned()),
                entry("product", "Nova instance".to_owned()),
                entry("serial", uuid.clone()),
                entry("uuid", uuid),
            ],
        },
    }
}

fn os(spec: &GuestSpec, text: &Text) -> Result<Os, HypervisorError> {
    let mut os = Os {
        kind: OsType { arch: "x86_64", machine: "pc", value: "hvm" },
        kernel: None,
        initrd: None,
        cmdline: None,
        boot: None,
        smbios: Mode { mode: "sysinfo" },
    };
    let Some(boot) = &spec.boot else {
        os.boot = Some(Boot { dev: "hd" });
        return Ok(os);
    };
    os.kernel = Some(text.path(&boot.kernel, "the kernel's path")?);
    os.initrd = boot.ramdisk.as_deref().map(|path| text.path(path, "the ramdisk's path")).transpose()?;
    if !boot.cmdline.is_empty() {
        os.cmdline = Some(text.plain(&boot.cmdline, "the kernel's command line")?);
    }
    Ok(os)
}

fn clock(accel: Accel) -> Clock {
    let timer = |name, present, tickpolicy| Timer { name, present, tickpolicy };
    let timer = match accel {
        Accel::Kvm => {
            vec![
                timer("rtc", None, Some("catchup")),
                timer("pit", None, Some("delay")),
                timer("hpet", Some("no"), None),
            ]
        }
        Accel::Emulation => Vec::new(),
    };
    Clock { offset: "utc", timer }
}

fn devices(spec: &GuestSpec, console: &Path, text: &Text) -> Result<Devices, HypervisorError> {
    let mut letters = 'a'..='z';
    let mut disk = |path: &Path, format: &'static str, readonly: bool| {
        let letter = letters.next().ok_or(HypervisorError::Spec { id: spec.id, field: "the number of disks" })?;
        Ok::<_, HypervisorError>(Disk {
            kind: "file",
            device: "disk",
            driver: DiskDriver { name: "qemu", kind: format },
            source: File { file: text.path(path, "a disk's path")? },
            target: DiskTarget { dev: format!("vd{letter}"), bus: "virtio" },
            readonly: readonly.then_some(Empty {}),
        })
    };
    let mut disks = Vec::new();
    for each in &spec.disks {
        disks.push(disk(&each.path, each.format.as_str(), false)?);
    }
    if let Some(seed) = &spec.seed {
        disks.push(disk(seed, "raw", true)?);
    }
    Ok(Devices {
        disk: disks,
        controller: Controller { kind: "usb", model: "none" },
        interface: Interface {
            kind: "bridge",
            mac: Address { address: spec.nic.mac.to_string() },
            source: Bridge { bridge: text.plain(&spec.nic.bridge, "the bridge's name")? },
            target: Target { dev: text.plain(&spec.nic.tap, "the tap's name")? },
            model: Model { kind: "virtio" },
        },
        serial: Serial {
            kind: "file",
            // Reboots go on in the same log; virtlogd caps it.
            source: LogFile { path: text.path(console, "the console's path")?, append: "on" },
            target: Port { port: 0 },
        },
        video: Video { model: Model { kind: "none" } },
        memballoon: Balloon { model: "virtio" },
        rng: Rng {
            model: "virtio",
            rate: Rate { bytes: RNG_BYTES, period: 1000 },
            backend: Backend { model: "random", source: "/dev/urandom" },
        },
    })
}

#[derive(Serialize)]
#[serde(rename = "domain")]
struct Domain {
    #[serde(rename = "@type")]
    kind: &'static str,
    name: String,
    uuid: String,
    metadata: Metadata,
    memory: Memory,
    vcpu: u32,
    sysinfo: SysInfo,
    os: Os,
    features: Features,
    cpu: Cpu,
    clock: Clock,
    on_poweroff: &'static str,
    on_reboot: &'static str,
    on_crash: &'static str,
    devices: Devices,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Metadata {
    #[serde(rename = "nova:instance")]
    instance: Mark,
}

#[derive(Serialize)]
struct Mark {
    #[serde(rename = "@xmlns:nova")]
    namespace: &'static str,
    #[serde(rename = "nova:id")]
    id: String,
}

#[derive(Serialize)]
struct Memory {
    #[serde(rename = "@unit")]
    unit: &'static str,
    #[serde(rename = "$text")]
    mib: u32,
}

#[derive(Serialize)]
struct SysInfo {
    #[serde(rename = "@type")]
    kind: &'static str,
    system: System,
}

#[derive(Serialize)]
struct System {
    entry: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "$text")]
    value: String,
}

#[derive(Serialize)]
struct Os {
    #[serde(rename = "type")]
    kind: OsType,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<Boot>,
    smbios: Mode,
}

#[derive(Serialize)]
struct OsType {
    #[serde(rename = "@arch")]
    arch: &'static str,
    #[serde(rename = "@machine")]
    machine: &'static str,
    #[serde(rename = "$text")]
    value: &'static str,
}

#[derive(Serialize)]
struct Boot {
    #[serde(rename = "@dev")]
    dev: &'static str,
}

#[derive(Serialize)]
struct Mode {
    #[serde(rename = "@mode")]
    mode: &'static str,
}

#[derive(Serialize)]
struct Features {
    acpi: Empty,
    apic: Empty,
}

#[derive(Serialize)]
struct Cpu {
    #[serde(rename = "@mode")]
    mode: &'static str,
}

#[derive(Serialize)]
struct Clock {
    #[serde(rename = "@offset")]
    offset: &'static str,
    timer: Vec<Timer>,
}

#[derive(Serialize)]
struct Timer {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@present", skip_serializing_if = "Option::is_none")]
    present: Option<&'static str>,
    #[serde(rename = "@tickpolicy", skip_serializing_if = "Option::is_none")]
    tickpolicy: Option<&'static str>,
}

#[derive(Serialize)]
struct Devices {
    disk: Vec<Disk>,
    controller: Controller,
    interface: Interface,
    serial: Serial,
    video: Video,
    memballoon: Balloon,
    rng: Rng,
}

#[derive(Serialize)]
struct Disk {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@device")]
    device: &'static str,
    driver: DiskDriver,
    source: File,
    target: DiskTarget,
    #[serde(skip_serializing_if = "Option::is_none")]
    readonly: Option<Empty>,
}

#[derive(Serialize)]
struct DiskDriver {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct File {
    #[serde(rename = "@file")]
    file: String,
}

#[derive(Serialize)]
struct DiskTarget {
    #[serde(rename = "@dev")]
    dev: String,
    #[serde(rename = "@bus")]
    bus: &'static str,
}

#[derive(Serialize)]
struct Controller {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@model")]
    model: &'static str,
}

#[derive(Serialize)]
struct Interface {
    #[serde(rename = "@type")]
    kind: &'static str,
    mac: Address,
    source: Bridge,
    target: Target,
    model: Model,
}

#[derive(Serialize)]
struct Address {
    #[serde(rename = "@address")]
    address: String,
}

#[derive(Serialize)]
struct Bridge {
    #[serde(rename = "@bridge")]
    bridge: String,
}

#[derive(Serialize)]
struct Target {
    #[serde(rename = "@dev")]
    dev: String,
}

#[derive(Serialize)]
struct Model {
    #[serde(rename = "@type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Serial {
    #[serde(rename = "@type")]
    kind: &'static str,
    source: LogFile,
    target: Port,
}

#[derive(Serialize)]
struct LogFile {
    #[serde(rename = "@path")]
    path: String,
    #[serde(rename = "@append")]
    append: &'static str,
}

#[derive(Serialize)]
struct Port {
    #[serde(rename = "@port")]
    port: u32,
}

#[derive(Serialize)]
struct Video {
    model: Model,
}

#[derive(Serialize)]
struct Balloon {
    #[serde(rename = "@model")]
    model: &'static str,
}

#[derive(Serialize)]
struct Rng {
    #[serde(rename = "@model")]
    model: &'static str,
    rate: Rate,
    backend: Backend,
}

#[derive(Serialize)]
struct Rate {
    #[serde(rename = "@bytes")]
    bytes: u32,
    #[serde(rename = "@period")]
    period: u32,
}

#[derive(Serialize)]
struct Backend {
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "$text")]
    source: &'static str,
}

#[cfg(test)]
mod tests;
