//! What `nova-dhcpbridge` does: dnsmasq calls it for each lease, and once at its start for the leases there are.
//!
//! It reads and writes files only. It needs neither broker nor database, so it never keeps dnsmasq waiting.

use std::io::{self, Write};
use std::path::Path;

use nova_types::Mac;

use crate::spool::{self, LeaseEvent, LeaseKind, SpoolError};

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum DhcpbridgeError {
    /// Too few arguments.
    #[error("expected `{0} <mac> <address> [hostname]`")]
    Arguments(String),
    /// An argument that is not what it should be.
    #[error("{0:?} is not {1}")]
    Argument(String, &'static str),
    /// The event could not be left.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The leases could not be printed.
    #[error("printing leases")]
    Print(#[source] io::Error),
}

/// Does what dnsmasq asks: `add`, `old` and `del` leave an event for the daemon; anything else prints the leases of the
/// network on bridge `interface`, as dnsmasq wants them at its start.
///
/// # Errors
/// [`DhcpbridgeError`].
pub fn act(
    arguments: &[String],
    networks_path: &Path,
    interface: &str,
    out: &mut impl Write,
) -> Result<(), DhcpbridgeError> {
    let action = arguments.first().map_or("init", String::as_str);
    let kind = match action {
        "add" | "old" => LeaseKind::Held,
        "del" => LeaseKind::Ended,
        _ => return print_leases(networks_path, interface, out),
    };
    // The host name, which dnsmasq leaves out when it knows none, is not needed.
    let [_, mac, address, ..] = arguments else { return Err(DhcpbridgeError::Arguments(action.to_owned())) };
    let mac: Mac = mac.parse().map_err(|_| DhcpbridgeError::Argument(mac.clone(), "a hardware address"))?;
    let address = address.parse().map_err(|_| DhcpbridgeError::Argument(address.clone(), "an IPv4 address"))?;
    Ok(spool::leave(networks_path, &LeaseEvent { kind, mac, address })?)
}

fn print_leases(networks_path: &Path, interface: &str, out: &mut impl Write) -> Result<(), DhcpbridgeError> {
    let interface = Path::new(interface).file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    match std::fs::read(nova_link::dnsmasq::leases_path(networks_path, &interface)) {
        Ok(leases) => out.write_all(&leases).map_err(DhcpbridgeError::Print),
        // A network that was never served has none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(DhcpbridgeError::Print(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(folder: &Path, line: &str) -> Result<String, String> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut out = Vec::new();
        act(&arguments, folder, "br100", &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_call_of_dnsmasq_becomes_an_event() {
        for (line, kind) in [
            ("add 02:16:3e:00:00:03 10.0.0.3 i-00000003", LeaseKind::Held),
            ("add 02:16:3e:00:00:03 10.0.0.3", LeaseKind::Held),
            ("old 02:16:3e:00:00:03 10.0.0.3 web", LeaseKind::Held),
            ("del 02:16:3e:00:00:03 10.0.0.3", LeaseKind::Ended),
        ] {
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(run(folder.path(), line), Ok(String::new()));
            let taken = spool::take(folder.path()).unwrap();
            assert_eq!(taken.iter().map(|taken| taken.event.kind).collect::<Vec<_>>(), [kind], "{line}");
        }
    }

    #[test]
    fn init_prints_the_leases_of_its_bridge() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(run(folder.path(), "init"), Ok(String::new()), "no network was served yet");
        std::fs::write(folder.path().join("nova-br100.leases"), "99 02:16:3e:00:00:03 10.0.0.3 a *\n").unwrap();
        for line in ["init", "", "tftp x y"] {
            assert_eq!(run(folder.path(), line), Ok("99 02:16:3e:00:00:03 10.0.0.3 a *\n".into()), "{line}");
        }
    }

    #[test]
    fn a_call_that_makes_no_sense_says_so() {
        let folder = tempfile::tempdir().unwrap();
        for (line, error) in [
            ("add", "expected `add <mac> <address> [hostname]`"),
            ("del 02:16:3e:00:00:03", "expected `del <mac> <address> [hostname]`"),
            ("add x 10.0.0.3", "\"x\" is not a hardware address"),
            ("add 02:16:3e:00:00:03 ../x", "\"../x\" is not an IPv4 address"),
        ] {
            assert_eq!(run(folder.path(), line), Err(error.to_owned()));
        }
    }
}
