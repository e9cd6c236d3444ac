//! Flags that choose one of a few.

use std::str::FromStr;

use nova_types::network::ManagerKind;

/// Another Nova that clients are told of: an item of `--region_list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// What it is called.
    pub name: String,
    /// The host of its API.
    pub host: String,
}

impl FromStr for Region {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        match text.split_once('=').map(|(name, host)| (name.trim(), host.trim())) {
            // A name becomes part of a file's name.
            Some((name, host)) if !name.is_empty() && plain(name) && !host.is_empty() && !host.contains(['/', ' ']) => {
                Ok(Self { name: name.to_owned(), host: host.to_owned() })
            }
            _ => Err(format!("{text:?} is not NAME=HOST")),
        }
    }
}

/// Which virtualization is asked for by the first Nova's `--connection_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionType {
    /// libvirt.
    Libvirt,
    /// The first Nova's `fake`: guests that only seem to run.
    Fake,
}

impl FromStr for ConnectionType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "libvirt" => Ok(Self::Libvirt),
            "fake" => Ok(Self::Fake),
            "xenapi" | "hyperv" | "vmwareapi" => Err(format!("{text} is not supported; expected libvirt or fake")),
            _ => Err("expected libvirt or fake".to_owned()),
        }
    }
}

/// Which hypervisor is used: `--hypervisor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HypervisorChoice {
    /// libvirt where it works, else simulated; which one is said at the start.
    Auto,
    /// libvirt or nothing.
    Libvirt,
    /// Network namespaces in the place of guests: the whole network, and no machine.
    Netns,
    /// Guests that only seem to run, with realistic delays.
    Simulated,
}

impl FromStr for HypervisorChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "libvirt" => Ok(Self::Libvirt),
            "netns" => Ok(Self::Netns),
            "simulated" => Ok(Self::Simulated),
            _ => Err("expected auto, libvirt, netns or simulated".to_owned()),
        }
    }
}

/// How libvirt executes guests: `--libvirt_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LibvirtType {
    /// Through KVM, where that works.
    Kvm,
    /// By emulation.
    Qemu,
}

impl FromStr for LibvirtType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kvm" => Ok(Self::Kvm),
            "qemu" => Ok(Self::Qemu),
            "uml" | "xen" | "lxc" => Err(format!("{text} is not supported; expected kvm or qemu")),
            _ => Err("expected kvm or qemu".to_owned()),
        }
    }
}

/// Whether queues are kept by several brokers at once: `--rabbit_quorum_queues`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuorumQueues {
    /// They are where several brokers are named.
    Auto,
    /// They are.
    Yes,
    /// Each is kept by one broker.
    No,
}

impl FromStr for QuorumQueues {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "yes" => Ok(Self::Yes),
            "no" => Ok(Self::No),
            _ => Err("expected auto, yes or no".to_owned()),
        }
    }
}

/// Reads `nova.network.manager.VlanManager`, also with a blank inside as the guide has it, or only its last word.
pub(crate) fn manager(text: &str) -> Result<ManagerKind, String> {
    let name: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    match name.strip_prefix("nova.network.manager.").unwrap_or(&name) {
        "FlatManager" => Ok(ManagerKind::Flat),
        "FlatDHCPManager" => Ok(ManagerKind::FlatDhcp),
        "VlanManager" => Ok(ManagerKind::Vlan),
        "VxlanManager" => Ok(ManagerKind::Vxlan),
        _ => {
            Err("expected nova.network.manager.FlatManager, .FlatDHCPManager, .VlanManager or .VxlanManager".to_owned())
        }
    }
}

/// How hosts are chosen: `--scheduler_driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedulerDriver {
    /// By chance, among all that have room.
    Chance,
    /// The least used first, or the most used: `--scheduler_placement`.
    Simple,
    /// By chance within the zone that was asked for. The other drivers keep to that zone too.
    Zone,
}

impl FromStr for SchedulerDriver {
    type Err = String;

    /// Reads `nova.scheduler.simple.SimpleScheduler`, or only its last word.
    fn from_str(text: &str) -> Result<Self, String> {
        let name: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (module, class) = name.rsplit_once('.').unwrap_or(("", &name));
        match (module, class) {
            ("" | "nova.scheduler.chance", "ChanceScheduler") => Ok(Self::Chance),
            ("" | "nova.scheduler.simple", "SimpleScheduler") => Ok(Self::Simple),
            ("" | "nova.scheduler.zone", "ZoneScheduler") => Ok(Self::Zone),
            _ => Err("expected nova.scheduler.chance.ChanceScheduler, nova.scheduler.simple.SimpleScheduler or \
                      nova.scheduler.zone.ZoneScheduler"
                .to_owned()),
        }
    }
}

/// Which of the hosts with room the simple scheduler takes: `--scheduler_placement`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The one with the fewest vcpus in use.
    Spread,
    /// The one with the fewest vcpus left, so that others stay empty.
    Fill,
}

impl FromStr for Placement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "spread" => Ok(Self::Spread),
            "fill" => Ok(Self::Fill),
            _ => Err("expected spread or fill".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_known_by_its_last_word() {
        for (text, kind) in [
            ("nova.network.manager.VlanManager", ManagerKind::Vlan),
            ("nova.network.manager. FlatDHCPManager", ManagerKind::FlatDhcp),
            ("FlatManager", ManagerKind::Flat),
            ("nova.network.manager.VxlanManager", ManagerKind::Vxlan),
        ] {
            assert_eq!(manager(text), Ok(kind));
        }
        assert!(manager("nova.network.manager.QuantumManager").is_err());
    }

    #[test]
    fn a_scheduler_is_known_by_its_whole_name_or_its_last_word() {
        for (text, driver) in [
            ("nova.scheduler.chance.ChanceScheduler", SchedulerDriver::Chance),
            ("nova.scheduler.simple.SimpleScheduler", SchedulerDriver::Simple),
            ("ZoneScheduler", SchedulerDriver::Zone),
        ] {
            assert_eq!(text.parse(), Ok(driver));
        }
        for text in ["", "nova.scheduler.chance.SimpleScheduler", "nova.scheduler.filter_scheduler.FilterScheduler"] {
            assert!(text.parse::<SchedulerDriver>().unwrap_err().contains("ChanceScheduler"), "{text}");
        }
    }
}
