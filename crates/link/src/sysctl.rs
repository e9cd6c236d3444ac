//! Kernel settings under `/proc/sys/net`: read first, written only when they differ.

use std::io;
use std::path::{Path, PathBuf};

use nova_run::{Command, Runner};
use tracing::info;

/// A kernel setting that is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// The setting could not be read or written.
    #[error("setting {name} to {value}")]
    Set {
        /// The setting, as `sysctl` names it.
        name: String,
        /// The value that it must have.
        value: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel took the value and did not keep it.
    #[error("{name} must be {value} and stays {found}")]
    Kept {
        /// The setting, as `sysctl` names it.
        name: String,
        /// The value that it must have.
        value: &'static str,
        /// The value that it has.
        found: String,
    },
}

/// Makes a setting `value`; `name` is the path below `/proc/sys`.
///
/// # Errors
/// [`SettingError`] when it cannot be read or written, or does not stay.
pub(crate) fn set(name: &str, value: &'static str) -> Result<(), SettingError> {
    let path = path(name);
    let failed = |source| SettingError::Set { name: name.replace('/', "."), value, source };
    if read(&path).map_err(failed)? == value {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(failed)?;
    let found = read(&path).map_err(failed)?;
    if found != value {
        return Err(SettingError::Kept { name: name.replace('/', "."), value, found });
    }
    info!(setting = %name, value, "Set {} = {value}.", name.replace('/', "."));
    Ok(())
}

/// Like [`set`] for a setting that an older kernel, or one without IPv6, does not have.
pub(crate) fn set_if_there(name: &str, value: &'static str) -> Result<(), SettingError> {
    if path(name).exists() { set(name, value) } else { Ok(()) }
}

/// Makes packets between two guests of a bridge pass the groups' rules. Without it they would not: it is an error.
pub(crate) async fn bridged_packets_are_filtered(runner: &dyn Runner, ipv6: bool) -> Result<(), SettingError> {
    const NAME6: &str = "net/bridge/bridge-nf-call-ip6tables";
    const NAME: &str = "net/bridge/bridge-nf-call-iptables";
    if !path(NAME).exists() {
        // The kernel may have it built in or not at all; then setting it says what is missing.
        let loaded = runner.run(Command::new("modprobe").arg("br_netfilter")).await;
        tracing::debug!(ok = loaded.is_ok(), "Asked for the kernel module br_netfilter.");
    }
    set(NAME, "1")?;
    if ipv6 { set(NAME6, "1") } else { Ok(()) }
}

/// Lets this machine forward packets between its interfaces, as the router of its guests must.
///
/// # Errors
/// [`SettingError`] when the kernel refuses.
pub fn forward_packets() -> Result<(), SettingError> {
    set("net/ipv4/ip_forward", "1")
}

/// The same for IPv6. What this machine learned from routers it goes on learning: to the kernel, who forwards is a router
/// itself and hears no other unless told to.
///
/// # Errors
/// [`SettingError`] when the kernel refuses, or has no IPv6.
pub fn forward_ipv6_packets() -> Result<(), SettingError> {
    const FORWARDING: &str = "net/ipv6/conf/all/forwarding";
    const INTERFACES: &str = "net/ipv6/conf";
    let failed = |source| SettingError::Set { name: "net.ipv6.conf".to_owned(), value: "1", source };
    if read(&path(FORWARDING)).is_ok_and(|value| value == "1") {
        return Ok(());
    }
    for entry in std::fs::read_dir(path(INTERFACES)).map_err(failed)?.flatten() {
        let interface = entry.file_name();
        let name = format!("{INTERFACES}/{}/accept_ra", interface.to_string_lossy());
        // These two are no interfaces.
        let hears = interface != "all" && interface != "default" && read(&path(&name)).is_ok_and(|value| value == "1");
        if hears {
            set_if_there(&name, "2")?;
        }
    }
    set(FORWARDING, "1")
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn read(path: &Path) -> io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}
