//! What a server is to know when it starts: the leases that guests hold by the rows.
//!
//! Renewals change the file every few seconds where there are many guests, and it is written as a whole, but nobody reads
//! it while a server runs. So it is written now and then, and whenever a server starts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nova_types::InstanceId;
use nova_types::network::DhcpHost;

use super::files::{hostname, leases_path, replace};
use super::{DhcpChange, DhcpError, DhcpNetwork};

const WRITE_EVERY: Duration = Duration::from_secs(10);

/// The leases of one network, as they should be written.
#[derive(Debug, Default)]
pub(super) struct Leases {
    lines: BTreeMap<InstanceId, String>,
    /// Whether the file is another.
    due: bool,
    written: Option<Instant>,
}

impl Leases {
    /// The leases of these hosts, of which the file may know nothing.
    pub(super) fn of(network: &DhcpNetwork, hosts: &[DhcpHost]) -> Self {
        let lines = hosts.iter().filter_map(|host| Some((host.instance, lease_line(network, host)?)));
        Self { lines: lines.collect(), due: true, written: None }
    }

    pub(super) fn change(&mut self, network: &DhcpNetwork, change: &DhcpChange) {
        for gone in &change.gone {
            self.due |= self.lines.remove(gone).is_some();
        }
        for host in &change.set {
            let line = lease_line(network, host);
            let is_same = self.lines.get(&host.instance) == line.as_ref();
            self.due |= !is_same;
            match line {
                Some(line) => drop(self.lines.insert(host.instance, line)),
                None => drop(self.lines.remove(&host.instance)),
            }
        }
    }

    /// Writes the file if it is another and was not written a moment ago.
    pub(super) fn write_now_and_then(&mut self, folder: &Path, bridge: &str) -> Result<(), DhcpError> {
        if self.written.is_some_and(|written| written.elapsed() < WRITE_EVERY) {
            return Ok(());
        }
        self.write(folder, bridge)
    }

    /// Writes the file if it is another.
    pub(super) fn write(&mut self, folder: &Path, bridge: &str) -> Result<(), DhcpError> {
        if !self.due {
            return Ok(());
        }
        let path = leases_path(folder, bridge);
        let text: String = self.lines.values().map(String::as_str).collect();
        if !fs::read_to_string(&path).is_ok_and(|found| found == text) {
            replace(&path, &text)?;
        }
        (self.due, self.written) = (false, Some(Instant::now()));
        Ok(())
    }
}

/// A line of dnsmasq's lease file: `<expiry> <mac> <address> <name> <client id>`, for a host that asked for its address.
fn lease_line(network: &DhcpNetwork, host: &DhcpHost) -> Option<String> {
    let expiry = host.updated_at.unix_timestamp() + i64::try_from(network.lease.as_secs()).unwrap_or(i64::MAX / 2);
    host.leased.then(|| format!("{expiry} {} {} {} *\n", host.mac, host.address, hostname(host)))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use expect_test::expect;
    use nova_types::Mac;

    use super::*;

    fn network() -> DhcpNetwork {
        DhcpNetwork {
            bridge: "br100".into(),
            for_guests: false,
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            cidr: "10.0.0.0/24".parse().unwrap(),
            prefix6: None,
            first: Ipv4Addr::new(10, 0, 0, 2),
            domain: "novalocal".into(),
            lease: Duration::from_secs(120),
            name_server: None,
            mtu: None,
            script: "/usr/bin/nova-dhcpbridge".into(),
            flag_file: None,
        }
    }

    fn host(number: u8, hostname: &str, leased: bool) -> DhcpHost {
        DhcpHost {
            instance: InstanceId::new(number.into()),
            mac: Mac::of_guest([0, 0, number]),
            address: Ipv4Addr::new(10, 0, 0, number),
            hostname: hostname.into(),
            leased,
            updated_at: std::time::SystemTime::UNIX_EPOCH.into(),
        }
    }

    #[test]
    fn those_that_asked_are_leases_and_a_change_is_written_later_or_when_a_server_starts() {
        let folder = tempfile::tempdir().unwrap();
        let read = || fs::read_to_string(leases_path(folder.path(), "br100")).unwrap();
        let mut leases = Leases::of(&network(), &[host(3, "i-00000003", true), host(4, "web\n1", false)]);
        leases.write(folder.path(), "br100").unwrap();
        let before = read();
        expect![[r#"
            120 02:16:3e:00:00:03 10.0.0.3 i-00000003 *
        "#]]
        .assert_eq(&before);
        leases.change(&network(), &DhcpChange { set: vec![host(4, "web\n1", true)], gone: vec![InstanceId::new(3)] });
        leases.write_now_and_then(folder.path(), "br100").unwrap();
        assert_eq!(read(), before, "it was written a moment ago");
        leases.write(folder.path(), "br100").unwrap();
        // A name that is not plain gives way to the id.
        expect![[r#"
            120 02:16:3e:00:00:04 10.0.0.4 i-00000004 *
        "#]]
        .assert_eq(&read());
        fs::remove_file(leases_path(folder.path(), "br100")).unwrap();
        leases.change(&network(), &DhcpChange { set: vec![host(4, "web\n1", true)], gone: Vec::new() });
        leases.write(folder.path(), "br100").unwrap();
        assert!(!leases_path(folder.path(), "br100").exists(), "what is as it was is not written again");
    }
}
