//! Router advertisements: a dnsmasq that does nothing else. It serves no names and no addresses, so it listens on nothing.

use std::path::Path;

use nova_types::Prefix64;

use super::files::advertiser_path;

/// How often the router says that it is there, in seconds. Guests that ask hear it at once.
const EVERY: u32 = 10;
/// How long guests believe it, in seconds. The address on the link is the same on whichever of our hosts is the router.
const FOR: u32 = 1800;

/// The arguments of the process for a bridge; `folder` is as a process has it among its own.
pub(super) fn arguments(folder: &Path, bridge: &str, prefix: Prefix64) -> Vec<String> {
    let range = prefix.range();
    vec![
        "--conf-file=".to_owned(),
        "--port=0".to_owned(),
        "--bind-interfaces".to_owned(),
        format!("--interface={bridge}"),
        "--except-interface=lo".to_owned(),
        format!("--pid-file={}", advertiser_path(folder, bridge).display()),
        "--enable-ra".to_owned(),
        format!("--dhcp-range={},ra-only,{}", range.network(), range.prefix_len()),
        format!("--ra-param={bridge},{EVERY},{FOR}"),
        "--dhcp-leasefile=/dev/null".to_owned(),
    ]
}
