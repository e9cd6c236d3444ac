//! `nova-dhcpbridge`: tells nova-network of DHCP leases. Called by dnsmasq.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use nova_config::{Config, DhcpbridgeConfig};
use nova_network::dhcpbridge::act;
use nova_service::chain;

fn main() -> ExitCode {
    let (stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
    // nova-network says where its folder is; a hand that calls this says it by a flag file.
    let told = std::env::var_os("NOVA_NETWORKS_PATH").map(PathBuf::from);
    let interface = std::env::var_os("DNSMASQ_INTERFACE").unwrap_or_else(|| "br0".into());
    let done = match told {
        Some(folder) => {
            let arguments: Vec<String> = std::env::args().skip(1).collect();
            act(&arguments, &folder, &interface.to_string_lossy(), &mut stdout.lock())
        }
        None => {
            let loaded = nova_config::load_or_exit::<DhcpbridgeConfig>();
            let folder = loaded.config.dhcpbridge.networks_path;
            act(&loaded.rest, &folder, &interface.to_string_lossy(), &mut stdout.lock())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr, "{}: {}", DhcpbridgeConfig::BINARY, chain(&error));
            ExitCode::FAILURE
        }
    }
}
