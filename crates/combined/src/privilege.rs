//! What this process may do to the machine.

use std::fs;

/// CAP_NET_ADMIN's bit.
const NET_ADMIN: u32 = 12;

/// Whether this process may make bridges and change the firewall.
pub(crate) fn may_change_network() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| has_net_admin(&status))
}

fn has_net_admin(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> NET_ADMIN & 1 == 1)
}

#[cfg(test)]
mod tests {
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
}
