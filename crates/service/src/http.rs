//! An HTTP server that lets no client hold the others up: what one may take, and how long, has bounds.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What one client, and all together, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all; more wait to be accepted.
    pub connections: usize,
    /// Connections from one address; more are closed. Loopback is exempt: proxies and benches come from there.
    pub per_address: usize,
    /// How long the head of a request may take, and how long a connection may idle between requests.
    pub head: Duration,
    /// How long a client may take nothing of an answer that is there for it.
    pub stall: Duration,
    /// How long requests under way may take to finish when the daemon stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            per_address: 64,
            head: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            drain: Duration::from_secs(10),
        }
    }
}

/// Largest head of a request, address and headers together: as many parameters as a request may have, by GET.
const HEAD_BYTES: usize = 64 * 1024;
/// How long to rest when the system has no file descriptor left.
const REST: Duration = Duration::from_millis(100);

/// Serves on `listener` until `stop`, then finishes what is under way. `service` makes what answers one client.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: impl Fn(SocketAddr) -> S,
    limits: Limits,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
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
            let (service, stopping) = (service(peer), stopping.clone());
            tasks.spawn(async move {
                connection(stream, peer, service, limits, stopping).await;
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

async fn connection<S, B>(stream: TcpStream, peer: SocketAddr, service: S, limits: Limits, stopping: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>,
    B: Body<Error: Into<BoxError>> + 'static,
{
    if let Err(error) = stream.set_nodelay(true) {
        debug!(error = %error, "Setting TCP_NODELAY failed.");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.stall));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
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
