//! Removes the bridges of networks that no guest of this host needs any more, with what carries those to other hosts.
//!
//! `nova-network` removes those that it served. Those that were made for guests alone are removed here: only what we made,
//! has no address and nothing on it but segments of ours, was so before, and whose network the rows say has no instance on
//! this host. Bridges of flat networks stay. A launch that comes meanwhile waits, and then makes its bridge again.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use nova_db::networks;
use nova_link::carrier::{Idle, idle, remove_unused};
use nova_service::{Stop, Ticks, Turn};
use nova_types::network::Network;
use nova_types::{HostName, NetworkId};
use tokio::time::Instant;
use tracing::info;

use crate::host::{Host, RealHost};
use crate::problem::Problem;

/// Looks for them until the daemon stops.
pub(crate) async fn keep_removed(host: &Host, stop: Stop) {
    let Some(real) = &host.real else { return stop.cancelled().await };
    let ticks = Ticks::new("unused-bridges", host.settings.converge);
    ticks.run(stop, Removal { host, real, seen: BTreeMap::new() }).await;
}

/// What one look must know of the last.
#[derive(Debug)]
struct Removal<'a> {
    host: &'a Host,
    real: &'a RealHost,
    /// Since when each bridge or segment is known to be of no use.
    seen: BTreeMap<String, Instant>,
}

#[async_trait]
impl Turn for Removal<'_> {
    type Error = Problem;

    async fn turn(&mut self) -> Result<(), Problem> {
        let links = &*self.real.links;
        if idle(links).await? == Idle::default() {
            self.seen.clear();
            return Ok(());
        }
        // Whose bridge is made before this has its row; whose is not waits, and finds it missing.
        let _alone = self.real.bridges.write().await;
        let conn = &mut self.host.db.read().await?;
        let (rows, used) = (networks::list(conn).await?, networks::with_guests_on(conn, &self.host.name).await?);
        // After the rows: what another daemon made of them since is not idle any more.
        let idle = idle(links).await?;
        let begun = Instant::now();
        let mut seen = BTreeMap::new();
        for (bridge, carries) in &idle.bridges {
            let verdict = judge(bridge, *carries, &rows, &used, &self.host.name);
            let since = self.seen.get(bridge).copied();
            let certain = since.is_some_and(|since| match verdict {
                Verdict::Needed => false,
                Verdict::Unused => true,
                Verdict::Unknown => since.elapsed() >= self.host.settings.stranger_grace,
            });
            if certain && remove_unused(links, bridge).await? {
                info!(bridge, "Removed bridge {bridge}, which no guest of this host needs.");
            } else if verdict != Verdict::Needed {
                seen.insert(bridge.clone(), since.unwrap_or(begun));
            }
        }
        // On no bridge they are good for nothing, whosever they are; who needs one makes it.
        for segment in &idle.segments {
            if self.seen.contains_key(segment) {
                links.delete_segment(segment).await?;
            } else {
                seen.insert(segment.clone(), begun);
            }
        }
        self.seen = seen;
        Ok(())
    }
}

/// What the rows say of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Its network has guests here, is served here, or is flat.
    Needed,
    /// Its network has no guest here.
    Unused,
    /// It is of no network.
    Unknown,
}

/// `carries`: a segment of ours is on it.
fn judge(bridge: &str, carries: bool, rows: &[Network], used: &BTreeSet<NetworkId>, host: &HostName) -> Verdict {
    let mut of_bridge = rows.iter().filter(|row| row.bridge == bridge).peekable();
    if of_bridge.peek().is_none() {
        return if carries { Verdict::Unknown } else { Verdict::Needed };
    }
    let served = |row: &Network| row.project.is_some() && row.host.as_ref() == Some(host);
    let needed = |row: &Network| row.vlan.is_none() || used.contains(&row.id) || served(row);
    if of_bridge.any(needed) { Verdict::Needed } else { Verdict::Unused }
}

#[cfg(test)]
mod tests;
