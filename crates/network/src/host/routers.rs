//! Networks with a router on each host: what this host is in them.

use std::net::Ipv4Addr;

use nova_db::{DbError, routers, transaction};
use nova_link::links::LinkKind;
use nova_service::chain;
use nova_types::network::Network;
use tracing::info;

use super::NetworkHost;
use crate::NetworkError;
use crate::plan::Plan;

impl NetworkHost {
    /// Those of `all` networks with a router on each host that have guests here, as they are here: this host serves them,
    /// and the gateway is its own address. It takes one where it has none yet.
    ///
    /// # Errors
    /// [`NetworkError::Db`]: then nothing is concluded.
    pub(super) async fn own(&mut self, all: &[Network]) -> Result<Vec<Network>, NetworkError> {
        let mut rows: Vec<Network> = all.iter().filter(|network| network.multi_host).cloned().collect();
        if rows.is_empty() {
            return Ok(rows);
        }
        let host = self.settings.host.clone();
        let (wanted, mut own) = {
            let conn = &mut self.db.read().await?;
            (routers::wanted(conn, &host).await?, routers::of_host(conn, &host).await?)
        };
        rows.retain(|network| wanted.contains(&network.id));
        for network in &rows {
            let Network { id, cidr, .. } = network;
            if own.contains_key(id) {
                continue;
            }
            let complaint = match transaction!(self.db, |tx| { routers::take(tx, *id, &host).await }) {
                Ok(address) => {
                    info!(%address, "To its guests of {cidr} this host is {address}.");
                    own.insert(*id, address);
                    None
                }
                // The next turn asks again.
                Err(error @ (DbError::NoMoreAddresses { .. } | DbError::Stale(_))) => Some(chain(&error).to_string()),
                Err(error) => return Err(error.into()),
            };
            self.complain(&format!("an address of this host in {cidr}"), complaint);
        }
        let here = |mut network: Network| {
            network.gateway = *own.get(&network.id)?;
            network.host = Some(host.clone());
            Some(network)
        };
        Ok(rows.into_iter().filter_map(here).collect())
    }

    /// Takes from bridges of ours what was this host's address there and is it no longer: it may be a guest's by now.
    ///
    /// # Errors
    /// [`NetworkError`]; the next turn goes on from there.
    pub(super) async fn shed(&mut self, all: &[Network], plan: &Plan) -> Result<(), NetworkError> {
        let networks: Vec<&Network> = all.iter().filter(|network| network.multi_host).collect();
        let gateway = |bridge: &str| plan.served.get(bridge).map(|served| served.dhcp.gateway);
        let wanted: Vec<(String, Option<Ipv4Addr>)> =
            networks.iter().map(|network| (network.bridge.clone(), gateway(&network.bridge))).collect();
        if self.shed.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let mut strays = Vec::new();
        for link in
            self.machine.links.list().await?.into_iter().filter(|link| link.ours && link.kind == LinkKind::Bridge)
        {
            let Some(network) = networks.iter().find(|network| network.bridge == link.name) else { continue };
            let inside = link.addresses.iter().filter(|net| net.trunc() == network.cidr).map(|net| net.addr());
            let stray = inside.filter(|address| gateway(&link.name) != Some(*address));
            strays.extend(stray.map(|address| (link.name.clone(), address)));
        }
        if !strays.is_empty() {
            let addresses: Vec<Ipv4Addr> = strays.iter().map(|(_, address)| *address).collect();
            // What is reserved is a host's by an administrator's hand.
            let given = routers::among(&mut self.db.read().await?, &addresses).await?;
            for (bridge, address) in strays.into_iter().filter(|(_, address)| given.contains(address)) {
                self.machine.links.remove_address(&bridge, address).await?;
                info!(bridge, %address, "This host is {address} to no guests any more.");
            }
        }
        self.shed = Some(wanted);
        Ok(())
    }
}
