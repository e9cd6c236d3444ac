//! The files that dnsmasq reads. Each is whole or not there: written aside, then renamed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nova_types::network::DhcpHost;

use super::{DhcpChange, DhcpError, DhcpNetwork};

const PREFIX: &str = "nova-";

/// Returns where the leases of a bridge's network are kept for `nova-dhcpbridge init`.
#[must_use]
pub fn leases_path(folder: &Path, bridge: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{bridge}.leases"))
}

/// Where the server of a bridge keeps its process id; each of its processes has the path among its arguments.
#[must_use]
pub fn pid_path(folder: &Path, bridge: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{bridge}.pid"))
}

/// The same of the process that advertises IPv6.
pub(super) fn advertiser_path(folder: &Path, bridge: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{bridge}.ra"))
}

/// The folder with a file for each guest that the server of a bridge knows.
#[must_use]
pub fn hosts_path(folder: &Path, bridge: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{bridge}.hosts"))
}

/// What changed among the hosts' files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostsChange {
    /// How many files were written or removed.
    pub(super) files: usize,
    /// Whether dnsmasq must be told: it notices new files, but neither changed nor removed ones.
    pub(super) tell: bool,
}

/// The hosts' files by name, as they were last written.
pub(super) type Written = BTreeMap<String, String>;

/// Writes one file per host and removes all others. Files that `written` knows are not read again.
pub(super) fn write_hosts(
    folder: &Path,
    network: &DhcpNetwork,
    hosts: &[DhcpHost],
    written: &mut Written,
) -> Result<HostsChange, DhcpError> {
    let path = hosts_path(folder, &network.bridge);
    make_folder(&path)?;
    let wanted: Written = hosts.iter().map(|host| (host.instance.to_string(), host_line(network, host))).collect();
    let found = names(&path)?;
    let mut change = HostsChange::default();
    for name in found.iter().filter(|name| !wanted.contains_key(*name)) {
        remove_file(&path.join(name))?;
        change.files += 1;
        // What we wrote aside and did not rename was never read.
        change.tell |= !name.starts_with('.');
    }
    for (name, line) in &wanted {
        let file = path.join(name);
        if found.contains(name) {
            if written.get(name) == Some(line) || fs::read_to_string(&file).is_ok_and(|text| text == *line) {
                continue;
            }
            change.tell = true;
        }
        replace(&file, line)?;
        change.files += 1;
    }
    *written = wanted;
    Ok(change)
}

/// Removes the files of hosts that are gone, then writes those of hosts that are new or different. Looks at no other file.
///
/// Of one that is gone dnsmasq need not hear soon, as nobody asks for it, but must before another has its address, of which
/// it would hear nothing: `stale` are the addresses of those that it still knows.
pub(super) fn change_hosts(
    folder: &Path,
    network: &DhcpNetwork,
    change: &DhcpChange,
    written: &mut Written,
    stale: &mut BTreeSet<Ipv4Addr>,
) -> Result<HostsChange, DhcpError> {
    let path = hosts_path(folder, &network.bridge);
    let mut done = HostsChange::default();
    for gone in &change.gone {
        let name = gone.to_string();
        if let Some(line) = written.remove(&name) {
            remove_file(&path.join(name))?;
            stale.extend(address(&line));
            done.files += 1;
        }
    }
    for host in &change.set {
        let (name, line) = (host.instance.to_string(), host_line(network, host));
        let was = written.get(&name);
        if was == Some(&line) {
            continue;
        }
        let tell = was.is_some() || stale.contains(&host.address);
        done = HostsChange { files: done.files + 1, tell: done.tell || tell };
        replace(&path.join(&name), &line)?;
        written.insert(name, line);
    }
    Ok(done)
}

/// `<mac>,<name>,<address>`; the name is the instance's id where the stored one is not plain.
fn host_line(network: &DhcpNetwork, host: &DhcpHost) -> String {
    format!("{},{}.{},{}\n", host.mac, hostname(host), network.domain, host.address)
}

/// The address that a host's line ends with.
fn address(line: &str) -> Option<Ipv4Addr> {
    line.trim_end().rsplit(',').next()?.parse().ok()
}

pub(super) fn hostname(host: &DhcpHost) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let good = (1..=63).contains(&host.hostname.len()) && host.hostname.chars().all(plain);
    if good && !host.hostname.starts_with('-') { host.hostname.clone() } else { host.instance.to_string() }
}

/// Removes every file of a bridge's server.
pub(super) fn remove_all(folder: &Path, bridge: &str) -> Result<(), DhcpError> {
    let hosts = hosts_path(folder, bridge);
    match fs::remove_dir_all(&hosts) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file("removing", &hosts)(error)),
        _ => {}
    }
    remove_file(&leases_path(folder, bridge))?;
    remove_file(&advertiser_path(folder, bridge))?;
    remove_file(&pid_path(folder, bridge))
}

/// Lists the bridges that files in the folder are named after.
pub(super) fn bridges(folder: &Path) -> Result<Vec<String>, DhcpError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let bridge = |name: String| {
        let rest = name.strip_prefix(PREFIX)?;
        let (bridge, kind) = rest.rsplit_once('.')?;
        ["pid", "hosts", "leases", "ra"].contains(&kind).then(|| bridge.to_owned())
    };
    let bridges: BTreeSet<String> = names(folder)?.into_iter().filter_map(bridge).collect();
    Ok(bridges.into_iter().collect())
}

/// Makes a folder that dnsmasq can read after it has become `nobody`.
pub(super) fn make_folder(path: &Path) -> Result<(), DhcpError> {
    fs::create_dir_all(path).map_err(file("making", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(file("opening up", path))
}

fn names(path: &Path) -> Result<BTreeSet<String>, DhcpError> {
    let entries = fs::read_dir(path).map_err(file("listing", path))?;
    entries.map(|entry| Ok(entry.map_err(file("listing", path))?.file_name().to_string_lossy().into_owned())).collect()
}

/// Writes beside the file and renames. What the name starts with keeps dnsmasq from reading the half of it.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), DhcpError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.new"));
    let write = || {
        let mut file = fs::File::create(&aside)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        fs::rename(&aside, path)
    };
    write().map_err(file("writing", path))
}

pub(super) fn remove_file(path: &Path) -> Result<(), DhcpError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file("removing", path)(error)),
        _ => Ok(()),
    }
}

pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DhcpError + use<> {
    let path = path.to_owned();
    move |source| DhcpError::File { doing, path, source }
}

#[cfg(test)]
mod tests;
