//! What defaults depend on: the machine, the user and the environment, looked at once.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

use nova_types::HostName;

const FLAGFILE: &str = "/etc/nova/nova.conf";
/// A public address. Nothing is sent to it: connecting a UDP socket only asks the kernel for a route.
const FAR_AWAY: &str = "8.8.8.8:80";

/// The machine as far as defaults depend on it.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The flag file read when none is named and this one exists.
    pub default_flagfile: Option<PathBuf>,
    /// The environment's `FLAGFILE`, by which dnsmasq tells `nova-dhcpbridge`.
    pub flagfile_variable: Option<PathBuf>,
    /// The user's home, for `~` in paths of flag files.
    pub home: Option<PathBuf>,
    /// Default of `--state_path`.
    pub state_path: PathBuf,
    /// Default of `--host`.
    pub host: String,
    /// Default of `--my_ip`.
    pub my_ip: IpAddr,
}

impl Surroundings {
    /// Looks at this machine and this process's environment.
    pub fn here() -> Self {
        let home = variable("HOME").map(PathBuf::from);
        let data_home = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            default_flagfile: Some(PathBuf::from(FLAGFILE)).filter(|path| path.exists()),
            flagfile_variable: variable("FLAGFILE").map(PathBuf::from),
            state_path: state_path(is_root(), data_home.as_deref(), home.as_deref()),
            home,
            host: host(&fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()),
            my_ip: my_ip(),
        }
    }

    /// A machine without flag file, network or home; what tests start from.
    pub fn bare() -> Self {
        Self {
            default_flagfile: None,
            flagfile_variable: None,
            home: None,
            state_path: PathBuf::from("/var/lib/nova"),
            host: "localhost".to_owned(),
            my_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

/// The EC2 key that a user's `novarc` puts into the environment, for whoever helps that user.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientKeys {
    /// `EC2_ACCESS_KEY`, with the project after a colon.
    pub access: Option<String>,
    /// `EC2_SECRET_KEY`.
    pub secret: Option<String>,
}

impl ClientKeys {
    /// Reads those of the shell that called this program.
    pub fn of_shell() -> Self {
        Self { access: variable("EC2_ACCESS_KEY"), secret: variable("EC2_SECRET_KEY") }
    }
}

impl std::fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientKeys").field("access", &self.access).finish_non_exhaustive()
    }
}

fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[expect(unsafe_code, reason = "std does not tell the user id")]
fn is_root() -> bool {
    // SAFETY: geteuid takes nothing, touches no memory of ours and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn state_path(root: bool, data_home: Option<&Path>, home: Option<&Path>) -> PathBuf {
    match (root, data_home, home) {
        (false, Some(data_home), _) => data_home.join("nova"),
        (false, None, Some(home)) => home.join(".local/share/nova"),
        (true, _, _) | (false, None, None) => PathBuf::from("/var/lib/nova"),
    }
}

/// The machine's name, with what a host may not contain replaced, so that an odd name does not stop a daemon.
fn host(name: &str) -> String {
    let plain: String =
        name.trim().chars().map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' }).collect();
    if plain.parse::<HostName>().is_ok() { plain } else { "localhost".to_owned() }
}

fn my_ip() -> IpAddr {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket.connect(FAR_AWAY)?;
            socket.local_addr()
        })
        .map(|address| address.ip())
        .ok()
        .filter(|address| !address.is_unspecified())
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_folder_is_the_systems_for_root_and_the_users_for_others() {
        let (data, home) = (Some(Path::new("/data")), Some(Path::new("/home/ann")));
        for (root, data, home, expected) in [
            (true, data, home, "/var/lib/nova"),
            (false, data, home, "/data/nova"),
            (false, None, home, "/home/ann/.local/share/nova"),
            (false, None, None, "/var/lib/nova"),
        ] {
            assert_eq!(state_path(root, data, home), Path::new(expected));
        }
    }

    #[test]
    fn an_odd_host_name_becomes_a_plain_one() {
        for (name, expected) in [("node1.lab\n", "node1.lab"), ("it's me", "it-s-me"), ("", "localhost")] {
            assert_eq!(host(name), expected);
        }
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let here = Surroundings::here();
        assert!(!here.my_ip.is_unspecified());
        assert!(here.state_path.is_absolute());
    }
}
