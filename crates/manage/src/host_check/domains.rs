//! Guests of this host: those that libvirt knows, those that run whatever libvirt says, and those that are namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nova_config::ComputeFlags;
use nova_hypervisor::{Accel, CloudId, Hypervisor, Libvirt, LibvirtOptions};
use nova_run::Runner;
use nova_types::InstanceId;

const HELPER: &str = "nova-libvirt";
const HELPER_FOLDER: &str = "/usr/lib/nova";
const DEFAULT_URI: &str = "qemu:///system";
/// Where nova-compute keeps the mark of its guests. Without it there never was one.
const CLOUD_ID: &str = ".cloud-id";
/// Where `ip netns` keeps the names of namespaces.
const NAMESPACES: &str = "/run/netns";
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A moment after its start, the helper may not be ready.
const TRIES: usize = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(300);

/// Asks libvirt for our guests; `None` where nothing is installed to ask it with.
pub(super) async fn defined(
    flags: &ComputeFlags,
    runner: &Arc<dyn Runner>,
) -> anyhow::Result<Option<BTreeSet<InstanceId>>> {
    let mark = std::fs::read_to_string(flags.instances_path.join(CLOUD_ID));
    let (Ok(mark), Some(helper)) = (mark, helper(flags)) else { return Ok(None) };
    let options = LibvirtOptions {
        helper,
        uri: flags.libvirt_uri.clone().unwrap_or_else(|| DEFAULT_URI.to_owned()),
        accel: Accel::Emulation,
        cloud: CloudId::new(mark.trim()),
        instances_path: flags.instances_path.clone(),
    };
    let libvirt = Libvirt::new(Arc::clone(runner), options);
    let ask = async {
        for _ in 1..TRIES {
            if let Ok(guests) = libvirt.list().await {
                return Ok(guests);
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        libvirt.list().await
    };
    let guests = tokio::time::timeout(ANSWER_WITHIN, ask).await.context("libvirt does not answer")??;
    Ok(Some(guests.into_iter().map(|guest| guest.id).collect()))
}

fn helper(flags: &ComputeFlags) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(|folder| folder.join(HELPER)));
    let usual = beside.into_iter().chain([Path::new(HELPER_FOLDER).join(HELPER)]);
    flags.libvirt_helper.clone().into_iter().chain(usual).find(|path| path.is_file())
}

/// Guests whose qemu runs here with disks of ours.
pub(super) fn processes(runner: &dyn Runner, instances_path: &Path) -> BTreeSet<InstanceId> {
    let ours = instances_path.to_string_lossy().into_owned() + "/";
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| guest(&runner.look(pid)?.argv, &ours)).collect()
}

/// libvirt starts qemu with `-name guest=instance-0000000a,…`.
fn guest(argv: &[String], ours: &str) -> Option<InstanceId> {
    let name = argv.iter().find_map(|a| a.strip_prefix("guest=instance-")).and_then(|a| a.get(..8))?;
    let id = format!("i-{name}").parse().ok()?;
    argv.iter().any(|a| a.contains(ours)).then_some(id)
}

/// Network namespaces of guests of ours, by instance, with their names.
pub(super) fn namespaces(instances_path: &Path) -> BTreeMap<InstanceId, String> {
    let Ok(mark) = std::fs::read_to_string(instances_path.join(CLOUD_ID)) else { return BTreeMap::new() };
    let names = std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let cloud = CloudId::new(mark.trim());
    names.filter_map(|name| Some((whose(cloud, &name)?, name))).collect()
}

/// `nova-` and the guest's uuid, which ends with the instance's number.
fn whose(cloud: CloudId, namespace: &str) -> Option<InstanceId> {
    let number = namespace.get(namespace.len().checked_sub(8)?..)?;
    let id = format!("i-{number}").parse().ok()?;
    (namespace == format!("nova-{}", cloud.domain_uuid(id))).then_some(id)
}

#[cfg(test)]
mod tests {
    use nova_hypervisor::CloudId;
    use nova_types::InstanceId;

    use super::{guest, whose};

    #[test]
    fn a_namespace_is_ours_by_the_mark_and_the_instance_in_its_name() {
        let (cloud, id) = (CloudId::new("a"), InstanceId::new(10));
        let name = format!("nova-{}", cloud.domain_uuid(id));
        assert_eq!(whose(cloud, &name), Some(id));
        assert_eq!(whose(CloudId::new("b"), &name), None, "another cloud's guest");
        for name in ["", "nova-", "switch", "nova-0000000a", "nova-ünïcödé-äöü"] {
            assert_eq!(whose(cloud, name), None, "{name}");
        }
    }

    #[test]
    fn a_guest_is_ours_by_its_name_and_its_disk() {
        let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let line = "qemu -name guest=instance-0000000a,debug=on -blockdev {\"filename\":\"/i/instance-0000000a/disk\"}";
        assert_eq!(guest(&argv(line), "/i/"), Some(InstanceId::new(10)));
        assert_eq!(guest(&argv(line), "/other/"), None, "another cloud's guest");
        assert_eq!(guest(&argv("qemu -name guest=web /i/x"), "/i/"), None);
    }
}
