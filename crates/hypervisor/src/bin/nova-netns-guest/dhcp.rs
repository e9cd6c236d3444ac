//! The guest's address: busybox's udhcpc asks for it and keeps it, and calls this program when it changes.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use nova_run::{Command, Host, RunError, Runner};

use crate::console::Console;

const DEVICE: &str = "eth0";
/// Tells the program that udhcpc calls where the console is.
const CONSOLE: &str = "NOVA_GUEST_CONSOLE";
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Runs udhcpc, again and again if it ends. Returns why that is impossible.
pub(crate) async fn keep_lease(console: &Console) -> String {
    let Some(this) = std::env::current_exe().ok().and_then(|path| path.to_str().map(str::to_owned)) else {
        return "it does not know its own program".to_owned();
    };
    loop {
        // As the guest image has it: five questions a second apart, then two seconds of silence, and so on.
        let udhcpc = Command::new("busybox")
            .args(["udhcpc", "-f", "-i", DEVICE, "-O", "mtu", "-t", "5", "-T", "1", "-A", "2", "-s", &this])
            .env(CONSOLE, console.path());
        match Host.spawn(udhcpc).await {
            Ok(mut child) => {
                tokio::select! {
                    end = child.leash.ended() => console.say(&format!("udhcpc ended: {end}")),
                    // It is not to wait for somebody who reads.
                    _ = async { tokio::io::copy(&mut child.stdout, &mut tokio::io::sink()).await.ok(); std::future::pending::<()>().await } => {}
                }
            }
            Err(error) => return error.to_string(),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// What udhcpc found out, in its variables.
#[derive(Debug, PartialEq, Eq)]
struct Lease {
    address: Ipv4Addr,
    prefix: u8,
    gateway: Option<Ipv4Addr>,
    mtu: Option<u16>,
}

impl Lease {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let gateways = variable("router").unwrap_or_default();
        Some(Self {
            address: parse(variable("ip"))?,
            prefix: parse(variable("mask")).filter(|prefix| *prefix <= 32)?,
            gateway: parse(gateways.split(' ').next().map(str::to_owned)),
            mtu: parse(variable("mtu")),
        })
    }
}

fn parse<T: FromStr>(text: Option<String>) -> Option<T> {
    text?.parse().ok()
}

/// Does what udhcpc asks for.
pub(crate) async fn changed(event: &str) -> ExitCode {
    let variable = |name: &str| std::env::var_os(name).and_then(|value| value.into_string().ok());
    let console = Console::new(variable(CONSOLE).unwrap_or_default().into());
    let done = match event {
        // What it has of IPv6 is no business of DHCP.
        "deconfig" => ip(&["-4", "addr", "flush", "dev", DEVICE]).await.map(drop),
        "bound" | "renew" => match Lease::read(variable) {
            Some(lease) => {
                console.say(&format!("lease {event} {}/{}", lease.address, lease.prefix));
                take(&lease).await
            }
            None => {
                console.say("the lease makes no sense");
                Ok(())
            }
        },
        _ => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console.say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

async fn take(lease: &Lease) -> Result<(), RunError> {
    if let Some(mtu) = lease.mtu {
        ip(&["link", "set", "dev", DEVICE, "mtu", &mtu.to_string()]).await?;
    }
    let address = format!("{}/{}", lease.address, lease.prefix);
    // A lease that is only renewed must not cut connections.
    if !ip(&["-4", "addr", "show", "dev", DEVICE]).await?.contains(&format!("inet {address} ")) {
        ip(&["-4", "addr", "flush", "dev", DEVICE]).await?;
        ip(&["addr", "add", &address, "dev", DEVICE]).await?;
    }
    if let Some(gateway) = lease.gateway {
        ip(&["route", "replace", "default", "via", &gateway.to_string(), "dev", DEVICE]).await?;
    }
    Ok(())
}

async fn ip(args: &[&str]) -> Result<String, RunError> {
    Ok(Host.run(Command::new("ip").args(args.iter().copied())).await?.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_read_from_udhcpcs_variables_or_not_at_all() {
        let read = |pairs: &'static [(&str, &str)]| {
            Lease::read(|name| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned()))
        };
        let address = Ipv4Addr::new(10, 0, 0, 3);
        let gateway = Some(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(
            read(&[("ip", "10.0.0.3"), ("mask", "24"), ("router", "10.0.0.1 10.0.0.2"), ("mtu", "1450")]),
            Some(Lease { address, prefix: 24, gateway, mtu: Some(1450) })
        );
        let bare = Lease { address, prefix: 8, gateway: None, mtu: None };
        assert_eq!(read(&[("ip", "10.0.0.3"), ("mask", "8")]), Some(bare));
        assert_eq!(read(&[("ip", "10.0.0.3"), ("mask", "33")]), None);
        assert_eq!(read(&[("ip", "; reboot"), ("mask", "8")]), None);
        assert_eq!(read(&[]), None);
    }
}
