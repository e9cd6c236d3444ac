//! Accepts connections, and lets none of them hold the others up.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::dispatch::Peer;

/// What one client, and all together, may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections in all; more wait to be accepted.
    pub(crate) connections: usize,
    /// Connections from one address; more are closed. Loopback is exempt: proxies and benches come from there.
    pub(crate) per_address: usize,
    /// How long the head of a request may take, and how long a connection may idle between requests.
    pub(crate) head: Duration,
    /// How long requests under way may take to finish when the daemon stops.
    pub(crate) drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1024, per_address: 64, head: Duration::from_secs(10), drain: Duration::from_secs(10) }
    }
}

/// Largest head of a request, address and headers together: as many parameters as a request may have, by GET.
const HEAD_BYTES: usize = 64 * 1024;
/// How long to rest when the system has no file descriptor left.
const REST: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `stop`, then finishes what is under way.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: impl Future<Output = ()>) {
    let (slots, stopping, tasks) =
        (Arc::new(Semaphore::new(limits.connections)), CancellationToken::new(), TaskTracker::new());
    let addresses = PerAddress::default();
    let accept = async {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(error = %error, "Accepting a connection failed.");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            let Some(place) = addresses.enter(peer.ip(), limits.per_address) else {
                debug!(address = %peer.ip(), "Closed a connection: its address has too many.");
                continue;
            };
            let (router, stopping) = (router.clone(), stopping.clone());
            tasks.spawn(async move {
                connection(stream, peer, router, limits, stopping).await;
                drop((slot, place));
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop => {}
    }
    drop(listener);
    stopping.cancel();
    tasks.close();
    if tokio::time::timeout(limits.drain, tasks.wait()).await.is_err() {
        warn!(connections = tasks.len(), "Stopped with requests under way.");
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, limits: Limits, stopping: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(error = %error, "Setting TCP_NODELAY failed.");
    }
    let service = TowerToHyperService::new(router.layer(Extension(Peer(peer))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(address = %peer.ip(), error = %error, "A connection ended early.");
    }
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct PerAddress(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place among those of its address, given back when dropped.
struct Place {
    of: PerAddress,
    address: IpAddr,
}

impl PerAddress {
    fn enter(&self, address: IpAddr, most: usize) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= most && !address.to_canonical().is_loopback() {
            return None;
        }
        *count += 1;
        Some(Place { of: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests;
