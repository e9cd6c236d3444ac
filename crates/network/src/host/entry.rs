//! Who may be a network's gateway: nobody puts its address on a bridge before having asked there who has it.
//!
//! The lease of a silent host says that it may be gone, not that it is: cut off from the database it goes on serving its
//! guests. It answers for the gateway then, and so it keeps the network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use futures::FutureExt as _;
use futures::future::join_all;
use nova_db::{networks, transaction};
use nova_link::links::Bridge;
use nova_link::neighbours::NeighbourError;
use nova_service::chain;
use nova_types::network::Network;
use nova_types::{Mac, NetworkId};
use tracing::{info, warn};

use super::NetworkHost;
use crate::NetworkError;
use crate::plan::{Plan, Served, plan};

/// How many networks are asked about at once; each takes a second.
const AT_ONCE: usize = 64;

/// What is known of the gateways that this host might be.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Bridges that this host serves, or may begin to: nobody else had the address when they began.
    admitted: BTreeMap<String, NetworkId>,
    /// Those that are to be told of, for they are this host's only now.
    new: BTreeSet<String>,
    /// Why a bridge is not served, as it was last said.
    kept_out: BTreeMap<String, String>,
}

impl Entry {
    /// Whether the address of a bridge is still to be announced.
    pub(super) fn is_new(&self, bridge: &str) -> bool {
        self.new.contains(bridge)
    }

    /// Notes that it was.
    pub(super) fn announced(&mut self, bridge: &str) {
        self.new.remove(bridge);
    }

    /// Whether it was said of a bridge why it is not served, and not yet that this is over.
    #[cfg(test)]
    pub(super) fn keeps_out(&self, bridge: &str) -> bool {
        self.kept_out.contains_key(bridge)
    }

    fn admits(&self, served: &Served) -> bool {
        self.admitted.get(&served.bridge.name) == Some(&served.id)
    }

    fn admit(&mut self, served: &Served) {
        let bridge = &served.bridge.name;
        self.new.insert(bridge.clone());
        self.admitted.insert(bridge.clone(), served.id);
    }

    /// Says why a bridge is not served once, and once that it is over.
    fn say(&mut self, bridge: &str, why: Option<&KeptOut>) {
        match why.map(|why| chain(why).to_string()) {
            Some(why) if self.kept_out.get(bridge) != Some(&why) => {
                warn!(bridge, error = %why, "This host does not begin to serve {bridge}; asking again.");
                self.kept_out.insert(bridge.to_owned(), why);
            }
            Some(_) => {}
            None => {
                if self.kept_out.remove(bridge).is_some() {
                    info!(bridge, "Nobody else serves {bridge} any more; this host begins.");
                }
            }
        }
    }

    /// Forgets why bridges were not served that this host is not to serve any more.
    fn settle(&mut self, is_open: impl Fn(&str) -> bool) {
        let settled: Vec<String> = self.kept_out.keys().filter(|bridge| !is_open(bridge)).cloned().collect();
        for bridge in settled {
            self.kept_out.remove(&bridge);
            info!(bridge, "The host of {bridge} has come back; this one leaves it alone.");
        }
    }
}

