//! Whether this process may change this machine's network, and the programs for it are there.

use std::fs;

use nova_run::{Command, RunError, Runner};
use nova_types::network::ManagerKind;

/// CAP_NET_ADMIN's bit.
const NET_ADMIN: u32 = 12;

/// Why this machine cannot have real guests on its network.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Not root.
    #[error(
        "bridges and firewalls need root (or CAP_NET_ADMIN); without it there is --hypervisor=simulated, and \
         --fake_network for nova-network"
    )]
    Privilege,
    /// A program that is not there, or does not run.
    #[error("{package} is needed for real guests (apt-get install {package})")]
    Program {
        /// The Debian package that has it.
        package: &'static str,
        /// What is wrong.
        #[source]
        source: RunError,
    },
}

/// Whether this process may make bridges and change the firewall.
pub fn may_change_network() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| has_net_admin(&status))
}

fn has_net_admin(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> NET_ADMIN & 1 == 1)
}

/// Whether this process may, and this machine can, connect real guests; as the network's host under `manager`, or where
/// that is none as the host of guests alone.
///
/// # Errors
/// [`MachineError`] says what is missing.
pub async fn check_machine(runner: &dyn Runner, manager: Option<ManagerKind>) -> Result<(), MachineError> {
    if !may_change_network() {
        return Err(MachineError::Privilege);
    }
    check_programs(runner, manager).await
}

/// Says at the start what is not installed, instead of at the first instance.
async fn check_programs(runner: &dyn Runner, manager: Option<ManagerKind>) -> Result<(), MachineError> {
    let check = async |program: &'static str, package: &'static str| {
        match runner.run(Command::new(program).arg("--version")).await {
            Err(source @ RunError::NotInstalled { .. }) => Err(MachineError::Program { package, source }),
            // One that is there and odd is found out, and told, where it is used.
            Ok(_) | Err(_) => Ok(()),
        }
    };
    let dnsmasq = async {
        match manager {
            None | Some(ManagerKind::Flat) => Ok(()),
            Some(ManagerKind::FlatDhcp | ManagerKind::Vlan | ManagerKind::Vxlan) => {
                check("dnsmasq", "dnsmasq-base").await
            }
        }
    };
    tokio::try_join!(check("nft", "nftables"), dnsmasq).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use expect_test::expect;
    use nova_run::fake::Script;

    use super::*;

    #[test]
    fn the_capability_is_read_from_the_kernels_list() {
        for (status, may) in [
            ("Name:\tx\nCapPrm:\t0\nCapEff:\t000001ffffffffff\n", true),
            ("CapEff:\t0000000000001000\n", true),
            ("CapEff:\t0000000000000fff\n", false),
            ("CapEff:\t0000000000000000\n", false),
            ("", false),
        ] {
            assert_eq!(has_net_admin(status), may, "{status}");
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_named_with_its_package() {
        let told = async |script: &Script, manager| match check_programs(script, manager).await {
            Ok(()) => "fine".to_owned(),
            Err(error) => format!("{error}: {}", error.source().unwrap()),
        };
        let both = Script::new().prints("nft", "v1").fails("dnsmasq", 1, "odd");
        assert_eq!(told(&both, Some(ManagerKind::FlatDhcp)).await, "fine");
        let nft = Script::new().prints("nft", "v1");
        assert_eq!(told(&nft, Some(ManagerKind::Flat)).await, "fine");
        assert_eq!(told(&nft, None).await, "fine");
        expect!["dnsmasq-base is needed for real guests (apt-get install dnsmasq-base): dnsmasq is not installed (looked in PATH)"]
            .assert_eq(&told(&nft, Some(ManagerKind::FlatDhcp)).await);
        expect!["nftables is needed for real guests (apt-get install nftables): nft is not installed (looked in PATH)"]
            .assert_eq(&told(&Script::new(), None).await);
    }
}
