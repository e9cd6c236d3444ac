//! The guest's address of IPv6: the kernel makes it of what a router says. It is said on the console once nobody else has it.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::console::Console;

const ADDRESSES: &str = "/proc/net/if_inet6";
const DEVICE: &str = "eth0";
const GLOBAL: &str = "00";
/// It is still asked whether somebody has it.
const TENTATIVE: u32 = 0x40;
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits for an address, for as long as it takes: there may be no router.
pub(crate) async fn watch(console: Arc<Console>) {
    loop {
        if let Some(address) = std::fs::read_to_string(ADDRESSES).ok().as_deref().and_then(settled) {
            return console.say(&format!("ipv6={address}"));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Finds the address in the kernel's table: address, index, length of the prefix, scope, flags, device.
fn settled(table: &str) -> Option<Ipv6Addr> {
    table.lines().find_map(|line| {
        let [address, _, _, GLOBAL, flags, DEVICE] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let tentative = u32::from_str_radix(flags, 16).ok()? & TENTATIVE != 0;
        let address = u128::from_str_radix(address, 16).ok().map(Ipv6Addr::from);
        address.filter(|_| !tentative)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_once_it_is_known_that_nobody_else_has_it() {
        let table = |flags: &str| {
            format!(
                "00000000000000000000000000000001 01 80 10 80       lo\n\
                 fe8000000000000000163efffe000003 02 40 20 80     eth0\n\
                 fd0000000000000000163efffe000003 02 40 00 {flags}     eth0\n"
            )
        };
        assert_eq!(settled(&table("40")), None);
        assert_eq!(settled(&table("00")), Some("fd00::16:3eff:fe00:3".parse().unwrap()));
        assert_eq!(settled(""), None);
    }
}