/// Why a host keeps away from a gateway's address.
#[derive(Debug, thiserror::Error)]
enum KeptOut {
    /// It is in use.
    #[error("{mac} answers for the gateway {gateway}: another host still serves it, whatever its nova-network reports")]
    Answered {
        /// Who answers.
        mac: Mac,
        /// The address.
        gateway: Ipv4Addr,
    },
    /// Nobody could be asked.
    #[error("nobody can be asked who has the gateway {0}")]
    Unasked(Ipv4Addr, #[source] NetworkError),
}

impl NetworkHost {
    /// Takes over those of `all` networks whose hosts fell silent and do not answer for the gateway any more: they come to
    /// `rows`, where there are only this host's.
    ///
    /// # Errors
    /// [`NetworkError::Db`]: then nothing is concluded.
    pub(super) async fn take_over(&mut self, all: &[Network], rows: &mut Vec<Network>) -> Result<(), NetworkError> {
        let host = &self.settings.host;
        // The wires of a host that has just come up may not lead anywhere yet: a switch makes sure of loops first.
        if self.began.elapsed().as_secs() < u64::from(self.settings.lease_seconds.unsigned_abs()) {
            return Ok(());
        }
        let abandoned = networks::abandoned(&mut self.db.read().await?, host).await?;
        // Where each host is a router no row says whether this one is.
        let open = || abandoned.iter().chain(rows.iter()).chain(all.iter().filter(|row| row.multi_host));
        self.entry.settle(|bridge| open().any(|row| row.bridge == bridge));
        if abandoned.is_empty() {
            return Ok(());
        }
        // One that nobody uses, or whose bridge carries another, has no gateway that could answer.
        let wanted = plan(&abandoned, &self.settings);
        let asked = self.ask(wanted.served.into_values().collect()).await;
        for (served, answer) in &asked {
            self.entry.say(&served.bridge.name, answer.as_ref().err());
        }
        let (admitted, kept): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, answer)| answer.is_ok());
        // A second network on a bridge goes with the first: one host serves what is on it.
        let kept = |row: &&Network| kept.iter().any(|(served, _)| served.bridge.name == row.bridge);
        let free: Vec<NetworkId> = abandoned.iter().filter(|row| !kept(row)).map(|row| row.id).collect();
        if free.is_empty() {
            return Ok(());
        }
        let lease_seconds = self.settings.lease_seconds;
        *rows = transaction!(self.db, |tx| { networks::take_over(tx, host, &free, lease_seconds).await })?;
        for row in rows.iter().filter(|row| free.contains(&row.id)) {
            info!(network = %row.id, cidr = %row.cidr, "This host takes over the network {}.", row.cidr);
        }
        // Another may have been faster.
        for (served, _) in admitted.iter().filter(|(served, _)| rows.iter().any(|row| row.id == served.id)) {
            self.entry.admit(served);
        }
        Ok(())
    }

    /// Leaves out of `plan` what this host is to serve and somebody else still does, until that one has stopped.
    ///
    /// # Errors
    /// [`NetworkError::Link`] when it cannot be seen what this host serves already.
    pub(super) async fn admit(&mut self, plan: &mut Plan) -> Result<(), NetworkError> {
        self.entry.admitted.retain(|bridge, id| plan.served.get(bridge).is_some_and(|served| served.id == *id));
        if plan.served.values().all(|served| self.entry.admits(served)) {
            return Ok(());
        }
        let links = self.machine.links.list().await?;
        let has = |served: &Served| {
            let mut found = links.iter().filter(|link| link.name == served.bridge.name);
            found.any(|link| link.addresses.iter().any(|address| address.addr() == served.dhcp.gateway))
        };
        let (here, away): (Vec<_>, Vec<_>) =
            plan.served.values().filter(|served| !self.entry.admits(served)).cloned().partition(has);
        // Whoever put it there may have died before it was announced.
        here.iter().for_each(|served| self.entry.admit(served));
        for (served, answer) in self.ask(away).await {
            match answer {
                // The rows say that it is this host's, and on a wire that leads nowhere there is nobody to fall out with.
                Ok(()) | Err(KeptOut::Unasked(_, NetworkError::Neighbours(NeighbourError::Unplugged(_)))) => {
                    self.entry.say(&served.bridge.name, None);
                    self.entry.admit(&served);
                }
                Err(why) => {
                    self.entry.say(&served.bridge.name, Some(&why));
                    plan.served.remove(&served.bridge.name);
                }
            }
        }
        Ok(())
    }

    /// Asks on bridges who has gateways that were this host's: by the answers switches learn where they are. Without one
    /// nothing is lost.
    pub(super) async fn look_for(&self, gateways: &[(String, Ipv4Addr)]) {
        for some in gateways.chunks(AT_ONCE) {
            let neighbours = &*self.machine.neighbours;
            join_all(some.iter().map(|(bridge, gateway)| neighbours.who_has(bridge, None, *gateway))).await;
        }
    }

    /// Asks for each network, on its bridge, who has the gateway's address; an error is why this host must not have it.
    async fn ask(&self, all: Vec<Served>) -> Vec<(Served, Result<(), KeptOut>)> {
        let mut answers = Vec::with_capacity(all.len());
        for some in all.chunks(AT_ONCE) {
            answers.extend(join_all(some.iter().map(|served| self.ask_one(served).boxed())).await);
        }
        all.into_iter().zip(answers).collect()
    }

    async fn ask_one(&self, served: &Served) -> Result<(), KeptOut> {
        let (bridge, gateway) = (&served.bridge.name, served.dhcp.gateway);
        let ask = async {
            let bare = Bridge { address: None, address6: None, ..served.bridge.clone() };
            let links = &*self.machine.links;
            self.settings.carrier.ensure(links, &bare, served.tag).await?;
            // Nor does the bridge keep the hardware address that an answer would come from.
            links.remove_address(bridge, gateway).await?;
            let uplink = self.settings.carrier.uplink(served.tag);
            Ok::<_, NetworkError>(self.machine.neighbours.who_has(bridge, uplink.as_deref(), gateway).await?)
        };
        match ask.await {
            Ok(None) => Ok(()),
            Ok(Some(mac)) => Err(KeptOut::Answered { mac, gateway }),
            Err(error) => Err(KeptOut::Unasked(gateway, error)),
        }
    }
}
