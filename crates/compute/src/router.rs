//! Where each host serves its own guests, none of them starts before its host does: it would ask in vain for its address.

use nova_db::{routers, services};
use nova_types::network::Network;

use crate::host::Host;
use crate::problem::Problem;

const DAEMON: &str = "nova-network";

/// What a guest waits for.
#[derive(Debug, thiserror::Error)]
enum Missing {
    #[error("this host runs no nova-network")]
    Daemon,
    #[error("the nova-network of this host has stopped")]
    Stopped,
    #[error("this host has no address of its own in {0} yet")]
    Address(String),
}

/// Makes sure that this host serves its guests of a network, if it is of those that have a router on each host.
pub(crate) async fn is_there(host: &Host, network: &Network) -> Result<(), Problem> {
    if !network.multi_host {
        return Ok(());
    }
    let conn = &mut host.db.read().await?;
    if routers::of_host(conn, &host.name).await?.contains_key(&network.id) {
        return Ok(());
    }
    let daemons = services::list(conn).await?;
    match daemons.into_iter().find(|daemon| daemon.host == host.name && daemon.binary == DAEMON) {
        None => {
            let reason =
                format!("The host {} runs no {DAEMON}, and each host serves its own guests of the network.", host.name);
            Err(Problem::never(reason, Missing::Daemon))
        }
        Some(daemon) if daemon.gave_up => Err(Problem::later(Missing::Stopped)),
        Some(_) => Err(Problem::later(Missing::Address(network.cidr.to_string()))),
    }
}
